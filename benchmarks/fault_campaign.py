"""Jobs through faults: each run breaks something at a random moment and verifies all that is left.

python benchmarks/fault_campaign.py [--quick] [--runs N] [--first SEED] [--seed SEED] [--lanes N]
    [--target WHAT] [--real] [--postgres] [--json PATH] [--resume] [--folder DIR]

A run is a real controller with its Valkey, two real agents behind a TCP proxy each, two trainings
that resume from checkpoints and a script. Its seed says what breaks (kill -9, SIGSTOP, a network
that is cut, stalls, swallows answers or trickles, a full disk), of whom (trainer, agent, whole
host, controller, Valkey) and when, which is often aimed at a request or at a state of the
attempt's folder; in some, jobs are told to yield meanwhile: a worker is drained, or urgent jobs
want all slots. When all is whole again the jobs must have succeeded once, with every log line
once and in order, a curve without gap or double, files with the right bytes, no process and no
slot left, and their slot-seconds charged once. ``--seed`` repeats one run. ``--real``: in the place
of scripted trainings one of a tiny model, whose curve and weights must be those of an undisturbed
one to the bit.

A campaign may be made in slices: with ``--resume`` the runs beside ``--json PATH`` (in a file of
that name that ends in ``-runs.jsonl``) are kept, each with its moment and the revision of the
sources, and only those that are missing, or failed, are made. How often runs failed before is
counted.
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

TESTS = Path(__file__).parent.parent / "tests"
sys.path += [str(TESTS), str(TESTS / "harness")]

from faults.campaign import Campaign, RunResult  # noqa: E402
from faults.disks import may_mount  # noqa: E402
from faults.ledger import Ledger, revision  # noqa: E402
from faults.plan import WAYS, plan  # noqa: E402
from report import Goal, Result, report  # noqa: E402
from served import database  # noqa: E402

GOALS = {"runs with a violation": Goal("at most", 0)}
NAMES = {False: "fault_campaign", True: "fault_campaign_postgres"}


def main() -> int:
    """Run, print, write; 1 when a promise was broken."""
    options = _options().parse_args()
    if not may_mount():
        print("disks are not filled: this user may not mount one")
    seeds = _seeds(options)
    ledger = Ledger(options.json, revision(), resume=options.resume)
    missing = [seed for seed in seeds if not ledger.is_done(plan(seed, options.target))]
    folder = options.folder or Path(tempfile.mkdtemp(prefix="st-faults-"))
    with ThreadPoolExecutor(options.lanes) as pool:
        todo = iter(missing)
        lanes = [
            pool.submit(_lane, todo, folder / f"lane-{lane}", options, ledger)
            for lane in range(options.lanes)
        ]
        for lane in lanes:
            lane.result()
    results = [ledger.runs[seed] for seed in seeds]
    return 0 if report(NAMES[options.postgres], _figures(results), options.json) else 1


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="6 runs, a minute")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--first", type=int, default=1, help="seed of the first run")
    parser.add_argument("--seed", type=int, help="repeat the run of this seed alone")
    parser.add_argument("--lanes", type=int, default=2, help="runs side by side")
    parser.add_argument("--target", choices=WAYS, help="break nothing else")
    parser.add_argument("--real", action="store_true", help="train a model, compared to the bit")
    parser.add_argument("--postgres", action="store_true", help="PostgreSQL in the place of SQLite")
    parser.add_argument("--resume", action="store_true", help="keep the runs beside --json PATH")
    parser.add_argument("--folder", type=Path, help="where runs that failed are kept")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the results there")
    return parser


def _seeds(options: argparse.Namespace) -> list[int]:
    if options.seed is not None:
        options.lanes = 1
        return [options.seed]
    return list(range(options.first, options.first + (6 if options.quick else options.runs)))


def _lane(seeds: Iterator[int], folder: Path, options: argparse.Namespace, ledger: Ledger) -> None:
    """Runs on a rig of its own, until no seed is left."""
    campaign = Campaign(
        folder,
        partial(database, "postgresql" if options.postgres else "sqlite"),
        target=options.target,
        trainer="real" if options.real else "scripted",
    )
    try:
        for seed in seeds:
            ledger.keep(_told(campaign.run(seed), options))
    finally:
        campaign.close()


def _told(result: RunResult, options: argparse.Namespace) -> RunResult:
    attempts = "; ".join(",".join(each) for each in result.outcomes.values())
    mark = "FAILED" if result.violations else "ok"
    said = " + ".join(result.faults)
    print(f"{result.seed:6} {mark:6} {result.seconds:5.1f} s  {said}  [{attempts}]", flush=True)
    for violation in result.violations:
        print(f"         {violation}", flush=True)
    if result.violations:
        again = f"python benchmarks/fault_campaign.py --seed {result.seed}"
        again += f" --target '{options.target}'" if options.target else ""
        again += " --real" if options.real else ""
        again += " --postgres" if options.postgres else ""
        print(f"         again: {again}; kept: {result.folder}", flush=True)
    return result


def _figures(results: list[RunResult]) -> list[Result]:
    broken = sum(bool(result.violations) for result in results)
    attempts = Counter(
        outcome for result in results for each in result.outcomes.values() for outcome in each
    )
    times = [result.seconds for result in results]
    again = sum(bool(result.failed_before) for result in results)
    figures = [
        Result("runs", len(results), "runs", None),
        Result("runs with a violation", broken, "runs", GOALS["runs with a violation"]),
        Result("runs that had failed at an earlier revision", again, "runs", None),
        Result("revisions in all", len({result.revision for result in results}), "", None),
        Result("faults that struck at their moment", sum(r.aimed for r in results), "runs", None),
        Result("one run", sum(times) / len(times), "s", None, times),
    ]
    return figures + [
        Result(f"attempts that ended as {outcome}", count, "", None)
        for outcome, count in sorted(attempts.items())
    ]


if __name__ == "__main__":
    sys.exit(main())
