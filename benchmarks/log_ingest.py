"""How many log lines one controller process takes in, and how soon a follower sees one.

python benchmarks/log_ingest.py [--quick] [--json PATH] [--database sqlite|postgresql|both]

Fifty workers have joined, hold their streams, and run one job each. They send journal lines as
the agent does: numbered, in gzip-compressed batches, one request at a time for each attempt, at
most every ``LINGER`` seconds. First all send as fast as they are answered. Then each writes a fixed
number of lines a second, together a tenth above the goal, while a real agent runs a script that
prints the time, followed as ``st logs -f`` does: from the moment that a line gives itself until the
follower has it. At the end the jobs are finished, and every line is read back through the API,
from SQL and the object store as it happens, and compared with what was sent.
"""

import asyncio
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from report import Goal, Result, report
from served import BIN, Api, Controller, arguments, controller, databases
from wire import Connection, EventStream, encode

WORKERS = 50
GOAL = 20_000
"""Lines a second, taken in and durable."""
OFFERED = 22_000
"""Lines a second that are written in the steady part."""
LINGER = 0.2
"""Seconds between two batches of one attempt."""
LARGEST_BATCH = 500
BEAT_SECONDS = 5.0
PAGE = 5000
SHOWN_WITHIN = 500
"""Milliseconds until a follower has a line."""
LEVELS = ("info", "info", "info", "warning", "debug")
SCRIPT = "while :; do date +%s%N; sleep 0.1; done"
Prepared = list[list[bytes]]
"""For each worker the bodies of its first batches, one after the other."""
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def main() -> int:
    """Measure, print, write; 1 when a goal is missed."""
    options = arguments(__doc__).parse_args()
    seconds, rush = (6.0, 100_000) if options.quick else (60.0, 1_000_000)
    results = [
        result for kind in databases(options.database) for result in measure(kind, seconds, rush)
    ]
    return 0 if report("log_ingest", results, options.json) else 1


