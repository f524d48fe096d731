"""Every call that a worker makes and every event that it is sent, as data.

The controller makes its routes of ``ENDPOINTS`` and the agent its calls; a call that only one of
them knows cannot be written, and one that neither makes fails the contract test.
"""

from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, get_args

from pydantic import BaseModel

from st_shared.protocol.message import Message
from st_shared.protocol.worker import (
    ArtifactOffer,
    ArtifactsStored,
    ArtifactTickets,
    ClaimBatch,
    ClaimBatchReply,
    ClaimReply,
    CredentialReply,
    DesiredChange,
    DrainWish,
    EventAck,
    EventBatch,
    FinishBatch,
    FinishBatchReply,
    FinishRequest,
    GarbageOrder,
    GarbageReport,
    Heartbeat,
    HeartbeatReply,
    Meeting,
    MeetingPlace,
    Offer,
    PartsWanted,
    PartTickets,
    RegisterReply,
    RegisterRequest,
    RotateOrder,
    SecretsReply,
    SecretsWanted,
    StopOrder,
    Sync,
)

PREFIX = "/v1/worker"
"""Before the path of every endpoint."""

Answer = TypeVar("Answer", bound=BaseModel | None)

Who = Literal["join token or worker", "worker", "lease", "leases"]
"""What a call must prove: a lease is an attempt id and its epoch beside the worker's credential."""


@dataclass(frozen=True)
class Endpoint(Generic[Answer]):
    """One call of a worker."""

    path: str
    """Below ``PREFIX``; ``{attempt_id}`` is filled in."""
    body: type[Message] | None
    answer: type[Answer] | None
    """None: the call is answered without a body, or with events."""
    who: Who = "worker"
    method: Literal["GET", "POST"] = "POST"
    is_stream: bool = False

    @property
    def status(self) -> int:
        """Of the answer when all is well."""
        return 200 if self.answer is not None or self.is_stream else 204

    def url(self, **parts: str) -> str:
        """The path of a call."""
        return PREFIX + self.path.format(**parts)


REGISTER = Endpoint("/register", RegisterRequest, RegisterReply, "join token or worker")
STREAM: Endpoint[None] = Endpoint("/stream", None, None, method="GET", is_stream=True)
CREDENTIAL = Endpoint("/credential", None, CredentialReply)
GARBAGE: Endpoint[None] = Endpoint("/garbage", GarbageReport, None)
DRAIN: Endpoint[None] = Endpoint("/drain", DrainWish, None)
LEAVE: Endpoint[None] = Endpoint("/leave", None, None)
HEARTBEAT = Endpoint("/heartbeat", Heartbeat, HeartbeatReply)
CLAIM = Endpoint("/attempts/{attempt_id}/claim", None, ClaimReply)
CLAIMS = Endpoint("/claims", ClaimBatch, ClaimBatchReply)
MEET = Endpoint("/attempts/{attempt_id}/meet", Meeting, MeetingPlace, "lease")
SECRETS = Endpoint("/attempts/{attempt_id}/secrets", SecretsWanted, SecretsReply, "lease")
EVENTS = Endpoint("/attempts/{attempt_id}/events", EventBatch, EventAck, "lease")
ARTIFACTS = Endpoint("/attempts/{attempt_id}/artifacts", ArtifactOffer, ArtifactTickets, "lease")
ARTIFACT_PARTS = Endpoint(
    "/attempts/{attempt_id}/artifacts/parts", PartsWanted, PartTickets, "lease"
)
ARTIFACTS_STORED: Endpoint[None] = Endpoint(
    "/attempts/{attempt_id}/artifacts/complete", ArtifactsStored, None, "lease"
)
FINISH: Endpoint[None] = Endpoint("/attempts/{attempt_id}/finish", FinishRequest, None, "lease")
FINISHES = Endpoint("/finishes", FinishBatch, FinishBatchReply, "leases")

ENDPOINTS: tuple[Endpoint[Any], ...] = (
    REGISTER,
    STREAM,
    HEARTBEAT,
    CREDENTIAL,
    GARBAGE,
    CLAIM,
    MEET,
    SECRETS,
    EVENTS,
    ARTIFACTS,
    ARTIFACT_PARTS,
    ARTIFACTS_STORED,
    FINISH,
    CLAIMS,
    FINISHES,
    DRAIN,
    LEAVE,
)
"""All of them. ``CLAIMS`` and ``FINISHES`` do for many attempts at once what ``CLAIM`` and
``FINISH`` do for one; after ``LEAVE`` the worker is gone for good, and its credential is void."""

WorkerEvent = Sync | Offer | StopOrder | DesiredChange | RotateOrder | GarbageOrder
"""What the stream of a worker brings."""

STREAM_EVENTS: dict[str, type[WorkerEvent]] = {
    "sync": Sync,
    "offer": Offer,
    "stop": StopOrder,
    "desired": DesiredChange,
    "rotate": RotateOrder,
    "collect_garbage": GarbageOrder,
}
"""Name of a stream's event -> what it says."""

_NAMES = {kind: name for name, kind in STREAM_EVENTS.items()}
if set(get_args(WorkerEvent)) != set(_NAMES):
    raise TypeError("each of WorkerEvent needs one name in STREAM_EVENTS")


def name_of(event: WorkerEvent) -> str:
    """The name under which the stream brings it."""
    return _NAMES[type(event)]


def read_event(name: str, data: str) -> WorkerEvent | None:
    """What an event says; none: its name is not known here, because the controller is newer.

    Raises:
        ValidationError: it is not as its name promises.
    """
    kind = STREAM_EVENTS.get(name)
    return None if kind is None else kind.model_validate_json(data)
