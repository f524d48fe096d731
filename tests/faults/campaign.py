"""One run after the other: submit, break, mend, wait, verify."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from fleet import tiny_job

from faults.agents import FaultyAgent
from faults.invariants import Wanted, charged, settled, usage, violations
from faults.plan import REQUESTS, Fault, Plan, plan
from faults.rig import Rig
from faults.windows import is_open
from st_client.errors import ClientError
from st_shared.protocol.resources import AttemptView

STEPS, EVERY, LOG_EVERY, LINES = 60, 20, 5, 120
REAL_STEPS, REAL_SLOWER = 300, 5
"""A real training, and how much longer it takes than a scripted one."""
PATIENCE = 90.0
"""Seconds without any progress of a job, after which a run has failed."""
STRIKE_WITHIN = 8.0
"""Seconds in which the moment of a fault must come, or it strikes then."""


@dataclass
class RunResult:
    """What became of one run."""

    seed: int
    faults: list[str]
    violations: list[str] = field(default_factory=list)
    seconds: float = 0.0
    outcomes: dict[str, list[str]] = field(default_factory=dict)
    aimed: bool = True
    """Whether every fault struck at its moment."""
    folder: str | None = None
    programs_done: int = 0
    """Programs that came to their end, those that nobody took included."""
    at: str = ""
    """When it ended, UTC."""
    revision: str = ""
    """Of the sources, such as ``1f2e3d4``, with ``+`` where they were changed since."""
    failed_before: list[str] = field(default_factory=list)
    """Revisions and violations of earlier runs of this seed."""

    def as_document(self) -> dict[str, object]:
        return asdict(self)


class Campaign:
    """Runs on one rig, which is made anew after a run that failed."""

    def __init__(
        self,
        folder: Path,
        database: Callable[[], AbstractContextManager[dict[str, str]]] = lambda: nullcontext({}),
        *,
        target: str | None = None,
        trainer: str = "scripted",
    ) -> None:
        self._folder, self._database = folder, database
        self._stack = ExitStack()
        self._target, self._trainer = target, trainer
        self._rig: Rig | None = None
        self._count = 0

    def run(self, seed: int) -> RunResult:
        """The run of this seed on a rig that has survived the runs before."""
        chosen = plan(seed, self._target)
        result = RunResult(seed, [str(fault) for fault in chosen.faults])
        begun = time.monotonic()
        rig = self._ready()
        try:
            self._run(rig, chosen, result)
        except Exception as error:  # noqa: BLE001 - whatever it is, the seed is to be named
            result.violations.append(f"{type(error).__name__}: {error}")
        result.seconds = round(time.monotonic() - begun, 2)
        result.at = datetime.now(UTC).isoformat(timespec="seconds")
        if result.violations:
            result.folder = str(rig.folder)
            self.close(keep=True)
        else:
            for agent in rig.agents:
                agent.forget_runs()
        return result

    def close(self, *, keep: bool = False) -> None:
        if self._rig:
            self._rig.close(keeps=keep)
        self._stack.close()
        self._rig = None

    def _ready(self) -> Rig:
        if self._rig is None:
            self._count += 1
            folder = self._folder / f"rig-{self._count}"
            settings = self._stack.enter_context(self._database())
            self._rig = Rig(folder, settings, trainer=self._trainer)
        return self._rig

    def _run(self, rig: Rig, chosen: Plan, result: RunResult) -> None:
        if rig.trainer == "real" and rig.undisturbed is None:
            rig.undisturbed = _real(rig)
            rig.client.wait(rig.undisturbed)
        used = usage(rig)
        orders = rig.no_orders()
        wanted = submit(rig, chosen.seed)
        with struck(rig, chosen, result):
            pass
        rig.mend()
        result.violations += orders.settle()
        wanted += [Wanted(job_id, "noop", chosen.seed, 0, 0, 0) for job_id in orders.urgent]
        wait_until_over(rig, wanted, result)
        for each in wanted:
            result.outcomes[each.id] = [_outcome(one) for one in rig.client.attempts(each.id)]
            result.violations += [f"{each.kind}: {said}" for said in violations(rig, each)]
        result.violations += settled(rig)
        job_ids = [each.id for each in wanted]
        result.violations += charged(rig, job_ids, used)
        done = rig.ledger.read_text().splitlines() if rig.ledger.exists() else []
        result.programs_done = sum(
            line.startswith(f"done {each.seed} ") for line in done for each in wanted
        )


def _outcome(attempt: AttemptView) -> str:
    """How it ended, with the kind of a failure."""
    kind = f" ({attempt.failure.kind})" if attempt.failure else ""
    return f"{attempt.outcome}{kind}"


def submit(rig: Rig, seed: int) -> list[Wanted]:
    """Two trainings and a script; one training where it is a real one."""
    if rig.trainer == "real":
        return [Wanted(_real(rig), "real", 0, REAL_STEPS, 50, 5, rig.undisturbed)]
    made = [submit_training(rig, (seed * 10 + index) % 2**32, STEPS) for index in range(2)]
    script = (
        f"i=0; while [ $i -lt {LINES} ]; do i=$((i + 1)); echo $i; sleep 0.01; done\n"
        f"echo result of {seed} > outputs/result.txt\n"
    )
    retry = {"max_attempts": 10, "backoff": "0.1s"}
    job = rig.client.submit({"name": "script", "command": {"run": script}, "retry": retry}).id
    made.append(Wanted(job, "command", seed, LINES, 0, 0))
    return made


def _real(rig: Rig) -> str:
    """A training of a tiny model; gives the job's id."""
    job = tiny_job(REAL_STEPS, retry={"max_attempts": 10, "backoff": "0.1s"})
    return rig.client.submit(job).id