def measure(kind: str, seconds: float, rush: int) -> list[Result]:
    """All figures on one kind of database."""
    prepared = prepare(rush // WORKERS)
    with (
        controller(kind, ST_ALLOW_COMMAND_JOBS="1") as (server, api),
        tempfile.TemporaryDirectory(prefix="st-bench-") as folder,
    ):
        watched = Watched(server, api, Path(folder))
        try:
            return asyncio.run(_measure(kind, server, api, watched, seconds, prepared))
        finally:
            watched.stop()


async def _measure(
    kind: str,
    server: Controller,
    api: Api,
    watched: "Watched",
    seconds: float,
    prepared: Prepared,
) -> list[Result]:
    senders = await _begin(server, api)
    beating = [asyncio.create_task(sender.beat()) for sender in senders]
    most = await _at_most(server, senders, prepared)
    await watched.follow(await asyncio.to_thread(watched.launch))
    watched.delays.clear()
    steady = await _steadily(server, senders, seconds)
    late = 1e3 * _p99(watched.delays)
    await asyncio.to_thread(watched.stop)
    for sender in senders:
        await sender.finish()
    for task in beating:
        task.cancel()
    wrong = sum(_wrong_lines(api, sender) for sender in senders)
    sent = sum(sender.seq for sender in senders)
    for sender in senders:
        sender.close()
    name = f"{kind}: {WORKERS} workers"
    return [
        Result(f"{name}: steady, lines", steady.rate, "1/s", Goal("at least", GOAL)),
        Result(f"{name}: steady, share of one core", 100 * steady.cpu, "%", None),
        Result(f"{name}: steady, batch acknowledged, p99", 1e3 * steady.p99, "ms", None),
        Result(f"{name}: as fast as answered, lines", most.rate, "1/s", Goal("at least", GOAL)),
        Result(f"{name}: as fast as answered, a line", 1e6 * most.cpu / most.rate, "us CPU", None),
        Result(f"{name}: line written until shown, p99", late, "ms", Goal("at most", SHOWN_WITHIN)),
        Result(f"{name}: lines sent", sent, "", None),
        Result(f"{name}: lines lost, doubled or altered", wrong, "", Goal("at most", 0)),
    ]


@dataclass
class Figures:
    """What one part showed."""

    rate: float
    """Lines a second that were acknowledged."""
    cpu: float
    """Share of one core that the controller used."""
    p99: float
    """Seconds until a batch was acknowledged."""


@dataclass
class Sender:
    """One worker and the journal of its attempt."""

    number: int
    credential: str
    lane: Connection
    stream: EventStream | None = None
    offered: "asyncio.Future[dict[str, Any]]" = field(default_factory=asyncio.Future)
    attempt_id: str = ""
    job_id: str = ""
    seq: int = 0
    waits: list[float] = field(default_factory=list)

    @classmethod
    async def join(cls, server: Controller, token: str, number: int) -> "Sender":
        """Register, and listen to offers."""
        lane = await Connection.open(server.port)
        body = json.dumps(_described(number)).encode()
        status, answer = await lane.send(encode("POST", "/v1/worker/register", token, body))
        if status != 200:
            raise RuntimeError(f"{status}: {answer.decode()}")
        made = cls(number, json.loads(answer)["credential"], lane)
        path = "/v1/worker/stream"
        made.stream = await EventStream.open(server.port, made.credential, made._hear, path)
        return made

    async def claim(self) -> None:
        """Take the job that is offered."""
        offer = await asyncio.wait_for(self.offered, 60)
        self.attempt_id, self.job_id = offer["attempt_id"], offer["job_id"]
        await self._call("claim", {})
        await self._call("events", {"epoch": 1, "state": "running"})

    def batch(self, count: int) -> bytes:
        """A request with the next lines."""
        return self.request(packed(self.number, self.seq + 1, count), count)

    def request(self, body: bytes, count: int) -> bytes:
        """A request with the next lines, which are in ``body``."""
        self.seq += count
        path = f"/v1/worker/attempts/{self.attempt_id}/events"
        return encode("POST", path, self.credential, body, coding="gzip")

    async def send(self, request: bytes, acked: int) -> None:
        """Send lines; they must be acknowledged up to ``acked``."""
        begun = time.perf_counter()
        status, answer = await self.lane.send(request)
        self.waits.append(time.perf_counter() - begun)
        if status != 200 or json.loads(answer)["acked_seq"] != acked:
            raise RuntimeError(f"{status}: {answer.decode()}")

    async def finish(self) -> None:
        """End the attempt, which the controller refuses unless it has every line."""
        await self._call("finish", {"epoch": 1, "outcome": "succeeded", "last_seq": self.seq})

    async def beat(self) -> None:
        """Stay alive, on a connection of its own."""
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            body = {"holding": [{"attempt_id": self.attempt_id, "epoch": 1}]}
            await self._post("/v1/worker/heartbeat", body)

    def close(self) -> None:
        """Let go of the sockets."""
        self.lane.close()
        if self.stream:
            self.stream.close()

    async def _call(self, call: str, body: dict[str, Any]) -> None:
        await self._post(f"/v1/worker/attempts/{self.attempt_id}/{call}", body)

    async def _post(self, path: str, body: dict[str, Any]) -> None:
        request = encode("POST", path, self.credential, json.dumps(body).encode())
        status, answer = await self.lane.send(request)
        if status >= 300:
            raise RuntimeError(f"{path}: {status}: {answer.decode()}")

    def _hear(self, event: str, body: bytes) -> None:
        offers = {"offer": lambda: [json.loads(body)], "sync": lambda: json.loads(body)["offers"]}
        for offer in offers.get(event, list)():
            if not self.offered.done():
                self.offered.set_result(offer)


class Watched:
    """A real agent that runs a script, and a follower of its lines."""

    def __init__(self, server: Controller, api: Api, folder: Path) -> None:
        self._server, self._api, self._folder = server, api, folder
        self._agent: subprocess.Popen[bytes] | None = None
        self._stream: EventStream | None = None
        self._come = asyncio.Event()
        self.delays: list[float] = []
        """Seconds from the moment that a line gives itself until the follower has it."""

    def launch(self) -> str:
        """Start the agent and submit the script; the job's id."""
        token = self._api.call("POST", "/v1/join-tokens", {"expires_in_seconds": 3600, "uses": 1})
        options = ["--name", "watched", "--state-dir", str(self._folder / "watched")]
        self._agent = subprocess.Popen(
            [BIN / "st-worker", "join", self._server.url, *options, "--slots", "1"],
            env=os.environ | {"ST_JOIN_TOKEN": token["token"]},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        job = self._api.call("POST", "/v1/jobs", {"name": "watched", "command": {"run": SCRIPT}})
        return str(job["id"])

    async def follow(self, job_id: str) -> None:
        """Return once lines come."""
        assert self._api.key
        path = f"/v1/jobs/{job_id}/events"
        self._stream = await EventStream.open(self._server.port, self._api.key, self._hear, path)
        await asyncio.wait_for(self._come.wait(), 60)

    def stop(self) -> None:
        """End agent and script; what was seen stays."""
        if self._stream:
            self._stream.close()
        if self._agent:
            self._agent.terminate()
            self._agent.wait(60)

    def _hear(self, event: str, body: bytes) -> None:
        message = json.loads(body)["message"] if event == "log" else ""
        if message.isdecimal():
            self.delays.append(time.time() - int(message) / 1e9)
            self._come.set()


async def _begin(server: Controller, api: Api) -> list[Sender]:
    """Workers with a running job each."""
    token = api.call("POST", "/v1/join-tokens", {"expires_in_seconds": 3600, "uses": WORKERS})
    senders = [await Sender.join(server, token["token"], number) for number in range(WORKERS)]
    api.submit_many([{"name": f"n{each}", "noop": {"seconds": 3600}} for each in range(WORKERS)])
    await asyncio.gather(*(sender.claim() for sender in senders))
    return senders


async def _steadily(server: Controller, senders: list[Sender], seconds: float) -> Figures:
    """Each worker writes at a fixed pace; what is written meanwhile goes with the next batch."""
    for sender in senders:
        sender.waits.clear()
    begun, spent = time.perf_counter(), server.cpu_seconds()
    before = sum(sender.seq for sender in senders)
    pace = OFFERED / len(senders)

    async def write(sender: Sender) -> None:
        due = begun + LINGER * (1 + sender.number / len(senders))
        first = sender.seq
        while sender.seq < first + int(seconds * pace):
            await asyncio.sleep(due - time.perf_counter())
            written = first + int(min(time.perf_counter() - begun, seconds) * pace)
            count = min(LARGEST_BATCH, written - sender.seq)
            await sender.send(sender.batch(count), sender.seq)
            due = max(due + LINGER, time.perf_counter()) if count < LARGEST_BATCH else due

    await asyncio.gather(*(write(sender) for sender in senders))
    return _figures(server, senders, begun, spent, before)


async def _at_most(server: Controller, senders: list[Sender], prepared: Prepared) -> Figures:
    """Every worker sends full batches, one after the other."""
    begun, spent = time.perf_counter(), server.cpu_seconds()

    async def hurry(sender: Sender) -> None:
        for body in prepared[sender.number]:
            await sender.send(sender.request(body, LARGEST_BATCH), sender.seq)

    await asyncio.gather(*(hurry(sender) for sender in senders))
    return _figures(server, senders, begun, spent, 0)


def _figures(
    server: Controller, senders: list[Sender], begun: float, spent: float, before: int
) -> Figures:
    took = time.perf_counter() - begun
    lines = sum(sender.seq for sender in senders) - before
    waits = [wait for sender in senders for wait in sender.waits]
    return Figures(lines / took, (server.cpu_seconds() - spent) / took, _p99(waits))


def _wrong_lines(api: Api, sender: Sender) -> int:
    """Lines of a job that are not what was sent, where they should be."""
    expected, wrong, after = 1, 0, ""
    while after is not None:
        page = api.call("GET", f"/v1/jobs/{sender.job_id}/logs?limit={PAGE}&after={after}")
        for line in page["items"]:
            sent = line_of(sender.number, expected)
            same = (line["seq"], line["level"], line["message"]) == (
                expected,
                sent["level"],
                sent["message"],
            )
            wrong += not same or datetime.fromisoformat(line["at"]) != _moment(expected)
            expected += 1
        after = page["next_cursor"]
    return wrong + abs(sender.seq + 1 - expected)


def prepare(each: int) -> Prepared:
    """So many lines of each worker, made before anything is timed."""
    firsts = range(1, each + 1, LARGEST_BATCH)
    return [[packed(number, first, LARGEST_BATCH) for first in firsts] for number in range(WORKERS)]


def packed(number: int, first: int, count: int) -> bytes:
    """The body of a batch as an agent sends it."""
    lines = [line_of(number, first + each) for each in range(count)]
    body = json.dumps({"epoch": 1, "events": lines}, separators=(",", ":")).encode()
    return gzip.compress(body, 1)


def line_of(number: int, seq: int) -> dict[str, Any]:
    """Line ``seq`` of worker ``number``: about 150 bytes, no two alike."""
    loss = (seq * 2654435761 + number) % 100_000 / 100_000
    message = f"worker {number} step {seq}: loss {loss:.5f}, lr 1.0e-04, grad norm {1 - loss:.4f}"
    level = LEVELS[seq % len(LEVELS)]
    at = _moment(seq).isoformat().replace("+00:00", "Z")
    return {"seq": seq, "at": at, "kind": "log", "level": level, "message": message}


def _moment(seq: int) -> datetime:
    return BEGAN + timedelta(milliseconds=seq)


def _described(number: int) -> dict[str, Any]:
    slot = {"index": 0, "accelerator": "NVIDIA H100", "memory_gb": 80.0}
    inventory = {"slots": [slot], "cpus": 8, "memory_gb": 256.0, "disk_free_gb": 1000.0}
    inventory |= {"hostname": f"host{number}", "platform": "linux"}
    return {"name": f"w{number:05}", "agent_version": "benchmark", "inventory": inventory}


def _p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * 99 // 100)]


if __name__ == "__main__":
    sys.exit(main())
