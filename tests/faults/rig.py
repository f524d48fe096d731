"""A controller and two workers behind proxies, with everything that can be broken."""

import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
from fleet import AgentProcess, ControllerProcess, wait_for
from shades import make_shades

from faults.disks import Disk, may_mount
from faults.plan import LEASE
from faults.proxy import Proxy
from st_client import Client

HERE = Path(__file__).parent
SETTINGS = {
    "ST_HEARTBEAT_SECONDS": "0.4",
    "ST_SILENT_AFTER_SECONDS": "1.5",
    "ST_LEASE_TTL_SECONDS": str(LEASE),
    "ST_OFFER_TTL_SECONDS": "3",
    "ST_ALLOW_COMMAND_JOBS": "1",
}
SLOTS = 2


class FaultyAgent(AgentProcess):
    """An agent behind a proxy of its own, on a disk of its own where that can be."""

    def __init__(self, folder: Path, port: int, name: str, token: str, extra: dict[str, str]):
        self.proxy = Proxy(port)
        super().__init__(folder, self.proxy.url, name, token, SLOTS)
        self._environment |= extra
        self.disk = Disk(self.state, 48) if may_mount() else None

    def command(self) -> list[str]:
        options = super().command()
        return [sys.executable, str(HERE / "launch_agent.py"), *options[1:]]

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stopped(self, processes: list[psutil.Process], number: int) -> None:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)


class Rig:
    """One controller with its Valkey, two workers, one person."""

    def __init__(self, folder: Path, environment: dict[str, str], *, trainer: str = "scripted"):
        folder.mkdir(parents=True)
        self.folder = folder
        self.ledger = folder / "ledger"
        self.disk = Disk(folder / "controller", 400) if may_mount() else None
        self.controller = ControllerProcess(folder, {**SETTINGS, **environment})
        self.agents: list[FaultyAgent] = []
        self.controller.start()
        token = (self.controller.data / "setup-token").read_text().strip()
        with Client(self.controller.url) as nobody:
            self.key = nobody.set_up(token, "admin", "correct horse battery").key
        self.client = Client(self.controller.url, self.key)
        extra = {"FAULTS_LEDGER": str(self.ledger), "FAULTS_TRAINER": trainer}
        for name in ("worker-1", "worker-2"):
            made = FaultyAgent(
                folder,
                self.controller.port,
                name,
                self.client.create_join_token().token,
                extra,
            )
            made.start()
            self.agents.append(made)
        wait_for("the workers", self.are_online)
        self.client.push_dataset("shades", make_shades(folder / "shades"))

    def are_online(self) -> bool:
        return [each.state for each in self.client.workers()] == ["online"] * len(self.agents)

    def break_(self, target: str, how: str, victim: FaultyAgent) -> None:
        """Let something break; ``mend`` undoes all of it."""
        if target == "trainer":
            self._hurt_trainer(how, victim)
        elif target in {"agent", "host"}:
            doomed = victim.trainers() if target == "host" else []
            if victim.alive():
                doomed.append(psutil.Process(victim.process.pid))
            victim.stopped(doomed, signal.SIGKILL if how == "kill" else signal.SIGSTOP)
        elif target == "controller":
            number = signal.SIGKILL if how == "kill" else signal.SIGSTOP
            self.controller.process.send_signal(number)
        elif target == "valkey":
            with suppress(ValueError, psutil.NoSuchProcess):  # just being started again
                valkey = self.controller.valkey()
                valkey.send_signal(signal.SIGKILL if how == "kill" else signal.SIGSTOP)
        elif target == "network":
            victim.proxy.turn(how)
        elif target == "worker disk" and victim.disk:
            victim.disk.fill()
        elif target == "controller disk" and self.disk:
            self.disk.fill()

    def _hurt_trainer(self, how: str, victim: FaultyAgent) -> None:
        all_ = victim.trainers()
        supervisors = [each for each in all_ if _is_supervisor(each)]
        chosen = {
            "kill": [each for each in all_ if each not in supervisors],
            "kill_supervisor": supervisors,
            "kill_all": all_,
            "stop": all_,
        }[how]
        victim.stopped(chosen, signal.SIGSTOP if how == "stop" else signal.SIGKILL)

    def mend(self) -> None:
        """Everything runs again, and everything gets through."""
        for agent in self.agents:
            agent.proxy.turn("open")
            if agent.disk:
                agent.disk.free()
        if self.disk:
            self.disk.free()
        if self.controller.process.poll() is not None:
            self.controller.start()
        else:
            self.controller.process.send_signal(signal.SIGCONT)
        with suppress(ValueError, psutil.NoSuchProcess):
            self.controller.valkey().send_signal(signal.SIGCONT)
        for agent in self.agents:
            agent.stopped(agent.trainers(), signal.SIGCONT)
            if agent.alive():
                agent.process.send_signal(signal.SIGCONT)
            else:
                agent.start()

    def revive(self) -> None:
        """What has ended of itself is started again, as an init system would."""
        for agent in self.agents:
            if not agent.alive():
                agent.start()
        if self.controller.process.poll() is not None:
            self.controller.start()

    def _ask_where_they_are(self) -> None:
        """Let each agent write into its log what its threads are doing."""
        for agent in self.agents:
            if agent.alive():
                agent.process.send_signal(signal.SIGUSR1)
        time.sleep(0.5)

    def close(self, *, keep: bool) -> None:
        self.client.close()
        if keep:
            self._ask_where_they_are()
        for agent in self.agents:
            if agent.alive():
                agent.process.send_signal(signal.SIGCONT)
                agent.kill()
            for process in agent.trainers():
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            agent.proxy.close()
        if self.controller.process.poll() is None:
            self.controller.process.send_signal(signal.SIGCONT)
            self.controller.stop()
        for disk in [self.disk, *(agent.disk for agent in self.agents)]:
            if disk and keep:
                kept = disk.folder.with_name(f"{disk.folder.name}-kept")
                shutil.copytree(disk.folder, kept, ignore=_sockets)
            if disk:
                disk.close()
        if not keep:
            shutil.rmtree(self.folder)


def _sockets(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(folder) / name).is_socket()]


def _is_supervisor(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return "st_worker.supervise" in process.cmdline()
    return False
