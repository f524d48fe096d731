"""A controller double that speaks the protocol over real HTTP, and a scripted trainer."""

import asyncio
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from st_controller.api.compressed_body import CompressedBody
from st_shared.ids import new_id
from st_shared.protocol.content import ContentFile, content_digest
from st_shared.protocol.problems import Problem
from st_shared.protocol.sse import PING, encode
from st_shared.protocol.worker import (
    ArtifactOffer,
    ArtifactsStored,
    CheckpointDownload,
    ClaimBatch,
    ClaimBatchReply,
    ClaimReply,
    DatasetDownload,
    Download,
    DrainWish,
    EventBatch,
    FinishBatch,
    FinishBatchReply,
    FinishRequest,
    GangMember,
    GarbageReport,
    Heartbeat,
    Meeting,
    RefusedAttempt,
    RegisterRequest,
    SecretsReply,
    SecretsWanted,
)
from st_worker.accelerators.registry import Found, find_devices
from st_worker.agent import Agent, Departure
from st_worker.client import Controller
from st_worker.folder import StateFolder
from st_worker.record import AttemptRecord
from st_worker.serve import describe, sampler_of
from st_worker.settings import AgentSettings
from st_worker.transfer import Transfer

_NOBODY = 65_534
TOKEN = "join-token-of-the-tests"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def owned() -> Iterator[Path]:
    """A folder of a user whom permissions hold back; root is another user during the test."""
    folder = Path(tempfile.mkdtemp())
    if os.geteuid() == 0:
        os.chown(folder, _NOBODY, _NOBODY)
        os.seteuid(_NOBODY)
    try:
        yield folder
    finally:
        os.seteuid(os.getuid())
        shutil.rmtree(folder)


class DoubleRefusal(Exception):
    def __init__(self, status: int, code: str, acked_seq: int | None = None) -> None:
        self.problem = Problem(
            title=code, status=status, detail=code, code=code, acked_seq=acked_seq
        )


@dataclass
class DoubleAttempt:
    """What the controller knows of an attempt."""

    claim: ClaimReply
    expires_at: datetime
    is_claimed: bool = False
    is_stale: bool = False
    stop: str | None = None
    states: list[str] = field(default_factory=list)
    used: float | None = None
    """Seconds that were told with the state, once its program has ended."""
    lines: list[dict[str, Any]] = field(default_factory=list)
    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    completed: list[str] = field(default_factory=list)
    meetings: list[Meeting] = field(default_factory=list)
    place: dict[str, Any] = field(default_factory=dict)
    """Where the members of a gang meet, once they do."""
    finish: FinishRequest | None = None

    @property
    def messages(self) -> list[str]:
        return [line["message"] for line in self.lines if line["kind"] == "log"]


