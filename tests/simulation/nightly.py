"""Play many schedules on all cores: ``ST_SCHEDULES=10000 python -m simulation.nightly``.

First as many as are asked for of the scheduler alone, then a fifth as many of the real services.
``SEED=n`` plays that one of the scheduler alone. Prints what happened in how many schedules, and
the seed of each that broke an invariant; ends with 1 if any did.
"""

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from simulation.invariants import Broken
from simulation.schedule import play
from simulation.services import play as play_services
from simulation.telling import happened
from simulation.world import World
from st_controller.store import migrate
from st_controller.store.database import Database

Play = Callable[[int], World | Counter[str]]

LONGEST = 60
"""Seconds of real time for one schedule, which takes a tenth of one."""
MOST_SHOWN = 20
"""Broken schedules that are told of; the rest is counted."""
FIRST_SEED = 1_000_000
"""Of the nightly schedules, apart from those of the tests."""


def main() -> int:
    """Play, print, and say whether all held."""
    if seed := os.environ.get("SEED"):
        _print([f"{times:>10} {what}" for what, times in happened(play(int(seed))).items()])
        return 0
    count = int(os.environ.get("ST_SCHEDULES", "10000"))
    first = int(os.environ.get("ST_FIRST_SEED", str(FIRST_SEED)))
    held = _play_and_tell("schedules", play, range(first, first + count))
    with TemporaryDirectory() as folder:
        template = Path(folder) / "template.db"
        database = Database(f"sqlite:///{template}")
        migrate.upgrade(database)
        database.close()
        one = partial(play_services, template=template)
        seeds = range(first, first + max(1, count // 5))
        held &= _play_and_tell("schedules of the services", one, seeds)
    return 0 if held else 1


def _play_and_tell(what: str, one: Play, seeds: range) -> bool:
    """Whether all of them held."""
    begun = time.perf_counter()
    told, broken = play_all(seeds, one)
    seconds = time.perf_counter() - begun
    _print([f"{len(seeds)} {what} in {seconds:.0f} s, {len(broken)} broken"])
    _print([f"{times:>10} {said}" for said, times in sorted(told.items())])
    _print(broken[:MOST_SHOWN])
    return not broken


def play_all(seeds: range, one: Play = play) -> tuple[Counter[str], list[str]]:
    """Play these on all cores: what happened in those that held, and what broke the others."""
    told: Counter[str] = Counter()
    broken: list[str] = []
    with ProcessPoolExecutor() as pool:
        for outcome in pool.map(partial(attempt, one=one), seeds, chunksize=20):
            if isinstance(outcome, str):
                broken.append(outcome)
            else:
                told += outcome
    return told, broken


def attempt(seed: int, one: Play = play) -> Counter[str] | str:
    """What happened in the schedule of a seed, or what broke; in the main thread of a process."""
    before = signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(LONGEST)
    try:
        played = one(seed)
        return played if isinstance(played, Counter) else happened(played)
    except Broken as broken:
        return str(broken)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _give_up(_signal: int, _frame: object) -> None:
    raise Broken(f"it goes round in circles: not over after {LONGEST} s")


def _print(lines: list[str]) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
