"""Random schedules: whatever workers, leaders and people do, the queue keeps its promises.

``SEED=n`` plays that schedule alone; ``ST_SCHEDULES`` says how many are played.
"""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from simulation.invariants import Broken
from simulation.nightly import play_all
from simulation.reference import Reference
from simulation.schedule import play
from st_controller.domain.scheduling.model import PendingJob, Share, WorkerCapacity
from st_controller.domain.scheduling.scheduler import Scheduler

MAKEFILE = Path(__file__).parents[2] / "Makefile"
SCHEDULES = int(os.environ.get("ST_SCHEDULES", "240"))
MUST_HAPPEN = (
    "attempts cancelled", "attempts expired", "attempts failed", "attempts lost",
    "attempts preempted", "attempts succeeded", "decisions while workers are kept", "gangs placed",
    "late reports refused", "late writes refused", "lies refused", "offers that came to nothing",
    "placements of reserved jobs", "preemptions", "preemptions under limits",
)  # fmt: skip


@pytest.mark.skipif("SEED" in os.environ, reason="one schedule is played alone")
@pytest.mark.timeout(3600)
def test_no_schedule_breaks_an_invariant_and_every_job_ends() -> None:
    told, broken = play_all(range(SCHEDULES))

    assert broken == []
    assert [what for what in MUST_HAPPEN if not told[what]] == []  # or it proves nothing


@pytest.mark.skipif("SEED" not in os.environ, reason="for a replay")
def test_replay() -> None:
    play(int(os.environ["SEED"]))


def test_the_nightly_target_finds_all_that_it_imports() -> None:
    """It runs outside of pytest, which knows more folders."""
    target = re.search(
        r"^\tcd tests && (.*-m simulation\.nightly)$", MAKEFILE.read_text(), re.MULTILINE
    )
    assert target is not None
    command = target[1].replace("../$(BIN)/python", sys.executable).replace("$$", "$")
    starts = command.replace("-m simulation.nightly", "-c 'import simulation.nightly'")

    subprocess.run(starts, shell=True, cwd=MAKEFILE.parent / "tests", check=True)


def test_the_same_seed_gives_the_same_schedule() -> None:
    first, second = play(7), play(7)

    assert repr(first.tables.attempts) == repr(second.tables.attempts)
    assert first.steps == second.steps


def test_nobody_yields_whom_the_same_decision_has_started() -> None:
    play(7_000_945)  # a lower job fills the limit that then holds up an urgent one


@pytest.mark.parametrize("seed", range(20_000, 20_010))
def test_the_reference_keeps_the_same_promises(seed: int) -> None:
    play(seed, Reference)


class _Forgetful(Scheduler):
    """Charges nothing: as a scheduler whose share is only a cap."""

    def finish(self, job_id: str, now: float, *, charge: bool = True, used: Any = None) -> None:
        super().finish(job_id, now, charge=False)


class _Greedy(Scheduler):
    """Does not know the limits: as a queue that does not gate dispatch."""

    def set_share(self, path: str, share: Share) -> None:
        pass


class _Hasty(Scheduler):
    """Takes a job for finished as soon as it is told to yield, and gives its slots away."""

    def drop_worker(self, worker_id: str, now: float) -> None:
        for job_id in [
            job for job, held in self.held.items() if held.grants[0].worker == worker_id
        ]:
            self.finish(job_id, now)
        super().drop_worker(worker_id, now)


class _Latest(Scheduler):
    """Serves the latest first."""

    def enqueue(self, job: PendingJob, now: float) -> None:
        super().enqueue(replace(job, submitted=-job.submitted), now)


class _Lazy(Scheduler):
    """Overlooks what a worker that joins could run."""

    def put_worker(self, worker: WorkerCapacity, now: float) -> None:
        super().put_worker(worker, now)
        self._attention.stuck = (1 << len(self.fleet.shapes.known)) - 1


@pytest.mark.parametrize("mutant", [_Forgetful, _Greedy, _Hasty, _Latest, _Lazy])
def test_a_scheduler_that_breaks_its_promise_is_caught(mutant: type[Scheduler]) -> None:
    def caught(seed: int) -> bool:
        try:
            play(seed, mutant)
        except Broken:
            return True
        return False

    assert any(caught(seed) for seed in range(40))
