"""What is broken in a run, when and for how long: everything follows from the seed. Pure."""

from dataclasses import dataclass
from random import Random

LEASE = 3.0
"""``lease_ttl`` of the campaign, seconds: what lasts longer loses the attempt."""


@dataclass(frozen=True)
class Moment:
    """When to strike."""

    kind: str
    """``time``: after ``seconds``; ``before`` or ``after``: when the worker's request that fits
    ``what`` is on its way, or its answer; ``files``: when the attempt's folder looks so."""
    seconds: float = 0.0
    what: str = ""

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s" if self.kind == "time" else f"{self.kind} {self.what}"


@dataclass(frozen=True)
class Fault:
    """One thing that breaks, and how long it stays so."""

    target: str
    how: str
    moment: Moment
    lasts: float

    def __str__(self) -> str:
        return f"{self.target} {self.how} at {self.moment} for {self.lasts:.2f} s"


@dataclass(frozen=True)
class Plan:
    """One run."""

    seed: int
    faults: tuple[Fault, ...]


WAYS: dict[str, tuple[str, ...]] = {
    "trainer": ("kill", "kill_supervisor", "kill_all", "stop"),
    "agent": ("kill", "stop"),
    "host": ("kill", "stop"),
    "controller": ("kill", "stop"),
    "valkey": ("kill", "stop"),
    "network": ("cut", "stall", "deaf", "slow"),
    "worker disk": ("fill",),
    "controller disk": ("fill",),
    "operator": ("drain", "drain_at_once"),
    "queue": ("preempt",),
}
ORDERS = ("operator", "queue")
"""Targets of which nothing breaks: jobs are told to yield. They come together with a fault."""

REQUESTS = {
    "claim": r"/claims?$",
    "events": r"/events$",
    "announce": r"/artifacts$",
    "put": r"^PUT ",
    "complete": r"/artifacts/complete$",
    "finish": r"/finish(es)?$",
    "heartbeat": r"/heartbeat$",
    "stream": r"/stream$",
}
FILES = ("claimed", "started", "checkpoint without manifest", "manifest", "last line", "exit note")
"""Windows that are seen in an attempt's folder, see ``windows.py``."""


def plan(seed: int, target: str | None = None) -> Plan:
    """The run of this seed: one fault, or two in every fourth; of one ``target`` alone if given.

    While jobs yield something breaks as well, unless orders alone are wanted.
    """
    random = Random(seed)
    count = 2 if random.random() < 0.25 else 1
    targets = [target] if target else list(WAYS)
    faults = [_fault(random, targets) for _ in range(count)]
    if target is None and all(fault.target in ORDERS for fault in faults):
        faults.append(_fault(random, [each for each in WAYS if each not in ORDERS]))
    return Plan(seed, tuple(faults))


def _fault(random: Random, targets: list[str]) -> Fault:
    target = random.choice(targets)
    how = random.choice(WAYS[target])
    return Fault(target, how, _moment(random), _lasts(random, target, how))


def _moment(random: Random) -> Moment:
    kind = random.choice(("time", "before", "after", "files"))
    if kind == "time":
        return Moment(kind, seconds=random.uniform(0.0, 3.0))
    if kind == "files":
        return Moment(kind, what=random.choice(FILES))
    return Moment(kind, what=random.choice(list(REQUESTS)))


def _lasts(random: Random, target: str, how: str) -> float:
    """Seconds: shorter than a lease, or longer; trainers are not waited for so long."""
    if target == "trainer":
        return random.uniform(0.2, 1.5)
    return random.uniform(0.0, 1.5) if random.random() < 0.6 else random.uniform(LEASE, LEASE + 2)
