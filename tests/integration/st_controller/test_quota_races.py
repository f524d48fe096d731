"""Quotas under any order of events, and under real processes that race for what is left."""

import multiprocessing
import os
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from itertools import count

import pytest
from controller_steps import Steps
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)
from purse import ORG, TEAM, Purse
from quota_racer import BODY, PATIENCE, race
from sqlalchemy import func, select

from st_controller.dispatch.accounting import Books
from st_controller.domain.attempts import LEASED
from st_controller.domain.policy.estimates import of_time
from st_controller.domain.workers import Patience
from st_controller.errors import Conflict, InvalidRequest, QuotaExceeded
from st_controller.events.hub import Hub
from st_controller.platform import Platform
from st_controller.services import jobs, joint_submission, steering, submission, workers
from st_controller.services.drafts import Rules
from st_controller.services.joint_submission import Submission
from st_controller.services.policy import quota_book, stock, tenants
from st_controller.settings import Settings
from st_controller.store.database import Database
from st_controller.store.schema import Attempt, Charge, Job, QuotaCounter, Worker
from st_shared.clock import ManualClock
from st_shared.protocol.states import FailureKind, JobState, Outcome

SUBMITTERS = 8
NAMES = [f"user{number}" for number in range(SUBMITTERS)]
PROCESSES = 3
EXAMPLES = int(os.environ.get("ST_QUOTA_EXAMPLES", "6"))
"""Orders of events that are tried; `make test-nightly` tries more and longer ones."""
STEP = 40.0
"""Seconds between two counts, fewer than what a hold keeps for the last checkpoint."""
LIMITS = {
    ("all", "slot_hours_monthly"): "4",
    (ORG, "cost_monthly"): "15",
    (ORG, "cost_daily"): "9",
    (TEAM, "slot_hours_monthly"): "1.5",
    ("default/two", "cost_monthly"): "5",
    (f"{TEAM}/user0", "submissions_per_hour"): "3",
    ("default/two/user1", "cost_monthly"): "2",
}


