"""What an attempt runs as a process: the trainer, or the script of a command job."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from st_shared.protocol.worker import ClaimReply
from st_worker.folder import AttemptFolder
from st_worker.journal import Journal
from st_worker.meeting import Rendezvous, network_environment
from st_worker.notes import Notes
from st_worker.occupancy import ATTEMPT_VARIABLE
from st_worker.outcome import ending_of, ending_of_script
from st_worker.prepare import Preparation, prepare_script
from st_worker.record import Ending, JobKind, StopCause
from st_worker.settings import SCRIPT_COMMAND
from st_worker.slot_environment import script_environment, trainer_environment
from st_worker.trainer import TrainerExit
from st_worker.workplace import Workplace

_SAID_BYTES = 8192
_SAID_LINES = 20


@dataclass(frozen=True)
class Launch:
    """All that a process is started with."""

    command: Sequence[str]
    environment: Mapping[str, str]


class Program(Protocol):
    """One kind of process."""

    name: str
    """As sentences call it, such as ``the trainer``."""

    async def prepare(self, claim: ClaimReply) -> Launch:
        """Put all that it needs in place, or raise ``TransferError``."""

    def joined(self, launch: Launch, where: Rendezvous) -> Launch:
        """``launch`` as one member of a gang."""

    def ending(self, ended: TrainerExit, stop: StopCause | None) -> Ending:
        """What its exit means, after an order to stop or without one."""


def program_of(
    kind: JobKind, place: Workplace, folder: AttemptFolder, notes: Notes, *, in_gang: bool
) -> Program:
    """The program of a job of this kind."""
    if kind == "command":
        return Script(place, folder)
    return Trainer(place, folder, notes, in_gang=in_gang)


class Trainer:
    """``st-train run``, which knows checkpoints and tells by its exit code what went wrong."""

    name = "the trainer"

    def __init__(
        self, place: Workplace, folder: AttemptFolder, notes: Notes, *, in_gang: bool
    ) -> None:
        self._place, self._folder, self._in_gang = place, folder, in_gang
        self._notes = notes
        self._preparation = Preparation(
            folder,
            notes,
            place.cache,
            place.transfer,
            place.controller,
            place.settings.renewed_url_seconds,
        )

    async def prepare(self, claim: ClaimReply) -> Launch:
        """Fetch datasets and checkpoint, and write the job file."""
        place = self._place
        arguments = await self._preparation.run(claim)
        base = await asyncio.to_thread(place.models.given, place.environment, claim.org)
        environment = trainer_environment(base, place.inventory, claim.slots)
        processes = len(claim.slots)
        if processes > 1 or self._in_gang:
            arguments = ["launch", "--processes", str(processes), *arguments]
            if "OMP_NUM_THREADS" not in place.environment:
                threads = max(1, place.inventory.cpus // len(place.inventory.slots))
                environment["OMP_NUM_THREADS"] = str(threads)
        environment[ATTEMPT_VARIABLE] = claim.attempt_id
        environment |= await asyncio.to_thread(self._kept, claim.org)
        return Launch([*place.settings.trainer_command, *arguments], environment)

    def _kept(self, org: str) -> dict[str, str]:
        """What tells the trainer where jobs of its organisation keep what they may find again."""
        cache = self._place.trainer_cache
        try:
            cache.trim()
            return cache.environment(org, self._place.environment)
        except OSError as error:
            self._notes.log(f"this job finds nothing that earlier ones kept: {error}", "warning")
            return {}

    def joined(self, launch: Launch, where: Rendezvous) -> Launch:
        """The launcher is told of the other hosts."""
        place = self._place
        told = ["--nodes", str(where.nodes), "--node-rank", str(where.node)]
        told += ["--rendezvous", where.address]
        after = len(place.settings.trainer_command) + 1  # behind "launch"
        command = [*launch.command[:after], *told, *launch.command[after:]]
        network = network_environment(place.controller.url, place.environment)
        return Launch(command, {**launch.environment, **network})

    def ending(self, ended: TrainerExit, stop: StopCause | None) -> Ending:
        """With the trainer's last error, and the end of what else it printed."""
        error = Journal(self._folder.journal).last_error()
        printed = _end_of(self._folder)
        lines = [line for line in printed if line.removeprefix("st-train: ") != error]
        said = "\n".join([error, *lines] if error else lines)
        return ending_of(ended, stop, said, in_gang=self._in_gang)


class Script:
    """A shell script; what it prints goes to the journal."""

    name = "the script"

    def __init__(self, place: Workplace, folder: AttemptFolder) -> None:
        self._place, self._folder = place, folder

    async def prepare(self, claim: ClaimReply) -> Launch:
        """Write the script and make its folder."""
        place, folder = self._place, self._folder
        await asyncio.to_thread(prepare_script, folder, claim.spec["command"]["run"])
        told = {
            "ST_JOB_ID": claim.job_id,
            ATTEMPT_VARIABLE: claim.attempt_id,
            "ST_ATTEMPT": str(claim.number),
            "ST_RUN_DIR": str(folder.work),
        }
        base = await asyncio.to_thread(place.models.given, place.environment, claim.org)
        allowed = script_environment(base, place.inventory, claim.slots)
        return Launch([*SCRIPT_COMMAND, str(folder.run)], {**allowed, **told})

    def joined(self, launch: Launch, where: Rendezvous) -> Launch:
        """The script is told where the others are; what it does with that is its own."""
        told = {
            "ST_NODES": str(where.nodes),
            "ST_NODE_RANK": str(where.node),
            "ST_RENDEZVOUS": where.address,
        }
        return Launch(launch.command, {**launch.environment, **told})

    def ending(self, ended: TrainerExit, stop: StopCause | None) -> Ending:
        """With the last lines that the script printed."""
        said = Journal(self._folder.journal).last_messages(_SAID_LINES)
        return ending_of_script(ended, stop, "\n".join([*said, *_end_of(self._folder)]))


def _end_of(folder: AttemptFolder) -> list[str]:
    """The last lines of a program's standard output and error."""
    with folder.output.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _SAID_BYTES))
        return file.read().decode("utf-8", "replace").strip().splitlines()
