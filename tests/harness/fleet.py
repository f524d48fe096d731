"""A controller and a worker as real processes, to be killed and started again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import psutil
from ports import free_port

from st_client import Client
from st_client.errors import MissingError

BIN = Path(sys.executable).parent
PATIENCE = 240.0
"""Seconds within which whatever is waited for must have happened, however busy the machine is."""

QUICK_TO_LOSE = {"ST_SILENT_AFTER_SECONDS": "3", "ST_LEASE_TTL_SECONDS": "8"}
"""Lets a test see a lost worker soon; where much else runs it may lose others, too."""

Found = TypeVar("Found")


def wait_for(what: str, look: Callable[[], Found | None]) -> Found:
    """Look until something is found; a test that waits in vain says for what."""
    until = time.monotonic() + PATIENCE
    pause = 0.01
    while time.monotonic() < until:
        found = look()
        if found:
            return found
        time.sleep(pause)
        pause = min(1.3 * pause, 0.15)  # looking has its price, for the one who is asked as well
    raise AssertionError(f"waited {PATIENCE:g} s in vain for {what}")


class Daemon:
    """A command that runs in the background and can be killed."""

    def __init__(self, log: Path, environment: dict[str, str]) -> None:
        self._log, self._environment = log, environment
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                env=os.environ | self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def kill(self) -> None:
        """End it as a power cut would: this process alone, at once."""
        assert self.process
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)

    def stop(self) -> int:
        """End it as an operator would; gives its exit code."""
        assert self.process
        self.process.terminate()
        return self.process.wait(PATIENCE)


class ControllerProcess(Daemon):
    """``st-controller serve`` on one port and one data folder, however often it is started."""

    def __init__(self, folder: Path, environment: dict[str, str] | None = None) -> None:
        folder.mkdir(exist_ok=True)
        super().__init__(
            folder / "controller.log",
            {
                "ST_HEARTBEAT_SECONDS": "0.5",
                "ST_SILENT_AFTER_SECONDS": "60",  # nobody is lost because the machine is busy
                "ST_LEASE_TTL_SECONDS": "120",
                "ST_LOG_FORMAT": "json",
                **(environment or {}),
            },
        )
        self.data = folder / "controller"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        return [
            str(BIN / "st-controller"),
            *("serve", "--data", str(self.data), "--port", str(self.port)),
        ]

    def start(self) -> None:
        super().start()
        wait_for("the controller", self._is_ready)

    def _is_ready(self) -> bool:
        assert self.process
        assert self.process.poll() is None, self.log
        file = self.data / "controller.json"
        return file.exists() and json.loads(file.read_bytes())["pid"] == self.process.pid

    def valkey(self) -> psutil.Process:
        assert self.process
        [found] = psutil.Process(self.process.pid).children()
        return found


class AgentProcess(Daemon):
    """``st-worker join`` on one state folder, however often it is started."""

    def __init__(self, folder: Path, url: str, name: str, token: str, slots: int = 1) -> None:
        super().__init__(folder / f"{name}.log", {"OMP_NUM_THREADS": "1", "ST_JOIN_TOKEN": token})
        self.state = folder / name
        self.name = name
        self._url, self._slots = url, slots
        self._environment["ST_WORKER_MIN_FREE_GB"] = "0"  # the disks of tests may be small

    def command(self) -> list[str]:
        options = ["--name", self.name, "--state-dir", str(self.state), "--keep-runs"]
        options += ["--slots", str(self._slots)]
        return [str(BIN / "st-worker"), "join", self._url, *options, "--log-format", "json"]

    def journals(self) -> list[list[dict[str, object]]]:
        """The journal of every attempt that this worker made, first to last."""
        files = sorted(self.state.glob("attempts/*/run/journal.ndjson"))
        return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]

    def trainers(self) -> list[psutil.Process]:
        """Processes that work in this worker's folder, the agent left out."""
        return [
            process
            for process in psutil.process_iter()
            if self._is_ours(process) and (not self.process or process.pid != self.process.pid)
        ]

    def hold_trainers(self, kind: str) -> list[psutil.Process]:
        """Let them stand still as soon as their newest journal has an event of this kind.

        However little time a test gets, what it wants to see is not over then.
        """
        seen = f'"kind":"{kind}"'

        def has_come() -> bool:
            journals = sorted(self.state.glob("attempts/*/run/journal.ndjson"))
            return bool(journals) and seen in journals[-1].read_text()

        wait_for(f"a {kind} in the journal", has_come)
        held = self.trainers()
        for process in held:
            process.suspend()
        return held

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.status() != psutil.STATUS_ZOMBIE and any(
                str(self.state / "attempts") in part for part in process.cmdline()
            )
        except psutil.NoSuchProcess:
            return False


class Fleet:
    """A controller with its first admin, and workers that join it."""

    def __init__(self, folder: Path, environment: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.controller = ControllerProcess(folder, environment)
        self.controller.start()
        token = (self.controller.data / "setup-token").read_text().strip()
        with Client(self.controller.url) as nobody:
            self.key = nobody.set_up(token, "admin", "correct horse battery").key
        self.client = Client(self.controller.url, self.key)
        self.agents: list[AgentProcess] = []

    def add_agent(self, name: str = "worker-1", slots: int = 1) -> AgentProcess:
        token = self.client.create_join_token().token
        agent = AgentProcess(self.folder, self.controller.url, name, token, slots)
        agent.start()
        self.agents.append(agent)
        wait_for("the worker", lambda: self._is_online(name))
        return agent

    def _is_online(self, name: str) -> bool:
        return any(each.name == name and each.state == "online" for each in self.client.workers())

    def clear(self) -> None:
        """Take away what a test left: jobs, workers, shares, rules; the controller runs after it.

        For tests that share a fleet, none of which may see what another put there.
        """
        self._end_agents()
        process = self.controller.process
        assert process
        if process.poll() is not None:
            self.controller.start()
        for job in list(self.client.jobs()):
            if not job.state.is_final:
                self.client.cancel(job.id)
        for worker in list(self.client.workers()):
            self.client.delete_worker(worker.id, force=True)
        for tenant in self.client.queue().tenants:
            with suppress(MissingError):  # none was set
                self.client.remove_share(tenant.path or "all")
        self.client.set_queue_policy({})

    def close(self) -> None:
        self.client.close()
        self._end_agents()
        if self.controller.process and self.controller.process.poll() is None:
            self.controller.kill()

    def _end_agents(self) -> None:
        for agent in self.agents:
            for process in agent.trainers():
                process.kill()
            if agent.process and agent.process.poll() is None:
                agent.kill()
        self.agents.clear()


def tiny_job(steps: int, **changes: object) -> dict[str, object]:
    """A job that trains the smallest model on the dataset ``shades``."""
    training: dict[str, object] = {
        "model": {
            "family": "pixel_dit",
            "config": {"image_size": 4, "width": 16, "depth": 1, "heads": 2},
        },
        "datasets": [{"name": "shades"}],
        "steps": steps,
        "batch_size": 4,
        "log_every": 5,
        "checkpoint": {"every": 50},
        "validation": {"prompts": ["shade 1"], "every": 200, "sampler_steps": 2},
    }
    return {"name": "shades", "training": training, **changes}
