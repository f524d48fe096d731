"""Puts an agent together and lets it work: what ``st-worker join`` does once it has its options."""

import asyncio
import os
import sys
from collections.abc import Coroutine
from typing import Any, NoReturn

from pydantic import ValidationError

from st_shared import __version__
from st_shared.protocol.worker import RegisterRequest
from st_worker.accelerators.registry import Found, find_devices
from st_worker.agent import Agent, Departure
from st_worker.client import Controller
from st_worker.errors import UsageError
from st_worker.folder import StateFolder
from st_worker.inventory import take_inventory
from st_worker.occupancy import Judge
from st_worker.room import room_of
from st_worker.sampling import Sampler
from st_worker.settings import AgentSettings
from st_worker.transfer import Transfer


def describe(
    folder: StateFolder,
    name: str,
    slots: int | None,
    labels: dict[str, str],
    ephemeral: bool,
    found: Found | None = None,
    *,
    one_job: bool = False,
) -> RegisterRequest:
    """What the worker says of itself; ``found``: its accelerators, if they were looked for.

    Raises:
        UsageError: a value that the protocol does not take, or more GPUs than there are.
    """
    try:
        return RegisterRequest(
            name=name,
            agent_version=__version__,
            inventory=take_inventory(folder.root, found or find_devices(slots)),
            labels=labels,
            ephemeral=ephemeral,
            one_job=one_job,
        )
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in wrong["loc"])
        raise UsageError(f"{field}: {wrong['msg']}; got {wrong['input']!r}") from None


async def serve(
    url: str,
    folder: StateFolder,
    token: str | None,
    description: RegisterRequest,
    settings: AgentSettings,
    found: Found | None = None,
) -> int:
    """Work for the controller at ``url`` until told to leave; the exit code comes back.

    Raises:
        UsageError: another agent runs on ``folder``, or there is neither credential nor token.
        Refused: the controller takes neither.
    """
    with folder.lock():
        controller, transfer = Controller(url, settings), Transfer(url, settings)
        sampler = sampler_of(found, description, folder, settings) if found else None
        agent = Agent(folder, controller, transfer, description, settings, sampler=sampler)
        agent.leave_on_signals()
        try:
            return (await agent.run(token)).exit_code
        finally:
            await controller.close()
            await transfer.close()


_OTHERS_GO_ON = {each.exit_code for each in (Departure.HANDOVER, Departure.FAULT)}


def end_with(work: Coroutine[Any, Any, int]) -> NoReturn:
    """End this process with the exit code that ``work`` (``serve``) gives.

    Where another agent goes on, at once: a thread that reads a checkpoint or unpacks a dataset
    would keep this process, and so its successor, waiting until leases run out. What it was about
    is begun anew there, as after a kill -9.
    """

    async def run() -> int:
        code = await work
        if code in _OTHERS_GO_ON:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        return code

    sys.exit(asyncio.run(run()))


def sampler_of(
    found: Found, description: RegisterRequest, folder: StateFolder, settings: AgentSettings
) -> Sampler:
    """What measures the slots of ``description``."""
    judge = Judge(settings.foreign_memory_gb)
    slots = description.inventory.slots
    room = room_of(folder, settings)
    return Sampler(found.probe, slots, folder.root, judge, room=room, warnings=found.warnings)