class Ledger(RuleBasedStateMachine):
    """Eight people submit, cancel and retry; workers claim, run, end and fall silent; time passes.

    Whatever happens in whatever order, no ceiling is passed by what is held, every counter is what
    a count of all jobs and charges gives, and what is over holds nothing.
    """

    jobs, claims = Bundle("jobs"), Bundle("claims")
    template: str

    def __init__(self) -> None:
        super().__init__()
        self.folder = self.make_folder()
        self.clock = ManualClock()
        self.db = Database(f"sqlite:///{self.folder}/controller.db", clock=self.clock)
        platform = Platform(
            settings=Settings(data_dir=self.folder), db=self.db, hub=Hub(),
            objects=None, patience=Patience(),
        )  # fmt: skip
        self.steps = Steps(platform, self.clock)
        self.purse = Purse(self.steps)
        self.people = [
            self.steps.user(name, "researcher", "default", "two" if number % 2 else "default")
            for number, name in enumerate(NAMES)
        ]
        self.purse.price("6")
        for (path, kind), amount in LIMITS.items():
            self.purse.quota(path, kind, amount)
        self.workers = [self.steps.join(f"w{n}", slots=2) for n in range(2)]

    @rule(target=jobs, who=st.integers(0, SUBMITTERS - 1), minutes=st.integers(1, 40),
          nodes=st.integers(1, 2), slots=st.integers(1, 2), parent=st.none() | jobs)  # fmt: skip
    def submit(self, who, minutes, nodes, slots, parent):
        job = {"name": "j", "noop": {}, "expected_time": f"{minutes}m",
               "resources": {"slots": slots, "nodes": nodes},
               "after": [parent] if parent else []}  # fmt: skip
        try:
            return self.steps.submit_as(job, self.people[who])[0]
        except (QuotaExceeded, InvalidRequest):  # the parent may be somebody else's
            return None

    @rule(job=jobs)
    def cancel(self, job):
        if job and not JobState(self.steps.job(job).state).is_final:
            self.steps.cancel(job)

    @rule(job=jobs)
    def retry(self, job):
        try:
            if job:
                with self.db.write() as tx:
                    steering.retry(tx, self.steps.admin, job, Rules())
        except (Conflict, QuotaExceeded):
            pass

    @rule(target=claims, claims_it=st.booleans())
    def place(self, claims_it):
        for worker in self.workers:
            self.steps.beat(worker)
        self.steps.place()
        held = []
        for worker in self.workers if claims_it else ():
            for attempt in offers_of(self.db, worker):
                self.steps.claim(worker, attempt)
                held.append((worker, attempt))
        return held

    @rule(held=consumes(claims), runs=st.booleans(),
          outcome=st.sampled_from(["succeeded", "failed", "preempted", "vanished"]))  # fmt: skip
    def end(self, held, runs, outcome):
        for worker, attempt in held or ():
            row = self.steps.attempt(attempt)
            if row.state == "finished":
                continue
            if runs:
                self.steps.run(worker, attempt, epoch=row.epoch)
            if outcome == "vanished":
                continue  # its lease runs out
            stopped = Outcome.CANCELLED if row.stop == "cancel" else Outcome.PREEMPTED
            how = stopped if row.stop else Outcome(outcome)
            kind = FailureKind.CRASHED if how is Outcome.FAILED else None
            self.steps.finish(worker, attempt, how, epoch=row.epoch, failure=kind)

    @rule(seconds=st.sampled_from([1, 17, 50, 200, 500]))
    def wait(self, seconds):
        while seconds > 0:
            step = min(STEP, seconds)
            seconds -= step
            self.clock.advance(step)
            for worker in self.workers:
                self.beat(worker)
            self.purse.accrue()
            self.obey()

    @rule()
    def silence(self):
        self.clock.advance(STEP)
        self.steps.sweep()
        self.purse.accrue()
        self.obey()

    @rule()
    def night(self):
        """A day passes in which nothing runs."""
        if not any(leased(self.db, worker) for worker in self.workers):
            self.clock.advance(86_400)
            self.steps.sweep()

    def obey(self):
        """Workers end within the margin what was to be stopped because a quota is used up."""
        with self.db.read() as session:
            query = select(Attempt).where(Attempt.stop == "preempt", Attempt.state.in_(LEASED))
            ordered = session.scalars(query).all()
        for attempt in ordered:
            row = self.steps.attempt(attempt.id)
            if row.state != "finished":
                self.steps.finish(row.worker_id, row.id, Outcome.PREEMPTED, epoch=row.epoch)

    @invariant()
    def every_counter_is_what_a_count_gives(self):
        now = self.clock()
        with self.db.read() as session:
            book = quota_book.read(session)
            for path, kind in LIMITS:
                for place in book.places("" if path == "all" else path):
                    if place.kind != kind:
                        continue
                    row = session.get_one(QuotaCounter, (place.path, place.kind))
                    used = row.used if row.period == place.period(now) else 0
                    counted = stock.count(session, place, now)
                    assert (used, row.held) == counted, place
                    assert row.held >= 0
                    assert place.ceiling is not None
                    assert used + row.held <= place.ceiling.amount + self.late(place), place

    def late(self, place):
        """What tries after the first used before they were looked at: they begin with the rest."""
        with self.db.read() as session:
            rows = session.execute(
                select(Attempt.rate, Attempt.slots)
                .join(Job, Job.id == Attempt.job_id)
                .where(Attempt.number > 1, *tenants.below(Job, place.path))
            ).all()
        used = [of_time(rate, len(slots), timedelta(seconds=STEP)) for rate, slots in rows]
        return sum(each.of(place.meter) for each in used)

    @invariant()
    def what_is_over_holds_nothing(self):
        with self.db.read() as session:
            over = [state for state in JobState if state.is_final]
            for job in session.scalars(select(Job).where(Job.state.in_(over))):
                assert (job.held_micros, job.held_slot_ms) in {(0, 0), (None, None)}

    def beat(self, worker):
        self.steps.beat(worker)
        for attempt, epoch in leased(self.db, worker):
            self.steps.beat(worker, attempt, epoch=epoch)

    def teardown(self):
        self.db.close()


def offers_of(db, worker):
    with db.read() as session:
        found = workers.sync(session, session.get_one(Worker, worker)).offers
    return [offer.attempt_id for offer in found]


def leased(db, worker):
    with db.read() as session:
        query = select(Attempt.id, Attempt.epoch)
        mine = query.where(Attempt.worker_id == worker, Attempt.state.in_(LEASED))
        return session.execute(mine).all()


