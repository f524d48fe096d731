"""An agent that can be broken: its process, its whole host, its trainer, its network, its disk."""

import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path

import psutil
from fleet import PATIENCE, AgentProcess

from faults.disks import Disk, keep, may_mount
from faults.proxy import Proxy

LAUNCHER = Path(__file__).with_name("launch_agent.py")
DISK_MEGABYTES = 48


class FaultyAgent(AgentProcess):
    """An agent behind a proxy of its own, on a disk of its own where that can be."""

    def __init__(
        self,
        folder: Path,
        port: int,
        name: str,
        token: str,
        extra: dict[str, str],
        *,
        slots: int = 2,
    ):
        self.proxy = Proxy(port)
        super().__init__(folder, self.proxy.url, name, token, slots)
        self._environment |= {"ST_WORKER_MIN_FREE_GB": "0.002", **extra}
        self.disk = Disk(self.state, DISK_MEGABYTES) if may_mount() else None

    def command(self) -> list[str]:
        return [sys.executable, str(LAUNCHER), *super().command()[1:]]

    def renamed(self, version: str) -> None:
        """Call itself another version from its next start on, as after an upgrade."""
        self._environment["FAULTS_VERSION"] = version

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def break_(self, target: str, how: str) -> None:
        """Let something of this worker break; ``mend`` undoes all of it."""
        if target == "trainer":
            self._hurt_trainer(how)
        elif target in {"agent", "host"}:
            doomed = self.trainers() if target == "host" else []
            if self.alive():
                doomed.append(psutil.Process(self.process.pid))
            _signal(doomed, signal.SIGKILL if how == "kill" else signal.SIGSTOP)
            if how == "kill":  # so that whoever mends it does not take it to be alive
                self.process.wait(PATIENCE)
        elif target == "network":
            self.proxy.turn(how)
        elif target == "worker disk" and self.disk:
            self.disk.fill()

    def _hurt_trainer(self, how: str) -> None:
        all_ = self.trainers()
        supervisors = [each for each in all_ if _is_supervisor(each)]
        chosen = {
            "kill": [each for each in all_ if each not in supervisors],
            "kill_supervisor": supervisors,
            "kill_all": all_,
            "stop": all_,
        }[how]
        _signal(chosen, signal.SIGSTOP if how == "stop" else signal.SIGKILL)

    def mend(self) -> None:
        """It runs again, and everything gets through."""
        self.proxy.turn("open")
        if self.disk:
            self.disk.free()
        _signal(self.trainers(), signal.SIGCONT)
        if self.alive():
            self.process.send_signal(signal.SIGCONT)
        else:
            self.start()

    def forget_runs(self) -> None:
        """Remove what attempts that are over have left, which would fill the disk in some dozen."""
        for folder in self.state.glob("attempts/*"):
            if not (folder / "attempt.json").exists():
                shutil.rmtree(folder)

    def close(self, *, keeps: bool) -> None:
        """End everything of it; what it wrote stays where it is to be kept."""
        if self.alive():
            self.process.send_signal(signal.SIGCONT)
            self.kill()
        _signal(self.trainers(), signal.SIGKILL)
        self.proxy.close()
        if self.disk and keeps:
            keep(self.disk.folder)
        if self.disk:
            self.disk.close()


def _signal(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _is_supervisor(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return "st_worker.supervise" in process.cmdline()
    return False
