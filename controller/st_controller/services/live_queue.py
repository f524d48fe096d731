"""The scheduler of this process, and how it keeps up with what the database says."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Lock, RLock
from time import monotonic

from sqlalchemy.orm import Session

from st_controller.domain.policy.prices import Price, PriceList
from st_controller.domain.scheduling.forecast import Forecast, Snapshot, foretell
from st_controller.domain.scheduling.model import Decision, Grant
from st_controller.domain.scheduling.scheduler import Scheduler
from st_controller.services import durations, queue_marks, queue_reading, queue_usage
from st_controller.services.capacities import Capacities, Look
from st_controller.services.durations import Durations
from st_controller.services.policy import price_rows
from st_controller.services.queue_marks import Mark, Noticed
from st_controller.services.queue_rows import JobNow
from st_controller.services.slot_prices import SlotPrices
from st_controller.store.schema import Job
from st_controller.store.transaction import (
    QUEUE_JOB,
    QUEUE_RELOAD,
    QUEUE_RULES,
    QUEUE_WORKER,
    Transaction,
)

OVERLAP = timedelta(seconds=30)
"""How long a transaction may take from its beginning to its commit and still be noticed at once."""
UNCOMMITTED = timedelta(seconds=5)
"""How long before everything was read a transaction may have begun that was not read."""
PAGE = 5000
"""Jobs that are read at one time."""
EACH = 50
"""Jobs of every line of a long queue that are read before anything is decided."""
PARTS = 10
"""Looks that it takes to see all workers: thousands at one time would hold up what is placed."""
FORECAST_SECONDS = 3.0
"""How long a forecast is good enough."""
MOST_DEPENDENTS = 500
"""Jobs that wait for others of which a forecast tells."""
REPLAY_SECONDS = 0.5
"""The longest that a queue is replayed; of later jobs only that they start later is told."""


@dataclass(slots=True)
class News:
    """What may have changed since the scheduler looked last."""

    jobs: set[str] = field(default_factory=set)
    workers: set[str] = field(default_factory=set)
    all_jobs: bool = False
    """Look for every job that was written of lately."""
    all_workers: bool = False
    some_workers: bool = False
    """Look at the next part of all workers."""
    rules: bool = False
    """Policy, shares or caps changed."""

    @classmethod
    def of(cls, topics: Iterable[str]) -> "News":
        """What wake-ups tell."""
        news = cls()
        for topic in topics:
            if topic.startswith(QUEUE_JOB):
                news.jobs.add(topic.removeprefix(QUEUE_JOB))
            elif topic.startswith(QUEUE_WORKER):
                news.workers.add(topic.removeprefix(QUEUE_WORKER))
            news.all_jobs |= topic == QUEUE_RELOAD
            news.rules |= topic == QUEUE_RULES
        return news


class LiveQueue:
    """A ``Scheduler`` beside the database that it was read from.

    Whoever leads keeps it current and decides with it. Elsewhere it is read anew when somebody
    asks, and may be some seconds old. Use it under its lock.
    """

    def __init__(self, prices: SlotPrices | None = None) -> None:
        self._prices = prices or SlotPrices()
        self._capacities = Capacities(self._prices)
        self.lock = RLock()
        self.scheduler: Scheduler | None = None
        self.is_led = False
        """Whether this process decides with it."""
        self._read_at: datetime | None = None
        self._noticed = Noticed()
        self._sure_until = 0
        """Of what was written in a second before this one, nothing was overlooked."""
        self._attempts: dict[str, str] = {}
        self._again: set[str] = set()
        self._forecast: Forecast | None = None
        self._replaying = Lock()
        """Held by the one that replays; never asked for under ``lock``."""
        self._rest: tuple[float, str] | None = None
        self.is_whole = True
        """Whether all jobs that wait are known, not only the first of every line."""
        self._learned = Durations()
        self._listed: list[Price] = []
        """All prices, those of the future too."""
        self._costs = PriceList()
        """Those in force, until the moment at which others are."""
        self._costs_until: datetime | None = None

    @contextmanager
    def current(self, session: Session, now: datetime, age: timedelta) -> Iterator[Scheduler]:
        """The scheduler under its lock; where nobody leads, at most ``age`` old."""
        with self.lock:
            stale = self._read_at is None or now - self._read_at > age
            if self.scheduler is None or (stale and not self.is_led):
                self.load(session, now)
            while not self.is_led and not self.is_whole:
                self.read_on(session, now)
            assert self.scheduler is not None  # noqa: S101 - it was just loaded
            yield self.scheduler

    def load(self, session: Session, now: datetime) -> Scheduler:
        """Read everything anew; what was read in part, because of an error, is not used."""
        with self.lock:
            try:
                return self._load(session, now)
            except BaseException:
                self.scheduler = None
                raise

    def read_on(self, session: Session, now: datetime) -> None:
        """Read one more page of a long queue, of which only the first jobs are known so far."""
        with self.lock:
            scheduler = self.scheduler
            if scheduler is None or self.is_whole:
                return
            page = queue_reading.waiting_after(session, self._learned, self._rest, PAGE)
            for job in page:
                if job.id not in scheduler.held and scheduler.waiting(job.id) is None:
                    scheduler.enqueue(job, now.timestamp())
            self.is_whole = len(page) < PAGE
            if page:
                self._rest = (page[-1].submitted, page[-1].id)

    def forget(self) -> None:
        """What is in memory may not be true any more: it is read anew before it is used."""
        with self.lock:
            self.scheduler, self.is_led = None, False

    def catch_up(self, session: Session, news: News, now: datetime) -> None:
        """Take over what changed."""
        with self.lock:
            if self.scheduler is None or (news.rules and self._policy_changed(session)):
                self.load(session, now)
                return
            if self._costs_until is not None and self._costs_until <= now:
                self._take_prices(now)
            if news.rules:
                self._take_rules(session, now)
                self._learned = durations.learn(session)
            if news.workers or news.all_workers or news.some_workers:
                self._take_workers(session, news, now)
            wanted = news.jobs | self._again
            self._again = set()
            if news.all_jobs:
                wanted |= self._overlooked(session, now)
            for job in self._found(session, wanted):
                self._take(job, now.timestamp())

    def decide(self, now: datetime, most: int) -> list[Decision]:
        """What is to happen now."""
        with self.lock:
            return self.scheduler.decide(now.timestamp(), most) if self.scheduler else []

    def note(self, job_id: str, mark: Mark) -> None:
        """This process wrote of a job what the scheduler knows already."""
        with self.lock:
            self._noticed.put_later(job_id, mark)

    def retract(self, job_id: str, now: datetime) -> None:
        """A decision could not be made true; the job is looked at again."""
        with self.lock:
            if self.scheduler:
                self.scheduler.finish(job_id, now.timestamp(), charge=False)
            self._again.add(job_id)

    def forecast(
        self, session: Session, now: datetime, age: timedelta, job_id: str | None = None
    ) -> Forecast:
        """When what waits will start; a replay of the queue serves everybody for some seconds.

        Except whoever asks for a job that has come since: the queue is replayed anew with it.

        Not to be called within ``current``: the queue is locked while it is copied, and free while
        the copy is replayed.
        """
        with self._replaying:
            with self.current(session, now, age) as scheduler:
                known = self._forecast
                if (
                    known is not None
                    and now.timestamp() - known.made_at <= FORECAST_SECONDS
                    and (job_id is None or not known.is_complete or known.tells_of(job_id))
                ):
                    return known
                snapshot, learned = Snapshot.of(scheduler, now.timestamp()), self._learned
            running = {each.job.id for each in snapshot.running}
            follow = queue_reading.dependents(session, learned, MOST_DEPENDENTS, running)
            snapshot = snapshot.followed_by(follow, are_all=len(follow) < MOST_DEPENDENTS)
            # Those that were in line before others like them had ended know nothing of that yet.
            ids = [job.id for job in snapshot.jobs()]
            snapshot = snapshot.lasting(durations.learned_of(session, learned, ids))
            until = monotonic() + REPLAY_SECONDS
            made = foretell(snapshot, lambda: monotonic() >= until)
            with self.lock:
                if self.scheduler is scheduler:  # else it was read anew meanwhile
                    self._forecast = made
            return made

    def learned(self, job: Job) -> float | None:
        """Seconds that jobs like this one took before, as far as is known."""
        with self.lock:
            return self._learned.of(job.submitted_by, job.name, job.family)

    def count(self, tx: Transaction) -> bool:
        """Write down what was used and forfeited; whether there may be more to be counted."""
        with self.lock:
            if self.scheduler is None:
                return False
            usage = self.scheduler.usage(tx.now.timestamp())
            half_life = self.scheduler.policy.half_life
        forfeited = {path: lapsed for path, (_, lapsed) in usage.items()}
        return queue_usage.count(tx, half_life, forfeited)

    @property
    def length(self) -> int:
        """How many jobs wait in memory."""
        with self.lock:
            return len(self.scheduler.backlog) if self.scheduler else 0

    def next_moment(self) -> float | None:
        """When time alone may change a decision."""
        with self.lock:
            return self.scheduler.next_moment() if self.scheduler else None

    def price(self, grants: Iterable[Grant]) -> float:
        """Weight of a second of one of these slots."""
        with self.lock:
            return self.scheduler.fleet.price(grants) if self.scheduler else 1.0

    def rates(self, grants: Sequence[Grant]) -> tuple[int, ...]:
        """Micro-units of the currency that an hour of the slots of each grant costs."""
        with self.lock:
            return tuple(self._rate(grant) for grant in grants)

    def _rate(self, grant: Grant) -> int:
        host = self.scheduler.fleet.get(grant.worker) if self.scheduler else None
        if host is None:
            return 0
        has = host.capacity
        busy = {index: kind for index, (kind, _) in has.busy.items()}
        kinds = [has.slots.get(index) or busy.get(index) for index in grant.slots]
        return sum(self._costs.of(kind.accelerator, has.provider) for kind in kinds if kind)

    def _load(self, session: Session, now: datetime) -> Scheduler:
        at = now.timestamp()
        policy = queue_reading.policy(session)
        self.scheduler = scheduler = Scheduler(policy)
        self._noticed, self._attempts, self._again = Noticed(), {}, set()
        self._forecast = None
        self._read_at = now
        # What was committed when everything was read is known, of a long queue it is much.
        self._sure_until = queue_marks.second_of(now - UNCOMMITTED)
        self._take_rules(session, now)
        self._capacities = Capacities(self._prices)
        for worker in self._capacities.look(session).changed:
            scheduler.put_worker(worker, at)
        scheduler.load_usage(queue_usage.read(session, policy.half_life, now), at)
        self._learned = durations.learn(session)
        for job in queue_reading.running(session, self._learned):
            self._take(job, at)
        self._rest = None
        self.is_whole = not queue_reading.more_wait_than(session, PAGE)
        if self.is_whole:
            waiting = queue_reading.waiting_after(session, self._learned, None, PAGE)
        else:
            waiting = queue_reading.foremost(session, self._learned, EACH)
        for waits in waiting:
            scheduler.enqueue(waits, at)
        return scheduler

    def _found(self, session: Session, wanted: set[str]) -> Iterator[JobNow]:
        for job in queue_reading.jobs(session, wanted, self._learned):
            self._noticed.put(job.id, job.mark)
            yield job

    def _take(self, job: JobNow, now: float) -> None:
        scheduler = self.scheduler
        assert scheduler is not None  # noqa: S101 - callers have looked
        if job.runs is not None:
            if job.id in scheduler.held and self._attempts.get(job.id, job.attempt) != job.attempt:
                scheduler.finish(job.id, now)
            if job.id not in scheduler.held:
                scheduler.adopt(job.runs, now)
            scheduler.held[job.id].job = job.runs.job
            scheduler.held[job.id].stopping |= job.runs.stopping
            scheduler.checkpointed(job.id, job.runs.checkpointed or 0.0)
            self._attempts[job.id] = job.attempt or ""
            return
        self._attempts.pop(job.id, None)
        scheduler.finish(job.id, now, charge=job.used is not None, used=job.used)
        if job.waits is None:
            scheduler.withdraw(job.id, now)
        elif scheduler.waiting(job.id) != job.waits:
            scheduler.enqueue(job.waits, now)

    def _take_workers(self, session: Session, news: News, now: datetime) -> None:
        scheduler, at = self.scheduler, now.timestamp()
        assert scheduler is not None  # noqa: S101 - callers have looked
        looks: list[Look] = []
        if news.all_workers:
            looks.append(self._capacities.look(session))
        else:
            if news.workers:
                looks.append(self._capacities.look(session, sorted(news.workers)))
            if news.some_workers:
                looks.append(self._capacities.look_on(session, PARTS))
        for found in looks:
            for worker in found.changed:
                host = scheduler.fleet.get(worker.id)
                if host is None or not host.takes_jobs or host.capacity != worker:
                    scheduler.put_worker(worker, at)
            for worker_id in found.gone:
                scheduler.drop_worker(worker_id, at)

    def _take_rules(self, session: Session, now: datetime) -> None:
        scheduler = self.scheduler
        assert scheduler is not None  # noqa: S101 - callers have looked
        for path, share in queue_reading.shares(session).items():
            scheduler.set_share(path, share)
        for array_id, most in queue_reading.array_caps(session).items():
            scheduler.set_array_cap(array_id, most, now.timestamp())
        self._listed = price_rows.read(session)
        self._take_prices(now)

    def _take_prices(self, now: datetime) -> None:
        """Other prices hold from a moment that was set before; nobody tells when it comes."""
        self._costs = PriceList.at(now, self._listed)
        later = (price.since for price in self._listed if price.since > now)
        self._costs_until = min(later, default=None)

    def _policy_changed(self, session: Session) -> bool:
        """Whether what is in memory was made under other rules, or a share or cap was removed."""
        scheduler = self.scheduler
        if scheduler is None or queue_reading.policy(session) != scheduler.policy:
            return True
        shares, caps = queue_reading.shares(session), queue_reading.array_caps(session)
        return bool(scheduler.shared() - set(shares) or scheduler.capped() - set(caps))

    def _overlooked(self, session: Session, now: datetime) -> set[str]:
        """Jobs that were written of lately and have not been looked at since.

        Moments are those of a transaction's beginning, so one that took long is seen late. The jobs
        of each second are counted at every look until it is old enough for that, and read where the
        count does not fit; and once, at the end, in any case.
        """
        old = queue_marks.second_of(now - OVERLAP)
        told = queue_marks.tallies(session, self._sure_until)
        wanted = self._noticed.differing(told, self._sure_until)
        wanted |= {second for second in told if second < old}
        found = {
            job_id
            for job_id, mark in queue_marks.changed_in(session, wanted)
            if not self._noticed.has(job_id, mark)
        }
        if old > self._sure_until:
            self._sure_until = old
            self._noticed.forget(old)
        return found
