"""One run of the demo: its folders, its steps, and the commands that it calls."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from demo_processes import Child, DemoError, remember

from st_client import Client
from st_client.credentials import Credentials

EXAMPLES = Path(__file__).resolve().parent
COMMANDS = Path(sys.executable).parent
"""Where the venv keeps its commands; the interpreter itself may be a link to elsewhere."""

STEPS_IN_ALL = 9


@dataclass
class Demo:
    """One run: where its files lie, what it has started, what it found."""

    data: Path
    steps: int | None
    began: float = field(default_factory=time.monotonic)
    children: list[Child] = field(default_factory=list)
    url: str = ""
    job_id: str = ""
    summary: list[tuple[str, str]] = field(default_factory=list)
    _number: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def controller(self) -> Path:
        """Data of the controller."""
        return self.data / "controller"

    @property
    def password_file(self) -> Path:
        """Holds the admin's password."""
        return self.data / "admin-password"

    @property
    def results(self) -> Path:
        """Files of this run's job."""
        return self.data / "results" / self.job_id

    @property
    def environment(self) -> dict[str, str]:
        """Variables of every command: keys of the demo's own, none of the person's."""
        mine = {k: v for k, v in os.environ.items() if k not in {"ST_URL", "ST_API_KEY"}}
        return mine | {"ST_CONFIG_HOME": str(self.data / "client")}

    @property
    def processes(self) -> Path:
        """Says what runs in this folder."""
        return self.data / "processes.json"

    def start(self, name: str, command: list[str | Path], log: Path) -> Child:
        """Start a background process that ends with the demo."""
        child = Child(name, command, log, self.environment)
        self.children.append(child)
        remember(self.processes, self.children)
        return child

    def step(self, title: str) -> None:
        """Announce the next step."""
        spent = time.monotonic() - self.began
        print(f"\n[{next(self._number)}/{STEPS_IN_ALL}] {title}  ({spent:.0f} s)", flush=True)

    def client(self) -> Client:
        """A client signed in as the admin."""
        credential = Credentials(self.environment).current()
        return Client(self.url, credential.api_key)


def st(demo: Demo, *arguments: str | Path, stdin: str | None = None) -> None:
    """Run ``st``; ``DemoError`` when it fails."""
    run(demo, COMMANDS / "st", *arguments, stdin=stdin)


def run(demo: Demo, *command: str | Path, stdin: str | None = None) -> None:
    """Run a command in this terminal; ``DemoError`` when it fails."""
    sys.stdout.flush()
    done = subprocess.run(command, env=demo.environment, input=stdin, text=True, check=False)
    if done.returncode == 130:
        raise KeyboardInterrupt
    if done.returncode:
        name = " ".join([Path(command[0]).name, *map(str, command[1:3])])
        raise DemoError(f"`{name} ...` failed with code {done.returncode}")
