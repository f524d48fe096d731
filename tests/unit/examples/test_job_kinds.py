"""The examples of job kinds are what they say."""

import subprocess
from pathlib import Path

import pytest

from st_shared.spec import read_job_file

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.mark.parametrize("kind", ["command", "noop"])
def test_example_is_valid(kind):
    assert read_job_file(EXAMPLES / f"{kind}.yaml").kind == kind


def test_the_script_of_the_example_runs(tmp_path):
    (tmp_path / "outputs").mkdir()
    script = read_job_file(EXAMPLES / "command.yaml").command
    told = {"ST_JOB_ID": "job_1", "ST_ATTEMPT": "1", "ST_RUN_DIR": str(tmp_path)}
    found = subprocess.run(
        ["/bin/sh", "-e", "-c", script.run],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", **told},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.startswith("attempt 1 of job_1\n")
    assert (tmp_path / "outputs/counts.txt").read_text().split()[:2] == ["3", "a"]
