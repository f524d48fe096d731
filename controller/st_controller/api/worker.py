"""``/v1/worker``: what workers call; see ``st_shared.protocol.endpoints``."""

from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any, TypeVar

import structlog
from fastapi import APIRouter, Header, Response
from fastapi.responses import JSONResponse

from st_controller.api import worker_calls
from st_controller.api.artifact_parts import part_tickets
from st_controller.api.dependencies import PlatformDep, Registrar, WorkerDep, join_token
from st_controller.api.submissions import encoded
from st_controller.api.worker_streams import LONGEST_ID, WorkerStreamResponse
from st_controller.auth import secrets
from st_controller.auth.secrets import SecretKind
from st_controller.errors import InvalidRequest
from st_controller.platform import Platform
from st_controller.services import (
    artifact_uploads,
    artifacts,
    gangs,
    joining,
    leases,
    stored_secrets,
    worker_credentials,
    worker_orders,
    workers,
)
from st_controller.store.schema import Worker
from st_shared.protocol import endpoints
from st_shared.protocol.endpoints import Endpoint
from st_shared.protocol.states import WorkerDesired
from st_shared.protocol.worker import (
    PROTOCOL_VERSION,
    ArtifactOffer,
    ArtifactsStored,
    ArtifactTickets,
    ClaimBatch,
    CredentialReply,
    DrainWish,
    EventBatch,
    FinishBatch,
    FinishRequest,
    GarbageReport,
    Heartbeat,
    Meeting,
    MeetingPlace,
    PartsWanted,
    PartTickets,
    RegisterReply,
    RegisterRequest,
    SecretsReply,
    SecretsWanted,
)

router = APIRouter(prefix=endpoints.PREFIX, tags=["worker"])
log = structlog.get_logger(__name__)

Route = TypeVar("Route", bound=Callable[..., Any])


def serves(endpoint: Endpoint[Any]) -> Callable[[Route], Route]:
    """Make a function the route of one endpoint of the contract."""
    return router.api_route(
        endpoint.path,
        methods=[endpoint.method],
        status_code=endpoint.status,
        response_model=endpoint.answer,
        response_class=WorkerStreamResponse if endpoint.is_stream else JSONResponse,
    )


@serves(endpoints.REGISTER)
def register(
    platform: PlatformDep,
    registrar: Annotated[Registrar, join_token()],
    request: RegisterRequest,
) -> RegisterReply:
    """Join with a token, or come back with a credential."""
    if request.protocol != PROTOCOL_VERSION:
        raise InvalidRequest.of(
            "protocol",
            f"this controller speaks protocol {PROTOCOL_VERSION}, the worker {request.protocol}",
            code="protocol_version",
            hint="install the same st-fleet version on both",
        )
    credential = None
    with platform.db.write() as tx:
        if registrar.join_token is not None:
            credential = secrets.new_secret(SecretKind.WORKER)
            digest = secrets.digest(credential)
            worker = joining.join(tx, registrar.join_token, request, digest)
        else:
            assert registrar.worker is not None  # noqa: S101 - one of the two is always given
            worker = workers.get_worker(tx.session, registrar.worker.worker_id, lock=True)
        abandon = workers.register(tx, worker, request, platform.patience)
        reply = _reply(platform, worker, credential, abandon)
    log.info("worker registered", worker=worker.id, name=worker.name, joined=bool(credential))
    return reply


def _reply(
    platform: Platform, worker: Worker, credential: str | None, abandon: list[str]
) -> RegisterReply:
    return RegisterReply(
        worker_id=worker.id,
        credential=credential,
        labels=worker.labels,
        desired=WorkerDesired(worker.desired),
        heartbeat_seconds=platform.patience.heartbeat,
        abandon=abandon,
    )


@serves(endpoints.STREAM)
def stream(
    platform: PlatformDep,
    caller: WorkerDep,
    last_event_id: Annotated[str | None, Header(max_length=LONGEST_ID)] = None,
) -> WorkerStreamResponse:
    """Server-sent events for this worker: ``STREAM_EVENTS`` of the contract."""
    return WorkerStreamResponse(platform, caller, last_event_id)


@serves(endpoints.HEARTBEAT)
async def heartbeat(platform: PlatformDep, caller: WorkerDep, beat: Heartbeat) -> Response:
    """Alive; renews the leases that are named. Nearly all are answered by ``worker_front``."""
    reply = await platform.heartbeats.take(caller.worker_id, beat, caller.digest)
    return encoded(reply, 200)


@serves(endpoints.CREDENTIAL)
def credential(platform: PlatformDep, caller: WorkerDep) -> CredentialReply:
    """A new credential; the present one is in force until that is used."""
    with platform.db.write() as tx:
        return CredentialReply(credential=worker_credentials.issue(tx, caller.worker_id))


@serves(endpoints.GARBAGE)
def garbage(platform: PlatformDep, caller: WorkerDep, report: GarbageReport) -> Response:
    """It has removed what no attempt needs."""
    with platform.db.write() as tx:
        worker_orders.garbage_collected(tx, caller.worker_id, report)
    return Response(status_code=204)


