"""When the disk of a worker has room for one more job."""

import errno
import os
from pathlib import Path

from st_worker.room import Room

GIB = 2**30
FOLDER = Path("/state")


def test_a_disk_is_short_below_the_least_and_well_again_with_some_slack():
    free = [2 * GIB]
    room = Room(FOLDER, 2.0, free=lambda folder: free[0])
    assert room.lack() is None
    free[0] -= 1
    assert room.lack() == "less than 2 GiB are free on the disk of /state"
    free[0] = 2 * GIB + 1
    assert room.lack() is not None  # it does not open and shut with every line
    free[0] = int(2.2 * GIB) + 1
    assert room.lack() is None
    free[0] = 2 * GIB
    assert room.lack() is None


def test_a_folder_that_is_gone_has_no_room(tmp_path):
    said = Room(tmp_path / "gone", 2.0).lack()
    assert said == f"the disk of {tmp_path / 'gone'} does not answer: No such file or directory"


def test_a_disk_that_refused_to_write_is_full_for_a_while_whatever_it_says():
    now = [100.0]
    room = Room(FOLDER, 0.0, free=lambda folder: 50 * GIB, clock=lambda: now[0])
    room.note_refusal(OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)))
    assert room.lack() == f"its disk takes nothing more: {os.strerror(errno.EDQUOT)}"
    now[0] += 60
    assert room.lack() is None


def test_a_disk_is_exhausted_when_nothing_is_left_and_not_when_it_is_only_short(tmp_path):
    free = [GIB]
    room = Room(FOLDER, 2.0, free=lambda folder: free[0])
    assert room.exhaustion() is None
    free[0] = 4096
    assert room.exhaustion() == "the disk of /state is full"
    assert Room(tmp_path / "gone", 2.0).exhaustion() is None
