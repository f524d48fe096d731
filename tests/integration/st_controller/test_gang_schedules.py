"""Random lives of gangs through the services: what must hold after every single step."""

from collections import Counter
from random import Random

import pytest
from sqlalchemy import select

from st_controller.domain.attempts import LEASED, LIVE
from st_controller.errors import Refusal
from st_controller.services import offers
from st_controller.store.schema import Attempt, Job
from st_shared.protocol.states import AttemptState, FailureKind, JobState, Outcome

STEPS = 45
HOLDS = (JobState.ASSIGNED, JobState.RUNNING)
ENDS = [
    (Outcome.SUCCEEDED, None),
    (Outcome.PREEMPTED, None),
    (Outcome.FAILED, FailureKind.CRASHED),
    (Outcome.FAILED, FailureKind.PEER_LOST),
    (Outcome.FAILED, FailureKind.OUT_OF_MEMORY),
]


class Life:
    """Jobs and workers to which something happens at every step."""

    def __init__(self, steps, random):
        self.steps, self.random = steps, random
        self.workers = [steps.join(f"w{number}", slots=2) for number in range(4)]
        self.retry = {"max_attempts": 4, "backoff": "1s"}
        for number in range(4):
            self.submit(number)

    def submit(self, number):
        resources = {"nodes": self.random.choice((1, 2, 2, 3)), "slots": self.random.choice((1, 2))}
        self.steps.submit(f"job-{number}", resources=resources, retry=self.retry)

    def rows(self, *states):
        with self.steps.db.read() as session:
            found = list(session.scalars(select(Attempt).order_by(Attempt.id)))
        return [each for each in found if not states or each.state in states]

    def jobs(self):
        with self.steps.db.read() as session:
            return list(session.scalars(select(Job).order_by(Job.id)))

    def act(self):
        """One random thing; what the controller refuses leaves no trace."""
        action = self.random.choice(
            ("place", "claim", "claim", "claim", "run", "run", "end", "pass", "cancel", "preempt")
        )
        getattr(self, f"do_{action}")()

    def one(self, found):
        return self.random.choice(found) if found else None

    def do_place(self):
        self.steps.place()

    def do_claim(self):
        if row := self.one(self.rows(AttemptState.OFFERED)):
            try:
                self.steps.claim(row.worker_id, row.id)
            except Refusal:
                assert row.offer_expires_at <= self.steps.clock()

    def do_run(self):
        if row := self.one(self.rows(AttemptState.CLAIMED)):
            self.steps.run(row.worker_id, row.id, epoch=row.epoch)

    def do_end(self):
        if row := self.one(self.rows(*LEASED)):
            outcome, failure = self.one(ENDS)
            if row.stop == "cancel":
                outcome, failure = Outcome.CANCELLED, None
            self.steps.finish(row.worker_id, row.id, outcome, epoch=row.epoch, failure=failure)

    def do_pass(self):
        """Time goes by, and some workers are silent."""
        self.steps.clock.advance(self.random.choice((1, 5, 12)))
        for worker_id in self.workers:
            if self.random.random() < 0.8:
                self.beat(worker_id)
        self.steps.sweep()

    def do_cancel(self):
        if self.random.random() < 0.15 and (job := self.one(self.jobs())):
            try:
                self.steps.cancel(job.id)
            except Refusal:
                assert job.state in {JobState.SUCCEEDED, JobState.FAILED}

    def do_preempt(self):
        if job := self.one([job for job in self.jobs() if job.state in HOLDS]):
            with self.steps.db.write() as tx:
                offers.preempt(tx, job.id, "job_other")

    def beat(self, worker_id):
        held = [row for row in self.rows(*LEASED) if row.worker_id == worker_id]
        for row in held:
            self.steps.beat(worker_id, row.id, epoch=row.epoch)
        if not held:
            self.steps.beat(worker_id)

    def calm_down(self):
        """Nothing breaks any more: every job comes to its end."""
        for _ in range(200):
            if all(JobState(job.state).is_final for job in self.jobs()):
                return
            self.steps.clock.advance(3)
            for worker_id in self.workers:
                self.beat(worker_id)
            self.steps.sweep()
            self.steps.place()
            for row in self.rows(AttemptState.OFFERED):
                self.steps.claim(row.worker_id, row.id)
            for row in self.rows(*LEASED):
                outcome = Outcome.CANCELLED if row.stop == "cancel" else Outcome.SUCCEEDED
                try:
                    self.steps.finish(row.worker_id, row.id, outcome, epoch=row.epoch)
                except Refusal:
                    continue  # it went with another of its gang in this very loop
        raise AssertionError(f"never over: {[(job.id, job.state) for job in self.jobs()]}")

    def must_hold(self):
        rows, jobs = self.rows(), {job.id: job for job in self.jobs()}
        live = [row for row in rows if row.state in LIVE]
        taken = Counter((row.worker_id, slot) for row in live for slot in row.slots)
        assert not taken or max(taken.values()) == 1, "a slot is given twice"
        for row in live:
            job = jobs[row.job_id]
            assert job.state in HOLDS, "slots are held for a job that does not run"
            assert row.number == job.attempts, "two attempts of a job live"
        for job in jobs.values():
            holds = any(row.job_id == job.id for row in live)
            assert holds == (job.state in HOLDS), f"{job.state} without an attempt"
            assert job.tries_used <= job.max_attempts
        gangs = {(row.job_id, row.number) for row in rows}
        for job_id, number in gangs:
            members = [row for row in rows if (row.job_id, row.number) == (job_id, number)]
            nodes = jobs[job_id].spec["resources"]["nodes"]
            assert sorted(row.node for row in members) == list(range(nodes)), "a gang in part"
            assert len({row.worker_id for row in members}) == nodes
            assert {(row.epoch, row.nodes) for row in members} == {(number, nodes)}


@pytest.mark.parametrize("seed", range(4))
def test_gangs_are_whole_or_absent_whatever_happens(steps, seed):
    life = Life(steps, Random(seed))
    for number in range(STEPS):
        if number % 15 == 14:
            life.submit(f"later-{number}")
        life.act()
        life.must_hold()
    life.calm_down()
    life.must_hold()
