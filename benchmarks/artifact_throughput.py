"""How fast an agent stores a large artifact, beside boto3's own ``upload_file`` to the same server.

A real controller with its objects in nanio, a real S3 server on disk, and the agent's own upload
code in a process of its own: digests, announcement, parts, verification and completion are all in
the time. The two take turns.

python benchmarks/artifact_throughput.py [--quick] [--json PATH]
"""

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from report import Goal, Result, report
from served import BIN, Api, controller

MIB = 1 << 20
FILE_BYTES = 256 * MIB
BUCKET = "artifacts"
KEYS = {"NANIO_ACCESS_KEY": "bench", "NANIO_SECRET_KEY": "bench-secret"}
RATIO = Goal("at least", 0.8)
MEMORY = Goal("at most", 100.0)


def main() -> int:
    """Measure, print, write; 1 when a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two runs, not five")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the results there")
    parser.add_argument("--child", choices=("agent", "boto3"), help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args()
    if options.child == "agent":
        return asyncio.run(upload_as_agent(*rest))
    if options.child == "boto3":
        return upload_with_boto3(*rest)
    results = measure(2 if options.quick else 5)
    return 0 if report("artifact_throughput", results, options.json) else 1


def measure(runs: int) -> list[Result]:
    """All results."""
    plain: list[float] = []
    ours: list[float] = []
    memory: list[float] = []
    with tempfile.TemporaryDirectory(prefix="st-bench-") as scratch, nanio(Path(scratch)) as url:
        folder = Path(scratch)
        client_of(url).create_bucket(Bucket=BUCKET)
        file = folder / "weights.bin"
        with controller(
            "sqlite",
            ST_OBJECT_STORE=f"s3://{BUCKET}/fleet",
            ST_OBJECT_STORE_ENDPOINT=url,
            ST_OBJECT_STORE_REGION="us-east-1",
            ST_OBJECT_STORE_ACCESS_KEY=KEYS["NANIO_ACCESS_KEY"],
            ST_OBJECT_STORE_SECRET_KEY=KEYS["NANIO_SECRET_KEY"],
            ST_LEASE_TTL_SECONDS="900",
        ) as (served, api):
            for number in range(runs):
                write_unlike(file)
                plain.append(child("boto3", url, str(file), f"plain-{number}")[0])
                write_unlike(file)
                token = api.call("POST", "/v1/join-tokens", {})["token"]
                api.call("POST", "/v1/jobs", {"name": "upload", "noop": {"seconds": 1}})
                seconds, above = child("agent", served.url, str(file), token, f"w{number}")
                ours.append(seconds)
                memory.append(above)
                must_be_stored(api)
    ratios = [theirs / own for theirs, own in zip(plain, ours, strict=True)]
    size = FILE_BYTES / MIB
    return [
        Result("agent, beside boto3 upload_file", median(ratios), "x", RATIO, ratios),
        speed("agent, digests to completion", size, ours),
        speed("boto3 upload_file", size, plain),
        Result("agent, resident above idle", max(memory), "MiB", MEMORY, memory),
    ]


def speed(metric: str, size: float, seconds: list[float]) -> Result:
    """Throughput of uploads of ``size`` MiB."""
    rates = [size / each for each in seconds]
    return Result(metric, median(rates), "MiB/s", None, rates)


def write_unlike(path: Path) -> None:
    """A file whose content, each part of it included, was never there before."""
    with path.open("wb") as file:
        for _ in range(FILE_BYTES // (8 * MIB)):
            file.write(os.urandom(8 * MIB))


def must_be_stored(api: Api) -> None:
    """The newest job has the whole artifact."""
    (job,) = api.call("GET", "/v1/jobs?limit=1")["items"]
    (artifact,) = api.call("GET", f"/v1/jobs/{job['id']}/artifacts")["items"]
    if artifact["size"] != FILE_BYTES:
        raise RuntimeError(f"not stored as it should be: {artifact}")


def child(what: str, *arguments: str) -> tuple[float, float]:
    """Run one upload in a process of its own: seconds, and MiB above what it had before."""
    command = [sys.executable, sys.argv[0], "--child", what, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told["seconds"], told["mib"]


@contextmanager
def nanio(folder: Path) -> Iterator[str]:
    """URL of a server that keeps its objects in ``folder``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [BIN / "nanio", "serve", "--data-dir", folder / "objects", "--no-access-log"]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        env=os.environ | KEYS,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except ConnectionRefusedError:
                if process.poll() is not None or time.monotonic() > until:
                    raise
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def client_of(url: str) -> Any:
    """A plain client of boto3, as its documentation makes one."""
    import boto3  # noqa: PLC0415 - the agent does without

    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=KEYS["NANIO_ACCESS_KEY"],
        aws_secret_access_key=KEYS["NANIO_SECRET_KEY"],
    )


