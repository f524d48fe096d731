"""The real services on SQLite, driven by a seed, with controllers that die between two writes."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import TypeVar

from controller_steps import Steps
from sqlalchemy import select

from simulation import service_invariants as invariants
from simulation.invariants import Broken
from simulation.killing import Death, Killed
from simulation.service_controllers import Controller
from simulation.service_machines import Machine
from st_controller.dispatch.leadership import LeadershipLostError
from st_controller.dispatch.rounds import MOST
from st_controller.domain.workers import Patience
from st_controller.errors import Conflict, InvalidRequest
from st_controller.events.hub import Hub
from st_controller.platform import Platform
from st_controller.services import job_lists, jobs, queue_rules, steering
from st_controller.settings import Settings
from st_controller.store.database import Database
from st_controller.store.schema import Job, JobDependency
from st_shared import ids
from st_shared.clock import ManualClock
from st_shared.objectstore import LocalStore
from st_shared.protocol.queue import ShareRequest
from st_shared.protocol.states import JobState, WorkerDesired

Answer = TypeVar("Answer")

MEMORY = Path("/dev/shm")
"""Where a database is in memory, on Linux; elsewhere it is on the disk."""
STEPS = 40
"""Random steps before everything calms down."""
MOST_WRITES = 14
"""A death comes at one of so many writes; few transactions have more."""
MOST_RUNNING = 5
"""The limit of everybody's running jobs."""
ROUNDS_OF_CALM = 150
"""In which all jobs must be over, once nothing breaks any more."""


def play(seed: int, template: Path) -> Counter[str]:
    """Play the schedule of a seed on a copy of a migrated database.

    Raises:
        Broken: an invariant does not hold; the message names the seed.
    """
    with TemporaryDirectory(
        prefix="st-services-", dir=MEMORY if MEMORY.is_dir() else None
    ) as folder:
        database = Path(folder) / "controller.db"
        shutil.copy(template, database)
        with _ids_of(seed, clock := ManualClock()):
            return World(seed, database, clock).play()


@contextmanager
def _ids_of(seed: int, clock: ManualClock) -> Iterator[None]:
    """Ids are drawn by the seed, too, and tell the time of ``clock``: what is in order stays so."""
    known, real = ids.new_id.__kwdefaults__, ids.time
    ids.new_id.__kwdefaults__ = {**known, "random": Random(seed).randbytes}
    ids.time = SimpleNamespace(time_ns=lambda: round(clock().timestamp() * 1e9))
    try:
        yield
    finally:
        ids.new_id.__kwdefaults__, ids.time = known, real


