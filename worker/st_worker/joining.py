"""How a join token, or the credential it was exchanged for, becomes a registration."""

import secrets

import structlog

from st_shared.durable import write_durably
from st_shared.protocol.worker import RegisterReply, RegisterRequest
from st_worker.client import Controller
from st_worker.credential import Credential
from st_worker.errors import Refused, UsageError, WorkerError
from st_worker.folder import StateFolder
from st_worker.rotation import settle

log = structlog.get_logger(__name__)

_KEY_CHARACTERS = 32


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
    """Register as a new worker and keep its credential before anything else happens.

    Whatever dies in between, the token loses one use: the next try shows the same key.
    """
    controller.secrets.set(token)
    named = request.model_copy(update={"join_key": _key(folder)})
    reply = await controller.register(named, is_first=True)
    if reply.credential is None:
        raise WorkerError("the controller took the join token but gave no credential")
    Credential(
        controller=controller.url,
        worker_id=reply.worker_id,
        name=request.name,
        secret=reply.credential,
    ).save(folder)
    folder.join_key.unlink(missing_ok=True)
    controller.secrets.set(reply.credential)
    return reply


def _key(folder: StateFolder) -> str:
    """What names this way to join, also to an agent that tries it again."""
    try:
        known = folder.join_key.read_text("ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        known = ""
    if len(known) == _KEY_CHARACTERS:
        return known
    key = secrets.token_hex(_KEY_CHARACTERS // 2)
    write_durably(folder.join_key, key)
    return key
