"""A worker that speaks the real protocol and only pretends to work, so that hundreds fit here.

It does what the agent does for a job of kind ``noop``: it follows its event stream, claims every
offer (those that come together in one call, by the agent's own code), reports ``running`` where the
job takes any time, finishes, and sends heartbeats that renew its leases.
"""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from served import Api
from wire import PATIENCE, BrokenConnectionError, Connection, EventStream, encode

from st_shared.protocol.worker import LARGEST_BATCH
from st_worker.together import Together

HEARTBEAT_SECONDS = 5.0
RETRY_SECONDS = 0.02
LANES = 2
"""Connections over which one worker sends its calls."""

Note = Callable[[str, str, float], None]
"""Told what happened (``offer``, ``claimed``, ``finished``), of which job, when."""


class SimulatedWorker:
    """One worker with ``slots`` slots of the accelerator ``cpu``."""

    def __init__(self, port: int, name: str, slots: int, note: Note) -> None:
        self._port, self._name, self._slots, self._note = port, name, slots, note
        self._credential = ""
        self._stream: EventStream | None = None
        self._lanes: asyncio.Queue[Connection] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._leases: dict[str, int] = {}
        self._claims = Together(self._claim, self._alone, LARGEST_BATCH)
        self._finishes = Together(self._finish, self._alone, LARGEST_BATCH)
        self._seen: set[str] = set()
        self.failures: list[str] = []
        """What was refused; a benchmark in which anything was is void."""
        self.late = 0
        """Offers that were over when the claim arrived; the controller makes them again."""

    def join(self, api: Api, token: str) -> None:
        """Register for the first time, in a call of its own that nobody times."""
        reply = Api(api.url).call("POST", "/v1/worker/register", self._described(), key=token)
        self._credential = reply["credential"]

    async def start(self) -> None:
        """Connect, and serve until closed."""
        for _ in range(LANES):
            self._lanes.put_nowait(await Connection.open(self._port))
        self._stream = await self._follow()
        self._begin(self._keep_following())
        self._begin(self._beat())

    async def close(self) -> None:
        """End everything at once."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._stream:
            self._stream.close()
        while not self._lanes.empty():
            self._lanes.get_nowait().close()

    def _described(self) -> dict[str, Any]:
        slots = [
            {"index": index, "accelerator": "cpu", "memory_gb": 16.0}
            for index in range(self._slots)
        ]
        inventory = {"slots": slots, "cpus": 8, "memory_gb": 256.0, "disk_free_gb": 1000.0}
        inventory |= {"hostname": self._name, "platform": "linux"}
        return {"name": self._name, "agent_version": "benchmark", "inventory": inventory}

    def _holding(self) -> list[dict[str, Any]]:
        return [{"attempt_id": name, "epoch": epoch} for name, epoch in self._leases.items()]

    async def _follow(self) -> EventStream:
        return await EventStream.open(self._port, self._credential, self._hear, "/v1/worker/stream")

    async def _keep_following(self) -> None:
        """Come back when the controller has gone, with what is still held here."""
        while self._stream:
            await self._stream.closed.wait()
            await self._call(
                "/v1/worker/register", {**self._described(), "holding": self._holding()}
            )
            self._stream = await self._follow()

    def _begin(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _hear(self, event: str, body: bytes) -> None:
        if event == "offer":
            self._take(json.loads(body))
        elif event == "sync":
            for offer in json.loads(body)["offers"]:
                self._take(offer)

    def _take(self, offer: dict[str, Any]) -> None:
        if offer["attempt_id"] in self._seen:
            return
        self._seen.add(offer["attempt_id"])
        self._note("offer", offer["job_id"], time.perf_counter())
        self._begin(self._work(offer["attempt_id"], offer["job_id"]))

    async def _work(self, attempt_id: str, job_id: str) -> None:
        claim = await self._claims.do(attempt_id)
        if claim is None:
            return
        self._note("claimed", job_id, time.perf_counter())
        self._leases[attempt_id] = claim["epoch"]
        if seconds := claim["spec"]["noop"]["seconds"]:
            until = time.perf_counter() + seconds
            running = {"epoch": claim["epoch"], "state": "running"}
            await self._call(f"/v1/worker/attempts/{attempt_id}/events", running)
            await asyncio.sleep(until - time.perf_counter())
        done = {"epoch": claim["epoch"], "outcome": "succeeded", "last_seq": 0}
        if await self._finishes.do((attempt_id, done)):
            self._note("finished", job_id, time.perf_counter())
        del self._leases[attempt_id]

    async def _alone(self, ask: Any) -> Any:
        raise RuntimeError(f"a call for {ask} failed, which is tried for ever")

    async def _claim(self, attempt_ids: Sequence[str]) -> list[dict[str, Any] | None]:
        """The leases; none where an offer was over."""
        if len(attempt_ids) == 1:
            reply = await self._call(f"/v1/worker/attempts/{attempt_ids[0]}/claim")
            return [None if reply is None else json.loads(reply)]
        reply = await self._call("/v1/worker/claims", {"attempt_ids": attempt_ids})
        answer = json.loads(reply or b'{"claims": [], "refused": []}')
        self.late += len(answer["refused"])
        claims = {claim["attempt_id"]: claim for claim in answer["claims"]}
        return [claims.get(attempt_id) for attempt_id in attempt_ids]

    async def _finish(self, ends: Sequence[tuple[str, dict[str, Any]]]) -> list[bool]:
        """Whether each was taken."""
        if len(ends) == 1:
            ((attempt_id, done),) = ends
            return [await self._call(f"/v1/worker/attempts/{attempt_id}/finish", done) is not None]
        finishes = [{"attempt_id": attempt_id, **done} for attempt_id, done in ends]
        reply = await self._call("/v1/worker/finishes", {"finishes": finishes})
        refused = json.loads(reply)["refused"] if reply else finishes
        self.failures += [f"finish: {each}" for each in refused]
        return [True] * len(ends)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            await self._call("/v1/worker/heartbeat", {"holding": self._holding()})

    async def _call(self, path: str, body: Any = None) -> bytes | None:
        """The answer; none where it was refused, which is noted.

        A call is repeated until it is answered: the protocol is made for answers that are lost.
        """
        request = encode(
            "POST", path, self._credential, b"" if body is None else json.dumps(body).encode()
        )
        lane = await self._lanes.get()
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    status, answer = await lane.send(request)
                    break
                except BrokenConnectionError:
                    lane = await self._reconnected()
        self._lanes.put_nowait(lane)
        if status < 300:
            return answer
        if status == 409 and path.endswith("/claim") and b'"offer_gone"' in answer:
            self.late += 1
        else:
            self.failures.append(f"{path}: {status} {answer.decode()}")
        return None

    async def _reconnected(self) -> Connection:
        """A new connection, as soon as somebody listens."""
        while True:
            try:
                return await Connection.open(self._port)
            except OSError:
                await asyncio.sleep(RETRY_SECONDS)


def join_many(api: Api, port: int, count: int, slots: int, note: Note) -> list[SimulatedWorker]:
    """Workers that have joined and are not connected yet."""
    token = api.call("POST", "/v1/join-tokens", {"expires_in_seconds": 3600, "uses": count})
    workers = [SimulatedWorker(port, f"w{number:04}", slots, note) for number in range(count)]
    for worker in workers:
        worker.join(api, token["token"])
    return workers


async def connect(workers: list[SimulatedWorker]) -> None:
    """Connect them all."""
    for worker in workers:
        await worker.start()


async def close(workers: list[SimulatedWorker]) -> int:
    """End them all; how many offers came too late. What was refused to any of them is an error."""
    for worker in workers:
        await worker.close()
    failures = [failure for worker in workers for failure in worker.failures]
    if failures:
        raise RuntimeError(f"{len(failures)} calls were refused, first: {failures[0]}")
    return sum(worker.late for worker in workers)