class World:
    """Two controllers, some workers, people who submit and cancel, and a clock."""

    def __init__(self, seed: int, database: Path, clock: ManualClock) -> None:
        self.seed, self.random, self.clock = seed, Random(seed), clock
        self.counts: Counter[str] = Counter()
        self.db = Database(f"sqlite:///{database}", clock=self.clock)
        self.patience = Patience()
        self.answered: dict[str, str] = {}
        """The jobs that people were told of, by key."""
        self.steps = 0
        self._steps = Steps(self._platform(database.parent), self.clock)
        self._death = Death(self.db)
        self.db.notify = self._tell
        self._serial = 0
        self._calm = False
        self._controllers = [self._fresh("ctl_a"), self._fresh("ctl_b")]
        self._machines = [self._machine(number) for number in range(self.random.randint(2, 4))]
        with self.db.write() as tx:
            queue_rules.set_share(tx, self._steps.admin, "all", ShareRequest(max_jobs=MOST_RUNNING))

    def play(self) -> Counter[str]:
        """All steps, then calm, until every job is over.

        Raises:
            Broken: an invariant does not hold; the message names the seed.
        """
        try:
            while self.steps < STEPS:
                self._step()
            self._calm_down()
        except (Exception, Killed) as broken:
            raise Broken(f"SEED={self.seed}, step {self.steps}: {broken!r}") from broken
        finally:
            self.db.close()
        self.counts["deaths"] = self._death.deaths
        return self.counts

    # Steps

    def _step(self) -> None:
        self.steps += 1
        self.clock.advance(self.random.choice((0.05, 0.5, 1.0, 2.0, 4.0)))
        actions: list[tuple[int, Callable[[], None]]] = [
            (6, self._submit),
            (1, self._submit_child),
            (2, self._cancel),
            (1, self._override),
            (9, self._turn_of_leader),
            (8, self._turn_of_machine),
            (2, self._trouble),
            (1, self._order),
        ]
        weights, choices = zip(*actions, strict=True)
        self.random.choices(choices, weights)[0]()
        self._check()

    def _check(self) -> None:
        with self.db.read() as session:
            invariants.database_is_sound(session, MOST_RUNNING)
            invariants.keys_made_one_job_each(session, self.answered)

    def _calm_down(self) -> None:
        self._calm = True
        for machine in self._machines:
            machine.come_back(self._call)
            self._steps.order(machine.id, WorkerDesired.ACTIVE)
        for _ in range(ROUNDS_OF_CALM):
            if not self._unfinished():
                break
            self.clock.advance(2.0)
            self._cancel_held_children()
            self._turn_of_leader()
            for machine in self._machines:
                self._work(machine)
            self._check()
        else:
            raise Broken(f"never over: {self._unfinished()}")

    def _cancel_held_children(self) -> None:
        """Whoever is to wait for a parent that has failed would wait for its retry."""
        over = select(Job.id).where(Job.state.in_([s for s in JobState if s.is_final]))
        held = (
            select(JobDependency.job_id)
            .join(Job, Job.id == JobDependency.job_id)
            .where(JobDependency.parent_id.in_(over), Job.state == JobState.QUEUED)
            .where(Job.open_parents > 0)
        )
        with self.db.read() as session:
            found = sorted(set(session.scalars(held)))
        for job_id in found:
            self._steps.cancel(job_id)

    def _unfinished(self) -> list[tuple[str, str]]:
        with self.db.read() as session:
            found = job_lists.list_jobs(session, self._steps.admin, limit=1000)[0]
        return [(job.id, job.state) for job in found if not JobState(job.state).is_final]

    # People

    def _submit(self, **fields: object) -> None:
        """Send it again, with its key, until somebody answers."""
        self._serial += 1
        key, priority = f"key-{self._serial}", self.random.choice(("low", "normal", "urgent"))
        body = {
            "name": key,
            "noop": {"seconds": 1},
            "priority": priority,
            "resources": {"slots": self.random.choice((1, 1, 2))},
            "retry": {"max_attempts": 3},
            **fields,
        }
        job_id = None
        while job_id is None:
            job_id = self._call(lambda: self._steps.submit_as(body, key=key)[0])
        self.answered[key] = job_id

    def _submit_child(self) -> None:
        if self.answered:
            parent = self.random.choice(list(self.answered.values()))
            how = self.random.choice(("cancel", "hold"))
            try:
                self._submit(after=[parent], on_parent_failure=how)
            except InvalidRequest:
                self.counts["children refused"] += 1  # the parent did not succeed

    def _cancel(self) -> None:
        self._to_some_job(lambda tx, job_id: jobs.cancel(tx, self._steps.admin, job_id))

    def _override(self) -> None:
        level = self.random.choice((None, 0, 50))
        self._to_some_job(
            lambda tx, job_id: steering.override(tx, self._steps.admin, job_id, level)
        )

    def _to_some_job(self, change: Callable) -> None:
        if not self.answered:
            return
        job_id = self.random.choice(list(self.answered.values()))

        def write():
            with self.db.write() as tx:
                change(tx, job_id)

        try:
            self._call(write)
        except Conflict:
            self.counts["changes refused"] += 1

    def _order(self) -> None:
        machine = self.random.choice(self._machines)
        desired = self.random.choice((WorkerDesired.ACTIVE, WorkerDesired.DRAINING))
        self._call(lambda: self._steps.order(machine.id, desired))

    # Controllers

    def _call(self, what: Callable[[], Answer]) -> Answer | None:
        """Have some controller do this; none: it died at it, and another one is started."""
        return self._in(self.random.choice(self._controllers), what)

    def _in(self, controller: Controller, what: Callable[[], Answer]) -> Answer | None:
        dies = not self._calm and self.random.random() < 0.3
        try:
            with self._death.after(self.random.randrange(MOST_WRITES) if dies else None):
                return what()
        except Killed:
            self.counts["leaders killed"] += controller.lead is not None
            for each in self._controllers:
                each.is_told_all = False
            self._controllers.remove(controller)
            self._serial += 1
            self._controllers.append(self._fresh(f"ctl_{self._serial}"))
            return None

    def _turn_of_leader(self) -> None:
        """Everybody seeks the lease; whoever has it sweeps and decides."""
        for controller in self.random.sample(self._controllers, len(self._controllers)):
            self._in(controller, lambda c=controller: self._lead(c))

    def _lead(self, controller: Controller) -> None:
        if controller.lead is not None and not self._calm and self.random.random() < 0.15:
            self._stall(controller)
            return
        found = controller.rounds.seek(controller.name, alone=False)
        if found is None:
            controller.lead = None
            controller.rounds.resign()
            return
        if found != controller.lead:
            controller.lead = found
            controller.rounds.begin(found, timedelta(seconds=self.patience.lease_ttl))
            controller.is_told_all = True
            self.counts["leaders"] += 1
        self._try_to_decide(controller)

    def _stall(self, controller: Controller) -> None:
        """It decides, is frozen until another one leads, and goes on as if nothing had happened."""
        lead, decisions = controller.lead, []
        assert lead is not None
        if controller.queue.scheduler is not None:
            with self.db.read() as session:
                controller.queue.catch_up(session, controller.news(), self.clock())
            decisions = controller.queue.decide(self.clock(), MOST)
        self.clock.advance(5.0)
        for other in self._controllers:
            if other is not controller:
                other.lead = None
                self._lead(other)
        if decisions:
            try:
                self.counts["offers"] += controller.rounds._make_true(lead, decisions)
            except LeadershipLostError:
                self.counts["late writes refused"] += 1
                controller.lead = None
                return
            if any(other.lead for other in self._controllers if other is not controller):
                raise Broken("a leader that was replaced could write")
        self._try_to_decide(controller)

    def _try_to_decide(self, controller: Controller) -> None:
        """As the dispatcher does: a lead that is over ends what is in memory."""
        assert controller.lead is not None
        try:
            controller.rounds.sweep(controller.lead)
            while True:  # as long as its own decisions are news to it
                made = controller.rounds.place(controller.lead, controller.news())
                self.counts["offers"] += made
                if not controller.topics:
                    break
        except LeadershipLostError:
            self.counts["late writes refused"] += 1
            controller.lead = None
            controller.rounds.resign()
            return
        scheduler = controller.queue.scheduler
        if scheduler is not None and controller.is_told_all:
            self.counts["looks into memory"] += 1
            with self.db.read() as session:
                invariants.memory_is_true(session, scheduler)

    def _tell(self, topics: frozenset[str]) -> None:
        for controller in self._controllers:
            controller.topics |= topics

    # Workers

    def _turn_of_machine(self) -> None:
        machine = self.random.choice(self._machines)
        if machine.is_silent:
            if self.random.random() < 0.5:
                return
            machine.is_silent = False  # it goes on where it was, whatever happened meanwhile
        if not machine.is_up:
            machine.come_back(self._call)
            return
        self._work(machine)

    def _work(self, machine: Machine) -> None:
        machine.claim_offers(self._call)
        for attempt_id in list(machine.holding):
            if self._calm or self.random.random() < 0.6:
                machine.run(self._call, attempt_id)
        machine.beat(self._call)
        for attempt_id in list(machine.holding):
            if self._calm or self.random.random() < 0.5:
                machine.finish(self._call, attempt_id)

    def _trouble(self) -> None:
        machine, other = self.random.sample(self._machines, 2)
        match self.random.choice(("crash", "silence", "lie")):
            case "crash":
                machine.holding.clear()
                machine.is_up = False
                self.clock.advance(self.random.choice((0.0, 30.0)))
            case "silence":
                machine.is_silent = True
                self.clock.advance(30.0)
            case "lie":
                machine.lie(other)

    # Setting up

    def _fresh(self, name: str) -> Controller:
        return Controller(self.db, self.patience, name)

    def _machine(self, number: int) -> Machine:
        slots = self.random.choice((1, 2, 4)) if number else 2
        worker_id = self._steps.join(f"w{number}", slots=slots)
        return Machine(worker_id, self.db, self.patience, self.random, self.counts, slots)

    def _platform(self, folder: Path) -> Platform:
        return Platform(
            settings=Settings(data_dir=folder / "controller"),
            db=self.db,
            hub=Hub(),
            objects=LocalStore(folder / "objects", b"k" * 32, clock=self.clock),
            patience=self.patience,
        )
