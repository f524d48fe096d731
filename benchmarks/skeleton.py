"""The main job and what is promised when parts of it die, over real processes.

python benchmarks/skeleton.py [--quick] [--json PATH]

``--quick`` leaves out the demo itself, which takes about four minutes.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from report import Goal, Result, report

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "harness"))

from fleet import AgentProcess, Fleet, tiny_job, wait_for  # noqa: E402
from shades import make_shades  # noqa: E402

LONG = 100_000
SHORT = 600


def main() -> int:
    """Measure, print, write; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out the demo")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the results there")
    options = parser.parse_args()
    results = [*cancelling(), *controller_killed(), *agent_killed()]
    if not options.quick:
        results = [*demo(), *results]
    return 0 if report("skeleton", results, options.json) else 1


def demo() -> list[Result]:
    """The demo on new data: how long it takes, and how many drawings match their caption."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        said = subprocess.run(
            [sys.executable, ROOT / "examples" / "demo.py", "--data", folder],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
        seconds = time.perf_counter() - begun
    share = re.search(r"captions matched: (\d+)%", said)
    assert share, said
    return [
        Result("demo without installation", seconds, "s", Goal("at most", 360)),
        Result("captions matched, of 100", float(share[1]), "%", Goal("at least", 90)),
    ]


def cancelling() -> list[Result]:
    """From the cancel request until no process of the job is left."""
    with training(LONG) as (fleet, agent, job_id):
        group = agent.trainers()
        begun = time.perf_counter()
        fleet.client.cancel(job_id)
        _, alive = psutil.wait_procs(group, timeout=30)
        seconds = time.perf_counter() - begun
        assert not alive
        assert fleet.client.wait(job_id).state == "cancelled"
    return [Result("cancel until the process group is gone", seconds, "s", Goal("at most", 10))]


def controller_killed() -> list[Result]:
    """Kill -9 the controller in mid-training and start it again."""
    with training(SHORT) as (fleet, agent, job_id):
        fleet.controller.kill()
        begun = time.perf_counter()
        fleet.controller.start()
        before = steps_seen(fleet, job_id)
        wait_for("a new line", lambda: steps_seen(fleet, job_id) > before)
        seconds = time.perf_counter() - begun
        assert fleet.client.wait(job_id).state == "succeeded"
        lost, doubled = compare(fleet, agent, job_id)
    return [
        Result("controller killed: restart until the next metric is stored", seconds, "s", None),
        Result("controller killed: lines lost", lost, "lines", Goal("at most", 0)),
        Result("controller killed: lines doubled", doubled, "lines", Goal("at most", 0)),
    ]


def agent_killed() -> list[Result]:
    """Kill -9 the worker's agent in mid-training and start it again."""
    with training(SHORT) as (fleet, agent, job_id):
        agent.kill()
        begun = time.perf_counter()
        agent.start()
        before = steps_seen(fleet, job_id)
        wait_for("a new line", lambda: steps_seen(fleet, job_id) > before)
        seconds = time.perf_counter() - begun
        job = fleet.client.wait(job_id)
        assert (job.state, job.attempts) == ("succeeded", 1)
        lost, doubled = compare(fleet, agent, job_id)
    return [
        Result("agent killed: restart until the next metric is stored", seconds, "s", None),
        Result("agent killed: lines lost", lost, "lines", Goal("at most", 0)),
        Result("agent killed: lines doubled", doubled, "lines", Goal("at most", 0)),
    ]


@contextmanager
def training(steps: int) -> Iterator[tuple[Fleet, AgentProcess, str]]:
    """A fleet of one worker in the middle of a tiny training."""
    with tempfile.TemporaryDirectory() as folder:
        fleet = Fleet(Path(folder))
        try:
            agent = fleet.add_agent()
            fleet.client.push_dataset("shades", make_shades(Path(folder) / "shades"))
            job_id = fleet.client.submit(tiny_job(steps)).id
            wait_for("the training", lambda: steps_seen(fleet, job_id) >= 50)
            yield fleet, agent, job_id
        finally:
            fleet.close()


def steps_seen(fleet: Fleet, job_id: str) -> int:
    """The step of the newest metric that the controller holds."""
    return max((point.step for point in fleet.client.metrics(job_id)), default=0)


def compare(fleet: Fleet, agent: AgentProcess, job_id: str) -> tuple[int, int]:
    """How many lines of the worker's journal the controller lacks, and has more than once."""
    stored = [(line.attempt, line.seq) for line in fleet.client.logs(job_id)]
    stored += [(point.attempt, point.seq) for point in fleet.client.metrics(job_id)]
    written = {
        (attempt, event["seq"])
        for attempt, journal in enumerate(agent.journals(), start=1)
        for event in journal
        if event["kind"] in {"log", "metric"}
    }
    return len(written - set(stored)), len(stored) - len(set(stored))


if __name__ == "__main__":
    sys.exit(main())
