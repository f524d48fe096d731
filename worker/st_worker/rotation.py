"""How a worker changes its credential; killed between any two steps, it holds one in force.

1. The controller hands out a new one; the old one stays in force until the new one is used.
2. Both are written to the state folder, in one step.
3. The new one is shown. Once a call with it was taken, the old one is void, and
4. the new one alone is written.

Files are written in a thread: nothing beside heartbeats waits for a disk. One at a time calls this.
"""

import asyncio

import structlog

from st_worker.client import Controller
from st_worker.credential import Credential
from st_worker.errors import FULL_DISK, RequestRefused, TemporaryTrouble
from st_worker.folder import StateFolder

log = structlog.get_logger(__name__)


async def look_after(controller: Controller, folder: StateFolder, *, rotate: bool) -> None:
    """End a change that is not over, and begin one where that is ordered."""
    await settle(controller, folder)
    if rotate:
        await fetch_and_keep(controller, folder)


async def fetch_and_keep(controller: Controller, folder: StateFolder) -> None:
    """Steps 1 to 3; what fails is ordered again with the next heartbeat."""
    known = await asyncio.to_thread(Credential.load, folder)
    if known is None or known.previous is not None:
        return  # an earlier change is not over yet
    try:
        fresh = await controller.new_credential()
    except (TemporaryTrouble, RequestRefused) as trouble:
        log.warning("credential.kept", why=str(trouble))
        return
    both = known.model_copy(update={"secret": fresh, "previous": known.secret})
    if not await asyncio.to_thread(_is_kept, both, folder):
        return  # never shown, so the one before it stays in force
    controller.secrets.set(fresh, known.secret)
    log.info("credential.changed")


async def settle(controller: Controller, folder: StateFolder) -> None:
    """Step 4, where it is due: keep the credential that a call was taken with, and no other.

    On a full disk both stay, either of which an agent may begin with; it is tried again.
    """
    secrets = controller.secrets
    known = await asyncio.to_thread(Credential.load, folder)
    if known is None or known.previous is None or secrets.previous is not None:
        return
    alone = known.model_copy(update={"secret": secrets.current, "previous": None})
    await asyncio.to_thread(_is_kept, alone, folder)


def _is_kept(credential: Credential, folder: StateFolder) -> bool:
    """Write it down; whether the disk had room. What was there stays whole where it had not."""
    try:
        credential.save(folder)
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        log.warning("credential.not_kept", why=str(error))
        return False
    return True