@pytest.mark.embedded
@pytest.mark.timeout(300 if EXAMPLES < 50 else 7200)
def test_no_order_of_events_passes_a_ceiling_or_loses_a_hold(sqlite_template, tmp_path):

    numbers = count()

    class Here(Ledger):
        def make_folder(self):
            folder = tmp_path / str(next(numbers))
            folder.mkdir()
            shutil.copy(sqlite_template, folder / "controller.db")
            return folder

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=20 if EXAMPLES < 50 else 35,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_processes_that_race_for_the_last_of_a_quota(steps, db):
    if db.is_sqlite:
        pytest.skip("SQLite has one writer at a time")
    purse = Purse(steps)
    for number in range(SUBMITTERS):
        steps.user(f"user{number}", "researcher", "default", "two" if number % 2 else "default")
    purse.price("6")  # a job holds 1
    purse.quota(ORG, "cost_monthly", "17")
    purse.quota(TEAM, "cost_monthly", "11")
    purse.quota("default/two", "submissions_per_hour", Decimal(9))
    context = multiprocessing.get_context("spawn")
    url = db.engine.url.render_as_string(hide_password=False)
    together, told = context.Barrier(PROCESSES), context.Queue()
    processes = [
        context.Process(
            target=race,
            args=(
                url,
                [f"user{n}" for n in range(first, SUBMITTERS, PROCESSES)],
                16,
                together,
                told,
            ),
        )
        for first in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    answers = [told.get(timeout=PATIENCE) for _ in processes]
    for process in processes:
        process.join(PATIENCE)
    assert sum(done for done, _ in answers) == 17
    assert sum(refused for _, refused in answers) == PROCESSES * 16 - 17
    assert purse.money() == (0, 17)
    assert purse.money(TEAM)[1] <= 11
    assert purse.counter("default/two", "submissions_per_hour")[0] <= 9
    purse.agrees()


class Crowd:
    """What meets at counters; each method is done by a thread of its own, again and again."""

    def __init__(self, steps, purse) -> None:
        self.steps, self.db, self.purse = steps, steps.db, purse
        self.people = [
            steps.user(f"{org}{number}", "researcher", org, f"team{number}")
            for org in ("default", "aa", "bb")
            for number in range(2)
        ]
        self.draft = submission.check(steps.admin, BODY, Rules())
        self.draw, self.leader = random.Random(5), Books(self.db)
        self.workers = [steps.join(f"w{number}", slots=4) for number in range(2)]

    def submit(self, number):
        with self.db.write(places_events=True) as tx:
            submission.enqueue(tx, self.people[number % len(self.people)], self.draft)

    def submit_together(self, number):
        del number
        chosen = self.draw.sample(self.people, 4)
        with self.db.write(places_events=True) as tx:
            joint_submission._enqueue(tx, [Submission(who, self.draft, None) for who in chosen])

    def cancel(self, number):
        del number
        with self.db.write() as tx:
            found = select(Job).where(Job.state == JobState.QUEUED).order_by(Job.id).limit(3)
            for job in tx.session.scalars(found.with_for_update()):
                jobs.stop(tx, self.steps.admin, job, [])

    def retry(self, number):
        del number
        with self.db.read() as session:
            over = select(Job.id).where(Job.state == JobState.CANCELLED).limit(20)
            ids = list(session.scalars(over))
        if ids:
            with suppress(Conflict, QuotaExceeded), self.db.write() as tx:
                steering.retry(tx, self.steps.admin, self.draw.choice(ids), Rules())

    def place(self, number):
        """A round of the leader."""
        del number
        for worker in self.workers:
            self.steps.beat(worker)
        self.steps.place()

    def work(self, number):
        """Two workers claim what they are offered, and end it in one way or another."""
        for worker in self.workers:
            for attempt in offers_of(self.db, worker):
                with suppress(Conflict):  # cancelled meanwhile
                    self.steps.claim(worker, attempt)
                    self.steps.run(worker, attempt)
        self.steps.clock.advance(1)  # in which they use something
        self.end(number)

    def end(self, number):
        for worker in self.workers:
            for attempt, epoch in leased(self.db, worker)[number % 2 :]:
                with suppress(Conflict):  # the other of us was faster, or it is to be cancelled
                    how = Outcome.FAILED if number % 3 else Outcome.SUCCEEDED
                    kind = FailureKind.CRASHED if how is Outcome.FAILED else None
                    self.steps.finish(worker, attempt, how, epoch=epoch, failure=kind)

    def set_another(self, number):
        self.purse.quota(self.people[number % len(self.people)].org, "cost_daily", 900 + number)

    def count(self, number):
        del number
        self.leader.keep()


def test_whoever_meets_at_counters_locks_them_in_one_order(steps, db):
    """Submissions, alone and together, cancels, retries, claims and ends by workers, counts and new
    quotas at once."""
    if db.is_sqlite:
        pytest.skip("SQLite has one writer at a time")
    purse = Purse(steps)
    crowd = Crowd(steps, purse)
    purse.price("6")
    purse.quota("all", "cost_monthly", "9999")
    for who in crowd.people:
        purse.quota(f"{who.org}/{who.team}", "cost_monthly", "5000")
        purse.quota(f"{who.org}/{who.team}/{who.username}", "submissions_per_day", "500")
    actions = [
        crowd.submit, crowd.submit, crowd.submit_together, crowd.submit_together, crowd.cancel,
        crowd.cancel, crowd.retry, crowd.set_another, crowd.count, crowd.place, crowd.work,
        crowd.end,
    ]  # fmt: skip
    with ThreadPoolExecutor(len(actions)) as pool:
        working = [
            pool.submit(lambda each=each: [each(number) for number in range(6)]) for each in actions
        ]
        for each in working:
            each.result(PATIENCE)
    crowd.submit(0)
    crowd.place(0)
    crowd.work(0)
    crowd.end(0)
    crowd.count(0)
    purse.agrees()
    with db.read() as session:
        ended = session.scalars(select(Job).where(Job.finished_at.is_not(None))).all()
        used = session.scalar(select(func.count()).select_from(Charge))
    assert {(job.held_micros, job.held_slot_ms) for job in ended} <= {(0, 0), (None, None)}
    assert "succeeded" in {job.state for job in ended}
    assert used
