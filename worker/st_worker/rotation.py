"""How a worker changes its credential; killed between any two steps, it holds one in force.

1. The controller hands out a new one; the old one stays in force until the new one is used.
2. Both are written to the state folder, in one step.
3. The new one is shown. Once a call with it was taken, the old one is void, and
4. the new one alone is written.
"""

import structlog

from st_worker.client import Controller
from st_worker.credential import Credential
from st_worker.errors import RequestRefused, TemporaryTrouble
from st_worker.folder import StateFolder

log = structlog.get_logger(__name__)


async def fetch_and_keep(controller: Controller, folder: StateFolder) -> None:
    """Steps 1 to 3; what fails is ordered again with the next heartbeat."""
    known = Credential.load(folder)
    if known is None or known.previous is not None:
        return  # an earlier change is not over yet
    try:
        fresh = await controller.new_credential()
    except (TemporaryTrouble, RequestRefused) as trouble:
        log.warning("credential.kept", why=str(trouble))
        return
    known.model_copy(update={"secret": fresh, "previous": known.secret}).save(folder)
    controller.secrets.set(fresh, known.secret)
    log.info("credential.changed")


def settle(controller: Controller, folder: StateFolder) -> None:
    """Step 4, where it is due: keep the credential that a call was taken with, and no other."""
    secrets = controller.secrets
    known = Credential.load(folder)
    if known is None or known.previous is None or secrets.previous is not None:
        return
    known.model_copy(update={"secret": secrets.current, "previous": None}).save(folder)