class ControllerDouble:
    """Keeps the rules of the contract strictly, and fails on demand."""

    def __init__(self) -> None:
        self.url = ""
        self.tokens = {TOKEN}
        self.credentials: dict[str, str] = {}
        self.registered: list[RegisterRequest] = []
        self.registered_with: list[str] = []
        self.desired = "active"
        self.left: list[str] = []
        self.drains: list[float | None] = []
        """Seconds of grace of each wish for a drain."""
        self.garbage: list[GarbageReport] = []
        self.abandon: list[str] = []
        self.heartbeat_seconds = 0.1
        self.heartbeats: list[Heartbeat] = []
        self.attempts: dict[str, DoubleAttempt] = {}
        self.objects: dict[str, bytes] = {}
        self.secrets: dict[str, str] = {}
        self.fetched: list[str] = []
        self.fails_at: dict[str, list[int]] = {}
        """Statuses with which the next downloads of an object are answered."""
        self.ranges: list[int] = []
        """Where fetches that went on began."""
        self.events: list[tuple[int, str, str]] = []
        self.streams: list[str | None] = []
        self.stranger: int | None = None
        """Status with which a proxy answers in its stead, with a page for people."""
        self.misled: set[str] = set()
        """Last parts of the paths that it has answered."""
        self.batches: list[int] = []
        """Attempts in each call for several of them."""
        self.faults: dict[str, list[int]] = {}
        """Statuses with which the next calls of an endpoint are answered, after they were done
        (599 and what is below 500: not done; the others: done but the answer is lost)."""
        self.gates: dict[str, asyncio.Event] = {}
        """What claims and finishes wait for at first, by endpoint."""
        self.came = {"claim": 0, "finish": 0}
        """Attempts in the calls so far, those that wait at a gate too."""
        self._changed = asyncio.Event()
        self._cut = asyncio.Event()
        self.app = self._routes()

    # -- for tests ----------------------------------------------------------------------------

    def changed(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, condition: Callable[[], Any], seconds: float = 120) -> None:
        """Wait until ``condition`` holds; it is asked after every call of the worker."""
        async with asyncio.timeout(seconds):
            while not condition():
                try:
                    await asyncio.wait_for(self._changed.wait(), 0.05)
                except TimeoutError:
                    continue

    def push(self, kind: str, data: str) -> None:
        self.events.append((len(self.events) + 1, kind, data))
        self.changed()

    def cut_streams(self) -> None:
        self._cut.set()
        self._cut = asyncio.Event()
        self.changed()

    def store(self, content: bytes, path: str = "archive.tar") -> Download:
        sha256 = hashlib.sha256(content).hexdigest()
        self.objects[sha256] = content
        return Download(path=path, url=f"/objects/{sha256}?sig=1", size=len(content), sha256=sha256)

    def offer(
        self,
        script: list[Any] | None = None,
        *,
        slots: list[int] | None = None,
        time_limit: float = 3600,
        datasets: list[DatasetDownload] | None = None,
        resume: CheckpointDownload | None = None,
        older: list[CheckpointDownload] | None = None,
        acked_seq: int = 0,
        gang: GangMember | None = None,
        org: str = "default",
        **work: Any,
    ) -> DoubleAttempt:
        """Offer an attempt whose trainer will do as ``script`` says, unless ``work`` is given."""
        attempt_id = new_id("att")
        work = work or {"training": {"script": script}}
        spec = {"name": "scripted", "time_limit": time_limit, **work}
        claim = ClaimReply(
            attempt_id=attempt_id,
            epoch=1,
            job_id=new_id("job"),
            number=1,
            slots=[0] if slots is None else slots,
            spec=spec,
            datasets=datasets or [],
            resume=resume,
            older=older or [],
            acked_seq=acked_seq,
            gang=gang,
            org=org,
        )
        expires_at = datetime.now(UTC) + timedelta(seconds=60)
        attempt = self.attempts[attempt_id] = DoubleAttempt(claim, expires_at)
        self.push("offer", self._offer_text(attempt))
        return attempt

    def order_stop(self, attempt: DoubleAttempt, reason: str, *, push: bool = True) -> None:
        attempt.stop = reason
        if push:
            identifier = attempt.claim.attempt_id
            self.push("stop", f'{{"attempt_id":"{identifier}","reason":"{reason}"}}')

    # -- the protocol -------------------------------------------------------------------------

    def _offer_text(self, attempt: DoubleAttempt) -> str:
        return (
            f'{{"attempt_id":"{attempt.claim.attempt_id}","job_id":"{attempt.claim.job_id}",'
            f'"expires_at":"{attempt.expires_at.isoformat()}"}}'
        )

    def _stops(self, wanted: list[str] | None = None) -> list[dict[str, str]]:
        stops = []
        for attempt_id, attempt in self.attempts.items():
            if wanted is not None and attempt_id not in wanted:
                continue
            reason = "stale" if attempt.is_stale else attempt.stop
            if reason and attempt.is_claimed and not attempt.finish:
                stops.append({"attempt_id": attempt_id, "reason": reason})
        return stops

    def _worker(self, request: Request) -> str:
        secret = request.headers.get("authorization", "").removeprefix("Bearer ")
        if secret not in self.credentials:
            raise DoubleRefusal(401, "not_signed_in")
        return self.credentials[secret]

    def _leased(self, request: Request, attempt_id: str, epoch: int) -> DoubleAttempt:
        self._worker(request)
        attempt = self.attempts[attempt_id]
        if attempt.is_stale or not attempt.is_claimed or epoch != attempt.claim.epoch:
            raise DoubleRefusal(409, "stale_lease")
        return attempt

    async def _gate(self, name: str, attempts: int) -> None:
        self.came[name] += attempts
        if name in self.gates:
            await self.gates[name].wait()

    def _fault(self, name: str, *, before: bool) -> None:
        waiting = self.faults.get(name, [])
        if waiting and (waiting[0] == 599 or waiting[0] < 500) is before:
            raise DoubleRefusal(min(waiting.pop(0), 503), "fault")

    def _routes(self) -> FastAPI:  # noqa: C901, PLR0915  (one closure an endpoint)
        app = FastAPI()
        app.add_middleware(CompressedBody, max_bytes=2**24)

        @app.exception_handler(DoubleRefusal)
        async def refuse(_request: Request, error: DoubleRefusal) -> JSONResponse:
            document = error.problem.model_dump(mode="json")
            return JSONResponse(
                document, error.problem.status, media_type="application/problem+json"
            )

        @app.middleware("http")
        async def announce(request: Request, call_next: Any) -> Response:
            if self.stranger:
                self.misled.add(request.url.path.rpartition("/")[2])
                answer = Response("<html>a page</html>", self.stranger, media_type="text/html")
            else:
                answer = await call_next(request)
            self.changed()
            return answer

        @app.post("/v1/worker/register")
        async def register(request: Request, body: RegisterRequest) -> dict[str, Any]:
            secret = request.headers["authorization"].removeprefix("Bearer ")
            credential = None
            if secret in self.tokens:
                credential = f"credential-{len(self.credentials)}"
                self.credentials[credential] = new_id("wrk")
            elif secret not in self.credentials:
                raise DoubleRefusal(401, "not_signed_in")
            self.registered.append(body)
            self.registered_with.append("token" if credential else "credential")
            return {
                "worker_id": self.credentials[credential or secret],
                "credential": credential,
                "labels": dict(body.labels),
                "desired": self.desired,
                "heartbeat_seconds": self.heartbeat_seconds,
                "abandon": self.abandon,
            }

        @app.get("/v1/worker/stream")
        async def stream(request: Request) -> StreamingResponse:
            self._worker(request)
            last = request.headers.get("last-event-id")
            self.streams.append(last)
            # From here on: what is pushed before the answer is begun belongs to it.
            sent = int(last) if last else len(self.events)
            return StreamingResponse(self._stream(last, sent), media_type="text/event-stream")

        @app.post("/v1/worker/heartbeat")
        async def heartbeat(request: Request, body: Heartbeat) -> dict[str, Any]:
            self._worker(request)
            self.heartbeats.append(body)
            wanted = [lease.attempt_id for lease in body.holding]
            return {"desired": self.desired, "stops": self._stops(wanted)}

        @app.post("/v1/worker/credential")
        async def credential(request: Request) -> dict[str, str]:
            fresh = f"credential-{len(self.credentials)}"
            self.credentials[fresh] = self._worker(request)
            return {"credential": fresh}

        @app.post("/v1/worker/garbage", status_code=204)
        async def garbage(request: Request, body: GarbageReport) -> None:
            self._worker(request)
            self.garbage.append(body)

        @app.post("/v1/worker/drain", status_code=204)
        async def drain(request: Request, body: DrainWish) -> None:
            self._worker(request)
            self.drains.append(body.grace_seconds)
            self.desired = "draining"

        @app.post("/v1/worker/leave", status_code=204)
        async def leave(request: Request) -> None:
            worker_id = self._worker(request)
            self.left.append(worker_id)
            self.credentials = {
                secret: known for secret, known in self.credentials.items() if known != worker_id
            }

        @app.post("/v1/worker/attempts/{attempt_id}/claim")
        async def claim_one(request: Request, attempt_id: str) -> ClaimReply:
            await self._gate("claim", 1)
            return claim(request, attempt_id)

        def claim(request: Request, attempt_id: str) -> ClaimReply:
            self._worker(request)
            self._fault("claim", before=True)
            attempt = self.attempts.get(attempt_id)
            if attempt is None or attempt.finish or attempt.is_stale or "running" in attempt.states:
                raise DoubleRefusal(409, "offer_gone")
            attempt.is_claimed = True
            self._fault("claim", before=False)
            return attempt.claim

        @app.post("/v1/worker/attempts/{attempt_id}/secrets")
        async def secrets(request: Request, attempt_id: str, body: SecretsWanted) -> SecretsReply:
            attempt = self._leased(request, attempt_id, body.epoch)
            self._fault("secrets", before=True)
            named = attempt.claim.spec["secrets"]
            if not set(named.values()) <= self.secrets.keys():
                raise DoubleRefusal(409, "secret_missing")
            given = {variable: self.secrets[name] for variable, name in named.items()}
            return SecretsReply(environment=given)

        @app.post("/v1/worker/attempts/{attempt_id}/meet")
        async def meet(request: Request, attempt_id: str, body: Meeting) -> dict[str, Any]:
            attempt = self._leased(request, attempt_id, body.epoch)
            attempt.meetings.append(body)
            return {"host": None, "port": None, **attempt.place}

        @app.post("/v1/worker/claims")
        async def claim_all(request: Request, body: ClaimBatch) -> ClaimBatchReply:
            self.batches.append(len(body.attempt_ids))
            await self._gate("claim", len(body.attempt_ids))
            reply = ClaimBatchReply(claims=[], refused=[])
            for attempt_id in body.attempt_ids:
                try:
                    reply.claims.append(claim(request, attempt_id))
                except DoubleRefusal as error:
                    if error.problem.code == "fault":
                        raise
                    refused = RefusedAttempt(attempt_id=attempt_id, problem=error.problem)
                    reply.refused.append(refused)
            return reply

        @app.post("/v1/worker/attempts/{attempt_id}/events")
        async def events(request: Request, attempt_id: str, body: EventBatch) -> dict[str, Any]:
            attempt = self._leased(request, attempt_id, body.epoch)
            self._fault("events", before=True)
            acked = attempt.lines[-1]["seq"] if attempt.lines else attempt.claim.acked_seq
            fresh = [line for line in body.events if line["seq"] > acked]
            if fresh and fresh[0]["seq"] != acked + 1:
                raise DoubleRefusal(409, "sequence_gap", acked)
            attempt.lines += fresh
            attempt.used = body.used_seconds or attempt.used
            if body.state and (not attempt.states or attempt.states[-1] != body.state):
                attempt.states.append(str(body.state))
            self._fault("events", before=False)
            acked = attempt.lines[-1]["seq"] if attempt.lines else acked
            return {"acked_seq": acked, "stop": attempt.stop}

        @app.post("/v1/worker/attempts/{attempt_id}/artifacts")
        async def artifacts(request: Request, attempt_id: str, body: ArtifactOffer) -> Any:
            attempt = self._leased(request, attempt_id, body.epoch)
            tickets = []
            for file in body.files:
                key = f"{attempt_id}/{file.path}"
                known = attempt.artifacts.setdefault(
                    file.path, {"id": new_id("art"), "stored": False}
                )
                known |= {"file": file, "key": key}
                url = None if known["stored"] else f"{self.url}/objects/{key}?sig=2"
                headers = {"x-must": "carry"}
                tickets.append(
                    {
                        "artifact_id": known["id"],
                        "path": file.path,
                        "url": url,
                        "headers": headers,
                    }
                )
            return {"tickets": tickets}

        @app.post("/v1/worker/attempts/{attempt_id}/artifacts/complete", status_code=204)
        async def complete(request: Request, attempt_id: str, body: ArtifactsStored) -> None:
            attempt = self._leased(request, attempt_id, body.epoch)
            by_id = {known["id"]: known for known in attempt.artifacts.values()}
            for artifact_id in body.artifact_ids:
                known = by_id[artifact_id]
                content = self.objects.get(known["key"])
                if content is None:
                    raise DoubleRefusal(409, "not_uploaded")
                if hashlib.sha256(content).hexdigest() != known["file"].sha256:
                    raise DoubleRefusal(409, "checksum")
                if not known["stored"]:
                    known["stored"] = True
                    attempt.completed.append(known["file"].path)

        @app.post("/v1/worker/attempts/{attempt_id}/finish", status_code=204)
        async def finish_one(request: Request, attempt_id: str, body: FinishRequest) -> None:
            await self._gate("finish", 1)
            finish(request, attempt_id, body)

        def finish(request: Request, attempt_id: str, body: FinishRequest) -> None:
            attempt = self._leased(request, attempt_id, body.epoch)
            acked = attempt.lines[-1]["seq"] if attempt.lines else attempt.claim.acked_seq
            if acked != body.last_seq:
                raise DoubleRefusal(409, "sequence_gap", acked)
            if attempt.finish and attempt.finish.outcome != body.outcome:
                raise DoubleRefusal(409, "stale_lease")
            attempt.finish = body
            self._fault("finish", before=False)

        @app.post("/v1/worker/finishes")
        async def finish_all(request: Request, body: FinishBatch) -> FinishBatchReply:
            self.batches.append(len(body.finishes))
            await self._gate("finish", len(body.finishes))
            reply = FinishBatchReply(refused=[])
            for each in body.finishes:
                alone = FinishRequest(**each.model_dump(exclude={"attempt_id"}))
                try:
                    finish(request, each.attempt_id, alone)
                except DoubleRefusal as error:
                    if error.problem.code == "fault":
                        raise
                    refused = RefusedAttempt(attempt_id=each.attempt_id, problem=error.problem)
                    reply.refused.append(refused)
            return reply

        @app.get("/objects/{key:path}")
        async def download(request: Request, key: str) -> Response:
            assert "authorization" not in request.headers
            self.fetched.append(key)
            self._fault("download", before=True)
            if waiting := self.fails_at.get(key):
                return Response(status_code=waiting.pop(0))
            start = request.headers.get("range", "").removeprefix("bytes=").removesuffix("-")
            if start:
                self.ranges.append(int(start))
                return Response(self.objects[key][int(start) :], status_code=206)
            return Response(self.objects[key])

        @app.put("/objects/{key:path}")
        async def upload(request: Request, key: str) -> Response:
            assert "authorization" not in request.headers
            assert request.headers["x-must"] == "carry"
            content = await request.body()
            assert int(request.headers["content-length"]) == len(content)
            self._fault("upload", before=True)
            self.objects[key] = content
            return Response(status_code=200)

        return app

    async def _stream(self, last: str | None, sent: int) -> AsyncIterator[bytes]:
        cut = self._cut
        if last is None:
            offers = [
                self._offer_text(attempt)
                for attempt in self.attempts.values()
                if not attempt.is_claimed
            ]
            stops = str(self._stops()).replace("'", '"')
            text = f'{{"desired":"{self.desired}","offers":[{",".join(offers)}],"stops":{stops}}}'
            yield encode("sync", text, str(sent))
        yield PING
        while not cut.is_set():
            changed = self._changed
            for number, kind, data in self.events[sent:]:
                yield encode(kind, data, str(number))
                sent = number
            await changed.wait()


