"""Play many schedules on all cores: ``ST_SCHEDULES=10000 python -m simulation.nightly``.

``SEED=n`` plays that one alone. Prints what happened in how many schedules, and the seed of each
that broke an invariant; ends with 1 if any did.
"""

import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from simulation.invariants import Broken
from simulation.schedule import play
from simulation.telling import happened

MOST_SHOWN = 20
"""Broken schedules that are told of; the rest is counted."""
FIRST_SEED = 1_000_000
"""Of the nightly schedules, apart from those of the tests."""


def main() -> int:
    """Play, print, and say whether all held."""
    if seed := os.environ.get("SEED"):
        print(dict(happened(play(int(seed)))))
        return 0
    count = int(os.environ.get("ST_SCHEDULES", "10000"))
    first = int(os.environ.get("ST_FIRST_SEED", str(FIRST_SEED)))
    begun = time.perf_counter()
    told: Counter[str] = Counter()
    broken: list[str] = []
    with ProcessPoolExecutor() as pool:
        seeds = range(first, first + count)
        for outcome in pool.map(attempt, seeds, chunksize=25):
            if isinstance(outcome, str):
                broken.append(outcome)
            else:
                told += outcome
    seconds = time.perf_counter() - begun
    print(f"{count} schedules in {seconds:.0f} s, {len(broken)} broken")
    for what, times in sorted(told.items()):
        print(f"{times:>10} {what}")
    for message in broken[:MOST_SHOWN]:
        print(message)
    return 1 if broken else 0


def attempt(seed: int) -> Counter[str] | str:
    """What happened in the schedule of a seed, or what broke."""
    try:
        return happened(play(seed))
    except Broken as broken:
        return str(broken)


if __name__ == "__main__":
    sys.exit(main())
