"""Random schedules over the real services: controllers die at any write, and nothing is lost.

``SEED=n`` plays that schedule alone.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from simulation.invariants import Broken
from simulation.services import play
from st_controller.services import idempotency, leases

SCHEDULES = 16
MUST_HAPPEN = (
    "attempts failed", "attempts succeeded", "deaths", "late writes refused", "leaders killed",
    "lies refused", "looks into memory", "offers",
)  # fmt: skip


@pytest.mark.skipif("SEED" in os.environ, reason="one schedule is played alone")
def test_whoever_dies_between_two_writes_nothing_is_lost_or_done_twice(
    sqlite_template: Path,
) -> None:
    with ProcessPoolExecutor(2) as pool:
        played = list(pool.map(partial(play, template=sqlite_template), range(SCHEDULES)))

    told = sum(played[1:], played[0])
    assert [what for what in MUST_HAPPEN if not told[what]] == []  # or it proves nothing


@pytest.mark.skipif("SEED" not in os.environ, reason="for a replay")
def test_replay(sqlite_template: Path) -> None:
    play(int(os.environ["SEED"]), sqlite_template)


def test_a_submission_that_is_taken_twice_is_noticed(
    sqlite_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "take", lambda *_: None)
    with pytest.raises(Broken, match="was answered"):
        play(0, sqlite_template)


def test_a_lease_that_is_not_asked_for_is_noticed(
    sqlite_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "is_force", lambda attempt, *_: attempt is not None)

    def caught(seed: int) -> bool:
        try:
            play(seed, sqlite_template)
        except Broken:
            return True
        return False

    assert any(caught(seed) for seed in range(20))