@asynccontextmanager
async def serving(double: ControllerDouble) -> AsyncIterator[ControllerDouble]:
    config = uvicorn.Config(
        double.app, port=0, log_level="error", lifespan="off", timeout_graceful_shutdown=1
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()  # without the server's own loop, whose ticks would cost each test 0.2 s
    port = server.servers[0].sockets[0].getsockname()[1]
    double.url = f"http://127.0.0.1:{port}"
    try:
        yield double
    finally:
        double.cut_streams()
        server.force_exit = True
        await server.shutdown()
        ticks = 0  # one that was accepted just now is known to the server some ticks later
        while server.server_state.connections or ticks < 5:
            for connection in list(server.server_state.connections):
                connection.transport.abort()  # of agents that were killed in mid-request
            await asyncio.sleep(0)
            ticks += 1


@pytest.fixture
async def double() -> AsyncIterator[ControllerDouble]:
    async with serving(ControllerDouble()) as controller:
        yield controller


TRAINER = """
import hashlib, json, os, signal, subprocess, sys, time
from pathlib import Path

arguments = sys.argv[1:]
job = json.loads(Path(arguments[arguments.index("run") + 1]).read_text())
run_dir = Path(arguments[arguments.index("--run-dir") + 1])
journal = run_dir / "journal.ndjson"
stopped = False


def stop(*_):
    global stopped
    stopped = True


signal.signal(signal.SIGTERM, stop)
lines = journal.read_text().splitlines() if journal.exists() else []
seq = json.loads(lines[-1])["seq"] if lines else 0
file = journal.open("a")


def write(**fields):
    global seq
    seq += 1
    at = "2026-01-01T00:00:00Z"
    file.write(json.dumps({"seq": seq, "at": at, **fields}) + "\\n")
    file.flush()


def put(path, text):
    (run_dir / path).parent.mkdir(parents=True, exist_ok=True)
    (run_dir / path).write_text(text)


def checkpoint(step):
    folder = f"checkpoints/step-{step:06d}"
    put(f"{folder}/weights.bin", f"weights {step}")
    raw = (run_dir / folder / "weights.bin").read_bytes()
    listed = [{"path": "weights.bin", "size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}]
    manifest = {"format": 1, "step": step, "spec_sha256": "0" * 64, "files": listed}
    put(f"{folder}/manifest.json", json.dumps(manifest))
    write(kind="checkpoint", step=step, manifest=f"{folder}/manifest.json")


STUBBORN = (
    "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "print('ready', flush=True); time.sleep(600)"
)

ESCAPING = (
    "import os,sys; child = os.fork(); os._exit(0) if child else os.setsid(); "
    "grandchild = os.fork(); os._exit(0) if grandchild else None; "
    "print(os.getpid(), flush=True); os.execv(sys.executable, [sys.executable, '-c', STUBBORN])"
)

for action, *values in job["training"]["script"]:
    if action == "log":
        write(kind="log", level="info", message=values[0])
    elif action == "error":
        write(kind="log", level="error", message=values[0])
    elif action == "print":
        print(values[0], flush=True)
    elif action == "raw":
        file.write(values[0])
        file.flush()
    elif action == "skip_seq":
        seq += 1
    elif action == "logs":
        for number in range(values[0]):
            write(kind="log", level="info", message=f"{number}")
    elif action == "arguments":
        write(kind="log", level="info", message=json.dumps(arguments))
    elif action == "environment":
        shown = {name: os.environ.get(name) for name in values}
        write(kind="log", level="info", message=json.dumps(shown))
    elif action == "sample":
        put(values[0], "picture")
        write(kind="sample", step=1, path=values[0], prompts=["a three"])
    elif action == "output":
        put(values[0], "result")
        write(kind="output", name="weights", path=values[0])
    elif action == "missing":
        write(kind="sample", step=1, path=values[0], prompts=[])
    elif action == "missing output":
        write(kind="output", name="weights", path=values[0])
    elif action == "checkpoint":
        checkpoint(values[0])
    elif action == "wait":
        while not Path(values[0]).exists():
            time.sleep(0.01)
    elif action == "grandchild":
        child = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE)
        child.stdout.readline()
        write(kind="log", level="info", message=f"grandchild {child.pid}")
    elif action == "escaped":
        code = f"STUBBORN = {STUBBORN!r}\\n{ESCAPING}"
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        pid = int(child.stdout.readline())
        child.stdout.readline()
        child.wait()
        write(kind="log", level="info", message=f"escaped {pid}")
    elif action == "until_stopped":
        while not stopped:
            time.sleep(0.01)
    elif action == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        write(kind="log", level="info", message="deaf")
        time.sleep(600)
    elif action == "die":
        os.kill(os.getpid(), values[0])
    elif action == "exit":
        sys.exit(values[0])
"""


@pytest.fixture
def agent_settings(tmp_path: Path) -> AgentSettings:
    """Production's settings with the scripted trainer, soon to look and to try again.

    Whatever is given up after a while is given up late: a busy machine is slow.
    """
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER)
    return AgentSettings(
        trainer_command=(sys.executable, "-S", str(script)),
        poll_seconds=0.02,
        first_backoff_seconds=0.01,
        most_backoff_seconds=0.1,
        stream_silence_seconds=120,
        joint_timeout_seconds=20,
        claim_patience_seconds=120,
        sample_seconds=60,
        first_sample_seconds=60,
        transfer_tries=3,
        cancel_grace_seconds=0.5,
        preempt_grace_seconds=120,
        shutdown_grace_seconds=120,
        report_seconds=60,
        min_free_gb=0,  # the disk of whoever runs this may be small
    )


