"""A drain that somebody asks for on the host, beside the agent that runs there."""

import asyncio
from collections.abc import Callable

from st_shared.protocol.worker import DrainWish
from st_worker.client import Controller
from st_worker.credential import Credential
from st_worker.errors import UsageError
from st_worker.folder import StateFolder
from st_worker.settings import AgentSettings

_LOOK_SECONDS = 0.5


async def drain(
    folder: StateFolder, wish: DrainWish, settings: AgentSettings | None = None
) -> Credential:
    """Ask the controller to offer the worker of ``folder`` nothing new; who that is comes back.

    Raises:
        UsageError: no worker has joined from here.
        TemporaryTrouble: the controller does not answer.
        Refused: it does not know this worker any more.
    """
    known = Credential.load(folder)
    if known is None:
        raise UsageError(f"{folder.root}: no worker has joined from here; is it the --state-dir?")
    controller = Controller(known.controller, settings or AgentSettings())
    try:
        controller.secrets.set(known.secret, known.previous)
        await controller.drain(wish)
    finally:
        await controller.close()
    return known


async def until_idle(
    folder: StateFolder, say: Callable[[int], None], seconds: float = _LOOK_SECONDS
) -> None:
    """Return once nothing of ``folder`` is claimed, running or being stored.

    ``say`` is told how many attempts are left, whenever that changes; it looks every ``seconds``.
    """
    told, has_been_idle = None, False
    while True:
        left = len(folder.known_attempts())
        if left != told:
            say(left)
            told = left
        if not left and has_been_idle:  # what was claimed just before the drain is written by now
            return
        has_been_idle = not left
        await asyncio.sleep(seconds)
