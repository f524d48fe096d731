"""How a join token, or the credential it was exchanged for, becomes a registration."""

import structlog

from st_shared.protocol.worker import RegisterReply, RegisterRequest
from st_worker.client import Controller
from st_worker.credential import Credential
from st_worker.errors import Refused, UsageError, WorkerError
from st_worker.folder import StateFolder
from st_worker.rotation import settle

log = structlog.get_logger(__name__)


async def join(
    controller: Controller, folder: StateFolder, request: RegisterRequest, token: str | None
) -> RegisterReply:
    """Register with the kept credential, or with ``token`` when there is none that is in force.

    Raises:
        UsageError: there is neither.
        Refused: the controller takes neither.
        StrangeAnswer: what answers a join token is no controller.
    """
    known = Credential.load(folder)
    if known and known.controller == controller.url:
        try:
            controller.secrets.set(known.secret, known.previous)
            reply = await controller.register(request)
        except Refused as error:
            if token is None:
                raise
            log.warning("credential.void", why=str(error))
        else:
            await settle(controller, folder)
            return reply
    elif known and token is None:
        raise UsageError(
            f"{folder.root} belongs to a worker of {known.controller}: give a join token to leave "
            "it, or another --state-dir"
        )
    if token is None:
        raise UsageError(
            "no join token: give --token, --token-file or ST_JOIN_TOKEN; "
            "an operator makes one with `st join-token create`"
        )
    return await _exchange(controller, folder, request, token)


async def _exchange(
    controller: Controller, folder: StateFolder, request: RegisterRequest, token: str
) -> RegisterReply:
    """Register as a new worker and keep its credential before anything else happens."""
    controller.secrets.set(token)
    reply = await controller.register(request, is_first=True)
    if reply.credential is None:
        raise WorkerError("the controller took the join token but gave no credential")
    Credential(
        controller=controller.url,
        worker_id=reply.worker_id,
        name=request.name,
        secret=reply.credential,
    ).save(folder)
    controller.secrets.set(reply.credential)
    return reply
