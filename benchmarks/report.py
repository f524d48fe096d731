"""What every benchmark prints and writes: a table, and JSON with goals beside the values."""

import json
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import psutil


@dataclass(frozen=True)
class Goal:
    """What a value has to reach."""

    bound: Literal["at most", "at least"]
    value: float

    def is_reached(self, value: float) -> bool:
        """Whether ``value`` is good enough."""
        return value <= self.value if self.bound == "at most" else value >= self.value


@dataclass(frozen=True)
class Result:
    """One measured number; ``runs`` are the single measurements behind it."""

    metric: str
    value: float
    unit: str
    goal: Goal | None
    runs: Sequence[float] = ()

    @property
    def ok(self) -> bool:
        """Whether the goal, if there is one, is reached."""
        return self.goal is None or self.goal.is_reached(self.value)


def machine() -> str:
    """The machine in a few words."""
    memory = psutil.virtual_memory().total / 2**30
    return f"{psutil.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}"


def command() -> str:
    """The command line of this benchmark, from the root of the repository."""
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])


def progress(said: str) -> None:
    """Tell whoever watches how far it is; the table alone goes to the standard output."""
    print(f"{datetime.now():%H:%M:%S}  {said}", file=sys.stderr, flush=True)  # noqa: DTZ005


def report(name: str, results: Sequence[Result], path: Path | None) -> bool:
    """Print the table, write the JSON; whether every goal is reached."""
    print(f"{name} on {machine()}, Python {platform.python_version()}")
    print(f"{'metric':60} {'value':>10} {'unit':8} {'goal':>14}  spread")
    for result in results:
        goal = f"{result.goal.bound} {result.goal.value:g}" if result.goal else ""
        spread = f"{min(result.runs):.3g} to {max(result.runs):.3g}" if result.runs else ""
        mark = "" if result.ok else "  NOT REACHED"
        print(f"{result.metric:60} {result.value:10.3g} {result.unit:8} {goal:>14}  {spread}{mark}")
    if path:
        document = {
            "name": name,
            "machine": machine(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": command(),
            "results": [{**asdict(result), "ok": result.ok} for result in results],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1) + "\n")
    return all(result.ok for result in results)
