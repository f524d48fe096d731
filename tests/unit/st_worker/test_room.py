"""When the disk of a worker has room for one more job, and for which datasets."""

import errno
import os
from pathlib import Path

import pytest

from st_shared.content_cache import ContentCache
from st_shared.protocol import content_room
from st_worker.room import CONTENT_SECONDS, Room

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


def test_room_for_datasets_is_what_the_cache_may_take_and_leaves_the_least_free(tmp_path):
    now, free = [100.0], [62 * GIB]
    cache = ContentCache(tmp_path, 50 * GIB, free=lambda folder: free[0])
    room = Room(FOLDER, 2.0, cache=cache, clock=lambda: now[0])
    assert room.for_contents() == content_room.had(50.0) == 48.0
    free[0] = 22 * GIB
    assert room.for_contents() == 48.0  # the disk is not asked with every heartbeat
    now[0] += CONTENT_SECONDS
    assert room.for_contents() == 20.0
    assert Room(FOLDER, 2.0).for_contents() is None


def test_what_lacked_room_is_not_taken_for_a_while_and_smaller_things_are(tmp_path):
    now = [100.0]
    cache = ContentCache(tmp_path, 64 * GIB, free=lambda folder: 999 * GIB)
    room = Room(FOLDER, 0.0, refused_seconds=60.0, cache=cache, clock=lambda: now[0])
    room.note_lack(20 * GIB)
    told = room.for_contents()
    assert 18 <= told < content_room.needed(20.0)
    now[0] += 60
    assert room.for_contents() == 64.0


@pytest.mark.parametrize("gb", [0.08, 0.9, 1.0, 3.3, 48.0, 50.0, 1000.1])
def test_steps_of_room_are_near_and_on_the_right_side(gb):
    assert gb <= content_room.needed(gb) < gb * 1.126
    assert gb >= content_room.had(gb) > gb * 0.888
    assert content_room.needed(content_room.had(gb)) == content_room.had(gb)


def test_what_is_small_needs_no_room_that_is_asked_for():
    assert (content_room.needed(0.0), content_room.needed(0.0625), content_room.had(0.0)) == (
        0,
        0,
        0,
    )
