"""How soon a job is queued again, and runs elsewhere, when its worker vanishes; default settings.

python benchmarks/vanish.py [--quick] [--json PATH] [--database sqlite|postgresql|both]

For each way to vanish there is a pair of real agents with a training on one of them. "host killed":
agent and training get SIGKILL. "host frozen": both get SIGSTOP. "network stalls": a proxy between
agent and controller passes nothing more, while all connections stay. The clock runs from there, in
unscaled time, to the end of the attempt as lost and to the start of the next on the other agent.

Each loss takes half a minute: three of each way and database are ten minutes, --quick makes two.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

TESTS = Path(__file__).parent.parent / "tests"
sys.path += [str(TESTS), str(TESTS / "harness")]

from faults.agents import FaultyAgent  # noqa: E402
from report import Goal, Result, progress, report  # noqa: E402
from served import Controller, arguments, database, databases, set_up  # noqa: E402
from shades import make_shades  # noqa: E402

from st_client import Client  # noqa: E402
from st_shared.protocol.resources import AttemptView  # noqa: E402

WAYS = {
    "host killed": ("host", "kill"),
    "host frozen": ("host", "stop"),
    "network stalls": ("network", "stall"),
}
QUEUED, RUNNING = Goal("at most", 30), Goal("at most", 35)
PATIENCE = 90.0
STEPS = 100_000


class Pair:
    """Two agents that alone may run one job."""

    def __init__(self, folder: Path, server: Controller, client: Client, way: str) -> None:
        self.way, self.client = way, client
        label = {"pair": way.replace(" ", "-")}
        self.agents = [
            FaultyAgent(
                folder,
                server.port,
                f"{label['pair']}-{number}",
                client.create_join_token(labels=label).token,
                {"FAULTS_WAITS": "default", "FAULTS_PACE": "0.1"},
                slots=1,
            )
            for number in (1, 2)
        ]
        for agent in self.agents:
            agent.start()
        self.job_id = client.submit(_job(label)).id

    def running(self) -> int:
        """The number of the attempt that runs, once it does."""
        _wait(f"a running attempt ({self.way})", lambda: self._attempts()[-1:] and self._is_up())
        number: int = self._attempts()[-1].number
        return number

    def strike(self, say: Callable[[str], None]) -> tuple[float, float]:
        """Seconds until the job is queued again and until it runs elsewhere."""
        number = self.running()
        attempt = self._attempts()[number - 1]
        [victim] = [each for each in self.agents if each.name == attempt.worker]
        target, how = WAYS[self.way]
        begun = time.time()
        victim.break_(target, how)
        say(f"{victim.name} is gone; the loss is due within {QUEUED.value:g} s")
        _wait("the loss", lambda: self._attempts()[number - 1].finished_at)
        _wait("the next attempt", lambda: len(self._attempts()) > number and self._is_up())
        lost, after = self._attempts()[number - 1 :]
        victim.mend()
        if lost.outcome != "lost" or after.worker == victim.name:
            raise RuntimeError(f"{lost.outcome} on {victim.name}, then on {after.worker}")
        queued, running = (
            each.timestamp() - begun for each in (lost.finished_at, after.started_at)
        )
        say(f"queued again after {queued:.1f} s, runs on {after.worker} after {running:.1f} s")
        return queued, running

    def close(self) -> None:
        """End both agents and what they run."""
        for agent in self.agents:
            agent.close(keeps=False)

    def _attempts(self) -> list[AttemptView]:
        return list(self.client.attempts(self.job_id))

    def _is_up(self) -> bool:
        return self._attempts()[-1].started_at is not None


def main() -> int:
    """Measure, print, write; 1 when a goal is missed."""
    options = arguments(__doc__).parse_args()
    results = []
    for kind in databases("sqlite" if options.quick else options.database):
        with _pairs(kind) as pairs:
            for pair in pairs:
                results += _measured(kind, pair, 1 if options.quick else 3)
    return 0 if report("vanish", results, options.json) else 1


def _measured(kind: str, pair: Pair, runs: int) -> list[Result]:
    times = []
    for number in range(1, runs + 1):
        progress(f"{kind}, {pair.way}, {number} of {runs}: waits for a running training")
        times.append(pair.strike(lambda said: progress(f"  {said}")))
    queued, running = [list(each) for each in zip(*times, strict=True)]
    return [
        Result(f"{kind}, {pair.way}: queued again", max(queued), "s", QUEUED, queued),
        Result(f"{kind}, {pair.way}: runs elsewhere", max(running), "s", RUNNING, running),
    ]


@contextmanager
def _pairs(kind: str) -> Iterator[list[Pair]]:
    with (
        tempfile.TemporaryDirectory(prefix="st-vanish-") as name,
        database(kind) as settings,
    ):
        folder = Path(name)
        server = Controller(folder, settings)
        server.start()
        pairs: list[Pair] = []
        try:
            client = Client(server.url, set_up(server).key)
            client.push_dataset("shades", make_shades(folder / "shades"))
            pairs = [Pair(folder, server, client, way) for way in WAYS]
            yield pairs
        finally:
            for pair in pairs:
                pair.close()
            server.stop()


def _job(labels: dict[str, str]) -> dict[str, object]:
    training = {
        "model": {
            "family": "pixel_dit",
            "config": {"image_size": 4, "width": 16, "depth": 1, "heads": 2},
        },
        "datasets": [{"name": "shades"}],
        "steps": STEPS,
        "batch_size": 4,
        "log_every": 5,
        "checkpoint": {"every": 50},
    }
    resources = {"labels": labels}
    return {
        "name": "vanishing",
        "training": training,
        "resources": resources,
        "retry": {"max_attempts": 10},
    }


def _wait(what: str, look: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE
    while not look():
        if time.monotonic() > until:
            raise TimeoutError(f"waited in vain for {what}")
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