def submit_training(rig: Rig, seed: int, steps: int) -> Wanted:
    """A training whose every byte is known."""
    job = rig.client.submit(_training(seed, steps)).id
    return Wanted(job, "training", seed, steps, EVERY, LOG_EVERY)


def _training(seed: int, steps: int) -> dict[str, object]:
    training: dict[str, object] = {
        "model": {
            "family": "pixel_dit",
            "config": {"image_size": 4, "width": 16, "depth": 1, "heads": 2},
        },
        "datasets": [{"name": "shades"}],
        "steps": steps,
        "seed": seed,
        "batch_size": 4,
        "log_every": LOG_EVERY,
        "checkpoint": {"every": EVERY},
    }
    retry = {"max_attempts": 10, "backoff": "0.1s"}
    return {"name": f"training-{seed}", "training": training, "retry": retry}


@contextmanager
def struck(rig: Rig, chosen: Plan, result: RunResult) -> Iterator[None]:
    """Let every fault strike at its moment and last as long as it should."""
    victim = random.Random(chosen.seed).choice(rig.agents)
    threads = [
        threading.Thread(target=_strike, args=(rig, fault, victim, result), daemon=True)
        for fault in chosen.faults
    ]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join()


def _strike(rig: Rig, fault: Fault, victim: FaultyAgent, result: RunResult) -> None:
    strike = _Strike(rig, fault, victim, result)
    slower = REAL_SLOWER if rig.trainer == "real" else 1
    moment, until = fault.moment, time.monotonic() + STRIKE_WITHIN * slower
    if moment.kind == "time":
        time.sleep(moment.seconds * slower)
    elif moment.kind == "files":
        while not is_open(victim.state, moment.what) and time.monotonic() < until:
            time.sleep(0.002)
        result.aimed &= time.monotonic() < until
    else:
        victim.proxy.trap(REQUESTS[moment.what], moment.kind, strike.from_proxy)
        if not strike.hit.wait(STRIKE_WITHIN * slower):
            victim.proxy.disarm(strike.from_proxy)
            result.aimed = False
    strike.act()
    time.sleep(fault.lasts)


class _Strike:
    """Breaks one thing once, however often it is told to: a trap may spring after the mending."""

    def __init__(self, rig: Rig, fault: Fault, victim: FaultyAgent, result: RunResult) -> None:
        self._rig, self._fault, self._victim, self._result = rig, fault, victim, result
        self._lock, self._is_done = threading.Lock(), False
        self.hit = threading.Event()

    def act(self) -> None:
        with self._lock:
            if self._is_done:
                return
            self._is_done = True
            try:
                self._rig.break_(self._fault.target, self._fault.how, self._victim)
            except Exception as error:  # noqa: BLE001 - in a thread, so it is told
                said = f"{type(error).__name__}: {error}"
                self._result.violations.append(f"{self._fault} could not be done: {said}")
        self.hit.set()

    def from_proxy(self) -> None:
        if self._fault.target == "network":  # the proxy's own thread must not wait for itself
            threading.Thread(target=self.act, daemon=True).start()
        else:
            self.act()


def wait_until_over(rig: Rig, wanted: list[Wanted], result: RunResult) -> None:
    """Return once every job is over; however slow the machine is, something must go on."""
    left, seen = {each.id for each in wanted}, None
    until = time.monotonic() + PATIENCE
    while left:
        left = {job_id for job_id in left if not is_over(rig, job_id)}
        now = standing(rig, left)
        if now != seen:
            seen, until = now, time.monotonic() + PATIENCE
        if time.monotonic() > until:
            raise AssertionError(f"nothing went on for {PATIENCE:g} s: {seen}")
        if ended := rig.ended():
            result.violations.append(f"ended of themselves: {ended}")
            rig.revive()
        time.sleep(0.1)


def is_over(rig: Rig, job_id: str) -> bool:
    """Whether a job has ended; of a controller that is just starting again nobody knows."""
    try:
        return rig.client.job(job_id).state.is_final
    except ClientError:
        return False


def standing(rig: Rig, job_ids: set[str]) -> object:
    """How far each job is: its state, its attempts and the lines that arrived of them."""
    try:
        return {
            job_id: (
                rig.client.job(job_id).state,
                [(each.state, each.acked_seq) for each in rig.client.attempts(job_id)],
            )
            for job_id in sorted(job_ids)
        }
    except ClientError as error:
        return str(error)
