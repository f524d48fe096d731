"""What is done beside a training, and that none of it can change how the process ends."""

import subprocess
import sys
from threading import Event

import pytest

from st_trainer.background import Background

BUSY = """
from threading import Event
from st_trainer.background import Background, leave
beside = Background("beside", 1)
begun = Event()
beside.submit(lambda: (begun.set(), Event().wait()))
begun.wait()
print("left:", beside.close(0))
leave(3)
"""


def test_a_process_ends_as_it_says_although_a_task_never_does():
    done = subprocess.run(
        [sys.executable, "-c", BUSY], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "left: 1\n", "")


def test_its_thread_is_gone_once_all_is_done():
    beside: Background[int] = Background("beside", 2)
    assert beside.submit(lambda: 1)
    assert beside.close(120) == 0
    assert not beside._thread.is_alive()
    assert beside.finished() == [1]


def test_what_a_task_raises_is_handed_on_and_too_many_are_refused():
    beside: Background[None] = Background("beside", 1)
    begun, go = Event(), Event()

    def fail():
        begun.set()
        go.wait()
        raise ValueError("no")

    assert beside.submit(fail)
    assert begun.wait(120)
    assert beside.submit(lambda: None)
    assert not beside.submit(lambda: None)
    go.set()
    assert beside.close(120) == 0
    [error, nothing] = beside.finished()
    with pytest.raises(ValueError, match="no"):
        raise error
    assert nothing is None
