"""A real S3 server on disk that checks signatures and their expiry."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
from ports import free_port

from st_shared.objectstore import S3Store

ACCESS_KEY, SECRET_KEY = "contract", "contract-secret"


@contextmanager
def serve_buckets(folder: Path) -> Iterator[str]:
    """URL of a server that keeps its objects in ``folder``, as long as the block lasts."""
    port = free_port()
    command = [Path(sys.executable).with_name("nanio"), "serve", "--data-dir", folder / "data"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--no-access-log"]
    keys = {"NANIO_ACCESS_KEY": ACCESS_KEY, "NANIO_SECRET_KEY": SECRET_KEY}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | keys)
    try:
        _wait_for_port(port, process, folder / "log")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(120)


def use_buckets(monkeypatch: pytest.MonkeyPatch, folder: Path, **more: str) -> None:
    """Name the keys of the server in the environment, as for AWS, and no files."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(folder / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "none"),
        **more,
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it keeps the keys of an earlier test


def connect(url: str, bucket: str, prefix: str, *, reads_back: bool = False) -> S3Store:
    """A store in a bucket of the server, which is made when it is new."""
    store = S3Store.connect(
        bucket,
        prefix,
        endpoint_url=url,
        region="us-east-1",
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
        reads_back=reads_back,
    )
    existing = [found["Name"] for found in store._client.list_buckets()["Buckets"]]
    if bucket not in existing:
        store._client.create_bucket(Bucket=bucket)
    return store


def _wait_for_port(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            time.sleep(0.05)  # another process becomes ready; nothing can be awaited
        else:
            return
    raise AssertionError(f"nanio did not start:\n{log.read_text()}")