@pytest.fixture
def state_folder(tmp_path: Path) -> StateFolder:
    folder = StateFolder(tmp_path / "state")
    folder.create()
    return folder


class AgentHands:
    """An agent that runs as a task of the test."""

    def __init__(self, agent: Agent, task: "asyncio.Task[Departure]") -> None:
        self.agent, self.task = agent, task

    async def left(self, seconds: float = 120) -> Departure:
        return await asyncio.wait_for(self.task, seconds)

    async def let_go(self) -> "subprocess.Popen[bytes]":
        """The agent ends and its one program goes on; gives the supervisor, to be waited for."""
        (run,) = self.agent._attempts._runs.values()
        started: subprocess.Popen[bytes] = run._work._process._child
        self.agent.leave(Departure.FAULT)
        await self.left()
        return started


@pytest.fixture
def bring_to_its_limit(state_folder: StateFolder) -> Callable[[DoubleAttempt], None]:
    """While no agent runs, makes the time limit of an attempt that runs be over."""

    def bring(attempt: DoubleAttempt) -> None:
        folder = state_folder.attempt(attempt.claim.attempt_id)
        record = AttemptRecord.load(folder)
        limit = attempt.claim.spec["time_limit"]
        began = record.began.model_copy(update={"seconds": record.began.seconds - limit})
        record.model_copy(update={"began": began}).save(folder)

    return bring


