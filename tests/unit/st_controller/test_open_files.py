"""The limit of open files, in a process of its own."""

import subprocess
import sys

SCRIPT = """
import resource
from st_controller.open_files import allow_all
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
print(allow_all(), *resource.getrlimit(resource.RLIMIT_NOFILE), allow_all())
"""


def test_the_soft_limit_is_raised_to_the_hard_one():
    made = subprocess.check_output([sys.executable, "-c", SCRIPT], text=True)
    assert made.split() == ["200", "200", "200", "200"]