@serves(endpoints.DRAIN)
def drain(platform: PlatformDep, caller: WorkerDep, wish: DrainWish) -> Response:
    """Somebody on its host wants it to take nothing new, and to finish or stop what it runs."""
    grace = None if wish.grace_seconds is None else timedelta(seconds=wish.grace_seconds)
    with platform.db.write() as tx:
        worker_orders.drain_as_wished(tx, caller.worker_id, grace)
    return Response(status_code=204)


@serves(endpoints.LEAVE)
def leave(platform: PlatformDep, caller: WorkerDep) -> Response:
    """It is gone for good; its credential is void from now on."""
    with platform.db.write() as tx:
        worker_orders.leave(tx, caller.worker_id)
    return Response(status_code=204)


@serves(endpoints.CLAIM)
async def claim(platform: PlatformDep, caller: WorkerDep, attempt_id: str) -> Response:
    """Take the lease of an offered attempt. Most calls are answered by ``worker_front``."""
    return await worker_calls.claim(platform, caller, attempt_id)


@serves(endpoints.CLAIMS)
async def claim_all(platform: PlatformDep, caller: WorkerDep, wanted: ClaimBatch) -> Response:
    """Take the leases of several offered attempts."""
    return await worker_calls.claim_all(platform, caller, wanted)


@serves(endpoints.MEET)
def meet(
    platform: PlatformDep, caller: WorkerDep, attempt_id: str, meeting: Meeting
) -> MeetingPlace:
    """A member of a gang is ready; answers where to meet once all are."""
    with platform.db.write() as tx:
        attempt, _ = leases.held(tx, caller.worker_id, attempt_id, meeting.epoch)
        return gangs.meet(tx, attempt, meeting)


@serves(endpoints.SECRETS)
def secrets_of(
    platform: PlatformDep, caller: WorkerDep, attempt_id: str, wanted: SecretsWanted
) -> Response:
    """Give the secrets that the job names, for the environment of its program alone."""
    given = stored_secrets.deliver(
        platform.db, platform.vault, caller.worker_id, attempt_id, wanted.epoch
    )
    return encoded(SecretsReply(environment=given), 200, {"Cache-Control": "no-store"})


@serves(endpoints.EVENTS)
async def events(
    platform: PlatformDep, caller: WorkerDep, attempt_id: str, batch: EventBatch
) -> Response:
    """Store journal lines, each once and in order."""
    return encoded(await platform.journals.take(caller.worker_id, attempt_id, batch), 200)


@serves(endpoints.ARTIFACTS)
def announce(
    platform: PlatformDep, caller: WorkerDep, attempt_id: str, offer: ArtifactOffer
) -> ArtifactTickets:
    """Where to PUT files."""
    with platform.db.write() as tx:
        attempt, _ = leases.held(tx, caller.worker_id, attempt_id, offer.epoch)
        announced = artifacts.announce(tx, attempt, offer.files)
    return ArtifactTickets(tickets=artifacts.tickets(platform.objects, announced))


@serves(endpoints.ARTIFACT_PARTS)
def parts(
    platform: PlatformDep, caller: WorkerDep, attempt_id: str, wanted: PartsWanted
) -> PartTickets:
    """Where to PUT parts of a file, and which of them have arrived."""
    return part_tickets(platform, caller.worker_id, attempt_id, wanted)


@serves(endpoints.ARTIFACTS_STORED)
def stored(
    platform: PlatformDep, caller: WorkerDep, attempt_id: str, done: ArtifactsStored
) -> Response:
    """Verify what was PUT, and show it; a manifest completes its checkpoint.

    Raises:
        StillVerifying: a call whose answer nobody waits for any more is at work.
    """
    with platform.db.read() as session:
        leases.seen(session, caller.worker_id, attempt_id, done.epoch)
        waiting = artifacts.unstored(session, attempt_id, done.artifact_ids)
        begun = artifact_uploads.ids_of(session, waiting)
    with platform.verifications.alone(each.id for each in waiting):
        possessions = artifact_uploads.complete(platform.objects, waiting, begun, done.uploads)
        artifacts.verify(platform.objects, waiting)
        manifest = artifacts.read_manifest(platform.objects, waiting)
        with platform.db.write() as tx:
            attempt, job = leases.held(tx, caller.worker_id, attempt_id, done.epoch)
            artifacts.complete(tx, attempt, job, done.artifact_ids, manifest, possessions)
    return Response(status_code=204)


@serves(endpoints.FINISH)
async def finish(
    platform: PlatformDep, caller: WorkerDep, attempt_id: str, request: FinishRequest
) -> Response:
    """End the attempt; refused while journal lines are missing."""
    return await worker_calls.finish(platform, caller, attempt_id, request)


@serves(endpoints.FINISHES)
async def finish_all(platform: PlatformDep, caller: WorkerDep, batch: FinishBatch) -> Response:
    """End several attempts; what is refused of them is named, and the others are over."""
    return await worker_calls.finish_all(platform, caller, batch)