StartAgent = Callable[..., Any]


@pytest.fixture
async def start_agent(
    double: ControllerDouble, agent_settings: AgentSettings, state_folder: StateFolder
) -> AsyncIterator[StartAgent]:
    """Starts agents; whatever still runs at the end is ended with its trainers."""
    async with AsyncExitStack() as stack:

        async def start(
            *,
            slots: int = 1,
            ephemeral: bool = False,
            one_job: bool = False,
            token: str | None = TOKEN,
            settings: AgentSettings = agent_settings,
            found: Found | None = None,
        ) -> AgentHands:
            controller, transfer = Controller(double.url, settings), Transfer(double.url, settings)
            stack.push_async_callback(controller.close)
            stack.push_async_callback(transfer.close)
            labels = {"rack": "7"}
            found = found or find_devices(slots, {})
            description = describe(
                state_folder, "tester", slots, labels, ephemeral, found, one_job=one_job
            )
            sampler = sampler_of(found, description, state_folder, settings)
            agent = Agent(
                state_folder, controller, transfer, description, settings, sampler=sampler
            )
            hands = AgentHands(agent, asyncio.create_task(agent.run(token)))
            stack.push_async_callback(_end, hands)
            return hands

        yield start


async def _end(hands: AgentHands) -> None:
    if not hands.task.done():
        hands.agent.leave(Departure.REFUSED)  # drops every trainer at once
        await asyncio.wait({hands.task}, timeout=120)
    hands.task.cancel()
    await asyncio.gather(hands.task, return_exceptions=True)


@pytest.fixture
def pack_dataset(double: ControllerDouble) -> Callable[..., DatasetDownload]:
    """Makes a dataset of one archive with the given files, stored at the double."""

    def pack(name: str, files: dict[str, bytes]) -> DatasetDownload:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for path, content in files.items():
                entry = tarfile.TarInfo(path)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        archive = double.store(buffer.getvalue())
        digest = content_digest(
            ContentFile(path, len(content), hashlib.sha256(content).hexdigest())
            for path, content in files.items()
        )
        return DatasetDownload(name=name, digest=digest, archives=[archive])

    return pack