def upload_with_boto3(url: str, path: str, key: str) -> int:
    """The comparison."""
    client = client_of(url)
    with peak() as memory:
        begun = time.perf_counter()
        client.upload_file(path, BUCKET, key)
        seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds, "mib": memory()}))
    return 0


async def upload_as_agent(url: str, path: str, token: str, name: str) -> int:
    """Join, claim the waiting job, and let the agent's own code store the file."""
    from st_shared.ids import new_id  # noqa: PLC0415 - weighed like a real agent's
    from st_shared.protocol.worker import Lease  # noqa: PLC0415
    from st_worker.accelerators.registry import find_devices  # noqa: PLC0415
    from st_worker.client import Controller  # noqa: PLC0415
    from st_worker.folder import AttemptFolder, StateFolder  # noqa: PLC0415
    from st_worker.joining import join  # noqa: PLC0415
    from st_worker.journal import Journal  # noqa: PLC0415
    from st_worker.serve import describe  # noqa: PLC0415
    from st_worker.settings import AgentSettings  # noqa: PLC0415
    from st_worker.transfer import Transfer  # noqa: PLC0415
    from st_worker.uploads import Uploads  # noqa: PLC0415

    settings = AgentSettings()
    link, transfer = Controller(url, settings), Transfer(url, settings)
    with tempfile.TemporaryDirectory(dir=Path(path).parent) as root:
        state = StateFolder(Path(root))
        state.create()
        described = describe(state, name, 1, {}, False, find_devices(1, {}))
        await join(link, state, described, token)
        claim = await first_claim(link)
        folder = AttemptFolder(Path(root) / new_id("att"))
        folder.create()
        (folder.run / "weights.bin").hardlink_to(path)
        event = {"kind": "output", "name": "weights", "path": "weights.bin"}
        line = {"seq": 1, "at": "2026-01-01T00:00:00Z", **event}
        folder.journal.write_text(json.dumps(line) + "\n")
        lease = Lease(attempt_id=claim.attempt_id, epoch=claim.epoch)
        uploads = Uploads(
            link,
            transfer,
            lease,
            folder,
            Journal(folder.journal),
            settings,
            start=0,
            acknowledged=no_wait,
        )
        uploads.seal()
        with peak() as memory:
            begun = time.perf_counter()
            await uploads.run()
            seconds = time.perf_counter() - begun
        if uploads.refused:
            raise RuntimeError(uploads.refused)
    await link.close()
    await transfer.close()
    print(json.dumps({"seconds": seconds, "mib": memory()}))
    return 0


async def no_wait(_seq: int) -> None:
    """No journal line is waited for."""


async def first_claim(link: Any) -> Any:
    """The claim of the first offer that the stream brings."""
    from st_shared.protocol.worker import Offer, Sync  # noqa: PLC0415

    async with link.stream(None) as lines:
        async for text in lines:
            if not text.startswith("data:"):
                continue
            body = json.loads(text.removeprefix("data:"))
            if "offers" in body:
                for offer in Sync.model_validate(body).offers:
                    return await link.claim(offer.attempt_id)
            elif "expires_at" in body:
                return await link.claim(Offer.model_validate(body).attempt_id)
    raise RuntimeError("the stream ended before an offer came")


@contextmanager
def peak() -> Iterator[Any]:
    """Gives a function that tells by how many MiB this process grew at most in the block."""
    process, over = psutil.Process(), threading.Event()
    idle = highest = process.memory_info().rss

    def watch() -> None:
        nonlocal highest
        while not over.wait(0.02):
            highest = max(highest, process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: (highest - idle) / MIB
    finally:
        over.set()
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
