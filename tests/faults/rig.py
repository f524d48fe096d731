"""A controller and two workers behind proxies, with everything that can be broken."""

import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil
from fleet import PATIENCE, ControllerProcess, wait_for
from shades import make_shades

from faults.agents import FaultyAgent
from faults.disks import Disk, keep, may_mount
from faults.orders import Orders
from faults.plan import LEASE, ORDERS
from st_client import Client

SETTINGS = {
    "ST_HEARTBEAT_SECONDS": "0.4",
    "ST_SILENT_AFTER_SECONDS": "1.5",
    "ST_LEASE_TTL_SECONDS": str(LEASE),
    "ST_OFFER_TTL_SECONDS": "3",
    "ST_ALLOW_COMMAND_JOBS": "1",
}


class Rig:
    """One controller with its Valkey, two workers, one person."""

    def __init__(
        self,
        folder: Path,
        environment: dict[str, str],
        *,
        trainer: str = "scripted",
        slots: int = 2,
        pace: float = 0.02,
    ) -> None:
        folder.mkdir(parents=True)
        self.folder, self.trainer, self._slots = folder, trainer, slots
        self.undisturbed: str | None = None
        """A real training to compare others with, once it is done."""
        self.ledger = folder / "ledger"
        self.disk = Disk(folder / "controller", 400) if may_mount() else None
        self.controller = ControllerProcess(folder, {**SETTINGS, **environment})
        self.controller.start()
        token = (self.controller.data / "setup-token").read_text().strip()
        with Client(self.controller.url) as nobody:
            self.key = nobody.set_up(token, "admin", "correct horse battery").key
        self.client = Client(self.controller.url, self.key)
        extra = {
            "FAULTS_LEDGER": str(self.ledger),
            "FAULTS_TRAINER": trainer,
            "FAULTS_PACE": str(pace),
        }
        self.agents = [self._join(name, extra, slots) for name in ("worker-1", "worker-2")]
        wait_for("the workers", self.are_online)
        self.client.push_dataset("shades", make_shades(folder / "shades"))
        self.orders = self.no_orders()

    def _join(self, name: str, extra: dict[str, str], slots: int) -> FaultyAgent:
        token, port = self.client.create_join_token().token, self.controller.port
        made = FaultyAgent(self.folder, port, name, token, extra, slots=slots)
        made.start()
        return made

    def are_online(self) -> bool:
        return [each.state for each in self.client.workers()] == ["online"] * len(self.agents)

    def no_orders(self) -> Orders:
        """Of a run that begins now."""
        self.orders = Orders(self.client, self._slots)
        return self.orders

    def break_(self, target: str, how: str, victim: FaultyAgent) -> None:
        """Let something break; ``mend`` undoes all of it."""
        number = signal.SIGKILL if how == "kill" else signal.SIGSTOP
        if target in ORDERS:
            self.orders.give(how, victim.name)
        elif target == "controller":
            self.controller.process.send_signal(number)
            if how == "kill":  # so that whoever mends it does not take it to be alive
                self.controller.process.wait(PATIENCE)
        elif target == "valkey":
            with suppress(ValueError, psutil.NoSuchProcess):  # just being started again
                self.controller.valkey().send_signal(number)
        elif target == "controller disk":
            if self.disk:
                self.disk.fill()
        else:
            victim.break_(target, how)

    def mend(self) -> None:
        """Everything runs again, and everything gets through."""
        if self.disk:
            self.disk.free()
        if self.controller.process.poll() is not None:
            self.controller.start()
        else:
            self.controller.process.send_signal(signal.SIGCONT)
        with suppress(ValueError, psutil.NoSuchProcess):
            self.controller.valkey().send_signal(signal.SIGCONT)
        for agent in self.agents:
            agent.mend()

    def ended(self) -> list[str]:
        """What does not run although nobody breaks anything any more."""
        parts = [("controller", self.controller), *((each.name, each) for each in self.agents)]
        return [name for name, each in parts if each.process.poll() is not None]

    def revive(self) -> None:
        """What has ended of itself is started again, as an init system would."""
        for each in [*self.agents, self.controller]:
            if each.process.poll() is not None:
                each.start()

    def _ask_where_they_are(self) -> None:
        """Let each agent write into its log what its threads are doing."""
        for agent in self.agents:
            if agent.alive():
                agent.process.send_signal(signal.SIGUSR1)
        time.sleep(0.5)

    def close(self, *, keeps: bool) -> None:
        self.client.close()
        if keeps:
            self._ask_where_they_are()
        for agent in self.agents:
            agent.close(keeps=keeps)
        if self.controller.process.poll() is None:
            self.controller.process.send_signal(signal.SIGCONT)
            self.controller.stop()
        if self.disk and keeps:
            keep(self.disk.folder)
        if self.disk:
            self.disk.close()
        if not keeps:
            shutil.rmtree(self.folder)
