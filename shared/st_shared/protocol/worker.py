"""Messages between a worker and the controller, under ``/v1/worker``.

Which call takes and gives which of them stands in ``endpoints``.

Bodies may be compressed (``Content-Encoding: gzip``); the bound of a body holds once it is open.

A lease is an attempt id and its epoch. A call whose epoch is no longer the current one is
answered 409 ``stale_lease``, and the worker ends that process.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from st_shared.protocol.journal import RelativePath
from st_shared.protocol.message import (
    LARGEST_NUMBER,
    Identifier,
    Message,
    Moment,
    Output,
    Resource,
    Sha256,
    Text,
)
from st_shared.protocol.problems import Problem
from st_shared.protocol.states import AttemptState, FailureKind, Outcome, WorkerDesired

LARGEST_BATCH = 64
"""Attempts in one call of ``claims`` or ``finishes``."""

LARGEST_CLAIMS = 4 * 1024 * 1024
"""Bytes of leases in one answer to ``claims``, unless the first alone has more."""

LARGEST_PART = 10_000
"""Highest number of a part; a limit of S3."""

PROTOCOL_VERSION = 1
"""Raised when either side could no longer understand the other."""

MOST_CACHED = 1000
"""Contents that a worker tells of."""

CachedDigests = Annotated[list[Sha256], Field(max_length=MOST_CACHED)]
"""Digests of datasets that a worker need not fetch, at most those that it got last, and names of
pretrained models that it keeps for one organisation (``content.model_kept_as``)."""

CachedModels = Annotated[list[Annotated[Text, Field(max_length=200)]], Field(max_length=1000)]
"""Pretrained models on the worker's disk, as ``owner/name``."""

Labels = Annotated[
    dict[
        Annotated[
            str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$")
        ],
        Annotated[Text, Field(max_length=200)],
    ],
    Field(max_length=64),
]
"""What is known of a worker, such as ``{"region": "eu-west", "rack": "7"}``."""


UsedSeconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""For how long a worker has given slots to an attempt, by its monotonic clock: from the answer to
its claim to the end of its program. The controller charges that, as far as it fits what it sees."""


Vendor = Literal["nvidia", "amd", "apple", "cpu"]
"""Who made an accelerator, which decides how it is given to one process alone."""


class Slot(Message):
    """One accelerator of a worker, or a share of its CPU."""

    index: int = Field(ge=0, lt=1024)
    accelerator: Text = Field(min_length=1, max_length=120)
    """Name as the driver gives it, such as ``NVIDIA H100 80GB HBM3``; ``cpu`` for a CPU slot."""
    memory_gb: float = Field(ge=0)
    """Memory that a job may use there, GiB."""
    uuid: Text | None = Field(None, max_length=120)
    vendor: Vendor = "cpu"
    driver: Text | None = Field(None, max_length=120)
    """Version of the driver, such as ``580.95.05``."""
    compute_capability: Text | None = Field(None, max_length=40)
    """``9.0`` (CUDA), ``gfx942`` (ROCm), ``metal3`` (Apple)."""


BusyCode = Literal["foreign_process", "foreign_memory", "lost", "no_answer", "disk_full"]
"""foreign_process, foreign_memory: somebody who is no job of ours uses the accelerator; lost: it
cannot be used; no_answer: its driver does not answer; disk_full: the disk of the worker has too
little room for a job."""


class BusySlot(Message):
    """A slot that is not to be offered until it is free."""

    index: int = Field(ge=0, lt=1024)
    code: BusyCode
    message: Text = Field(max_length=300)
    """Who or what, such as ``process 4242 (python), 12.3 GiB``."""


class ProbeWarning(Message):
    """Something about its accelerators that a worker could not find out."""

    code: Text = Field(max_length=60)
    """Stable, such as ``nvidia_driver``."""
    message: Text = Field(max_length=500)
    """With how to mend it."""


class Condition(Message):
    """What may change of a worker's accelerators and of its disk while it lives."""

    busy: list[BusySlot] = Field(default_factory=list, max_length=1024)
    warnings: list[ProbeWarning] = Field(default_factory=list, max_length=16)
    content_room_gb: float | None = Field(None, ge=0)
    """The most that the datasets of one job may take here, with what the cache would give up for
    them, GiB; none: it is not known."""


class Inventory(Message):
    """What a worker has."""

    hostname: Text = Field(max_length=253)
    slots: list[Slot] = Field(min_length=1, max_length=1024)
    cpus: int = Field(ge=1)
    memory_gb: float = Field(ge=0)
    disk_free_gb: float = Field(ge=0)
    platform: Text = Field(max_length=200)
    disk_total_gb: float | None = Field(None, ge=0)
    cached: CachedDigests = Field(default_factory=list)
    cached_models: CachedModels = Field(default_factory=list)
    condition: Condition = Condition()


class Lease(Message):
    """The right to run an attempt."""

    attempt_id: Identifier
    epoch: int = Field(ge=1)
    used_seconds: UsedSeconds | None = None
    """In heartbeats: of an attempt whose program has not ended, until now."""
    ended: bool = False
    """In heartbeats: its program has ended."""


class RegisterRequest(Message):
    """A worker says who it is, what it has, and what it is still running."""

    protocol: int = PROTOCOL_VERSION
    name: str = Field(min_length=1, max_length=120, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    agent_version: Text = Field(max_length=40)
    inventory: Inventory
    labels: Labels = Field(default_factory=dict)
    ephemeral: bool = False
    one_job: bool = False
    """It takes one job and leaves: once that is claimed, offer it nothing more."""
    join_key: Text | None = Field(None, min_length=16, max_length=64)
    """With a join token: random, and the same until an answer has come. Who asks again, since that
    was lost, is the worker that it has become already, and the token loses one use in all."""
    holding: list[Lease] = Field(default_factory=list, max_length=1024)
    """Leases of attempts that this worker still runs or still has to report."""


class RegisterReply(Resource):
    """What the worker must know before it opens its stream."""

    worker_id: str
    credential: str | None
    """Only when a join token was exchanged; shown this once."""
    labels: dict[str, str]
    """The labels in force: those set on the controller win over the worker's own."""
    desired: WorkerDesired
    heartbeat_seconds: float
    abandon: list[str]
    """Attempt ids from ``holding`` whose lease is void: end them and report nothing."""


StopReason = Literal["cancel", "preempt", "stale"]
"""cancel: the job was cancelled; preempt: stop at a checkpoint; stale: the lease is void."""


class StopOrder(Resource):
    """End an attempt gracefully: checkpoint, then finish with the outcome that fits."""

    attempt_id: str
    reason: StopReason


class Offer(Resource):
    """An attempt that this worker may claim until ``expires_at``."""

    attempt_id: str
    job_id: str
    expires_at: Moment


class DesiredChange(Resource):
    """Stream event ``desired``: what an operator now wants of the worker."""

    desired: WorkerDesired


class RotateOrder(Resource):
    """Stream event ``rotate``: fetch a new credential with the present one, and use it."""

    ordered_at: Moment


class GarbageOrder(Resource):
    """Stream event ``collect_garbage``: remove what no attempt needs, and say what came of it."""

    ordered_at: Moment


class Sync(Resource):
    """Stream event ``sync``: all that counts now; first when ``Last-Event-ID`` is not given."""

    desired: WorkerDesired
    offers: list[Offer]
    stops: list[StopOrder]
    rotate: bool = False
    """As ``RotateOrder``."""
    collect_garbage: bool = False
    """As ``GarbageOrder``."""


class SlotUse(Message):
    """How busy one slot is."""

    index: int = Field(ge=0, lt=1024)
    utilisation: float | None = Field(None, ge=0, le=100)
    """Percent."""
    memory_used_gb: float | None = Field(None, ge=0)
    temperature_c: float | None = None


class Usage(Message):
    """How busy a worker is."""

    slots: list[SlotUse] = Field(default_factory=list, max_length=1024)
    disk_free_gb: float | None = Field(None, ge=0)


class Heartbeat(Message):
    """The worker is alive, and renews the leases that it names."""

    holding: list[Lease] = Field(default_factory=list, max_length=1024)
    usage: Usage | None = None
    cached: CachedDigests | None = None
    """Only where it has changed since it was last told."""
    cached_models: CachedModels | None = None
    """Only where it has changed since it was last told."""
    condition: Condition | None = None
    """Only where it has changed since it was last told."""
    leaving: bool = False
    """The last heartbeat of an agent that stops: offer it nothing more."""
    deaf: bool = False
    """No stream brings it anything, as behind a proxy that buffers: answer with open offers."""

    @property
    def is_plain(self) -> bool:
        """Whether it says no more than that the worker is alive."""
        news = (self.cached, self.cached_models, self.condition)
        return not self.leaving and all(each is None for each in news)


class HeartbeatReply(Resource):
    """Orders that the stream may have failed to bring."""

    desired: WorkerDesired
    stops: list[StopOrder]
    rotate: bool = False
    """As ``RotateOrder``."""
    collect_garbage: bool = False
    """As ``GarbageOrder``."""
    offers: list[Offer] = Field(default_factory=list)
    """Only to a worker that is deaf."""


class CredentialReply(Resource):
    """A new credential; the old one is in force until this one is used for the first time."""

    credential: str


class DrainWish(Message):
    """Somebody on the host asks that its worker takes nothing new; an operator may undo it."""

    grace_seconds: float | None = Field(None, ge=0, le=366 * 86_400)
    """As of a drain that an operator orders."""


class GarbageReport(Message):
    """What came of an order to collect garbage."""

    removed: int = Field(ge=0)
    """Files and folders."""
    freed_gb: float = Field(ge=0)


class Download(Resource):
    """A file to fetch by a signed URL and to verify."""

    path: str
    url: str
    """Absolute, or relative to the controller's address."""
    size: int
    sha256: str


class DatasetDownload(Resource):
    """A registered dataset: tar archives that together hold its folder."""

    name: str
    digest: str
    """Names the content, which has to have it."""
    kept_as: str | None = None
    """What the worker calls it, 64 hexadecimal digits; what was fetched once as this need not be
    fetched again. It differs by organisation: to know a digest opens nothing. None: the digest."""
    archives: list[Download]

    @property
    def place(self) -> str:
        """Its name in caches."""
        return self.kept_as or self.digest


class CheckpointDownload(Resource):
    """The last complete checkpoint of the job; ``files`` includes ``manifest.json``."""

    step: int
    files: list[Download]


class GangMember(Resource):
    """Which part of an attempt on several workers this is."""

    node: int
    """Its rank, from 0; 0 leads."""
    nodes: int


class Meeting(Message):
    """A member of a gang has all that it needs; the first one says where it can be met."""

    epoch: int = Field(ge=1)
    host: Text | None = Field(None, min_length=1, max_length=253)
    """Name or address of the first member's host, as the others can reach it."""
    port: int | None = Field(None, ge=1, le=65_535)
    """A port that is free there."""


class MeetingPlace(Resource):
    """Where the members meet; nothing as long as one of them is missing."""

    host: str | None
    port: int | None


class ClaimReply(Resource):
    """The lease, and all that is needed to run."""

    attempt_id: str
    epoch: int
    job_id: str
    number: int
    """1 for the job's first attempt."""
    org: str = Field("default", pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=40)
    """Whose job it is: what its programs keep on the host, and fetch with their credentials, is for
    this organisation's jobs alone."""
    slots: list[int]
    spec: dict[str, Any]
    """The JobSpec, as ``JobSpec.model_dump(mode="json")`` gives it."""
    datasets: list[DatasetDownload]
    resume: CheckpointDownload | None
    older: list[CheckpointDownload] = Field(default_factory=list)
    """Complete checkpoints before ``resume``, newest first, should that one turn out damaged."""
    acked_seq: int
    """Journal lines that the controller already holds for this attempt."""
    gang: GangMember | None = None
    """None: the attempt runs on this worker alone."""


class SecretsWanted(Message):
    """Asks for the secrets that the job names, before its program is started."""

    epoch: int = Field(ge=1)


class SecretsReply(Resource):
    """Secrets of one attempt: for its environment, and nowhere else to be kept."""

    environment: dict[str, str]
    """Variable -> value."""


class EventBatch(Message):
    """Journal lines in order, and the state of the attempt if it changed."""

    epoch: int = Field(ge=1)
    state: Literal[AttemptState.PREPARING, AttemptState.RUNNING, AttemptState.UPLOADING] | None = (
        None
    )
    used_seconds: UsedSeconds | None = None
    """With ``uploading``, and then for good; none, as of older workers: until it is told."""
    events: list[dict[str, Any]] = Field(default_factory=list, max_length=2000)
    """Each a ``JournalEvent``; the first has the ``seq`` after the last acknowledged one."""


class EventAck(Resource):
    """What is durable now."""

    acked_seq: int
    stop: StopReason | None = None


ArtifactKind = Literal["sample", "checkpoint", "output"]


class ArtifactFile(Message):
    """A file that the worker wants to store."""

    path: RelativePath
    kind: ArtifactKind
    size: int = Field(ge=0, le=5 * 2**40)
    sha256: Sha256
    possession: Sha256 | None = None
    """Proves that the worker has the bytes, as ``objectstore.multipart`` makes it: content that
    its organisation has stored already is then not sent again. Of a file in parts it is told
    only when the ticket asks for it."""
    step: int | None = Field(None, ge=0, le=LARGEST_NUMBER)


class ArtifactOffer(Message):
    """Files to store; those of a checkpoint end with its manifest, in a call of its own."""

    epoch: int = Field(ge=1)
    files: list[ArtifactFile] = Field(min_length=1, max_length=500)


class ArtifactTicket(Resource):
    """How to store one file."""

    artifact_id: str
    path: str
    url: str | None
    """Where to PUT the bytes; none when they are already stored, or go in parts."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Headers that the PUT must carry."""
    part_bytes: int | None = None
    """Set: send the file in parts of this length, each with a ticket of its own."""
    is_known: bool = False
    """Such content is stored already: announce it again with the proof that the worker has it."""


class ArtifactTickets(Resource):
    """One ticket a file, in the order of the offer."""

    tickets: list[ArtifactTicket]


class PartFile(Message):
    """One part of a file."""

    number: int = Field(ge=1, le=LARGEST_PART)
    sha256: Sha256


class PartsWanted(Message):
    """Parts of one announced file that the worker is about to send."""

    epoch: int = Field(ge=1)
    artifact_id: Identifier
    parts: list[PartFile] = Field(min_length=1, max_length=100)


class PartTicket(Resource):
    """How to store one part."""

    number: int
    is_stored: bool
    """It has arrived, by its SHA-256: nothing is to be sent."""
    md5: str | None
    """Of what has arrived, where the store tells nothing else: sent again only if it differs."""
    url: str
    headers: dict[str, str] = Field(default_factory=dict)
    """Headers that the PUT must carry."""


class PartTickets(Resource):
    """One ticket a part, in the order in which they were wanted."""

    tickets: list[PartTicket]


class PartProof(Message):
    """What a part must be."""

    sha256: Sha256
    md5: str | None = Field(None, pattern="^[0-9a-f]{32}$")
    """For stores that keep no SHA-256 of a part."""


class UploadedParts(Message):
    """A file that was sent in parts."""

    artifact_id: Identifier
    parts: list[PartProof] = Field(min_length=1, max_length=LARGEST_PART)
    """All of them, in order."""


class ArtifactsStored(Message):
    """The PUTs have succeeded; the controller verifies them."""

    epoch: int = Field(ge=1)
    artifact_ids: list[Identifier] = Field(min_length=1, max_length=500)
    uploads: list[UploadedParts] = Field(default_factory=list, max_length=500)
    """Those of them that were sent in parts."""


class Failure(Message):
    """Why an attempt failed."""

    kind: FailureKind
    message: Output = Field(max_length=16_384)
    exit_code: int | None = None


class FinishRequest(Message):
    """The attempt is over; every journal line up to ``last_seq`` must have been acknowledged."""

    epoch: int = Field(ge=1)
    outcome: Literal[Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELLED, Outcome.PREEMPTED]
    failure: Failure | None = None
    unstored: list[Annotated[Text, Field(max_length=2000)]] = Field(
        default_factory=list, max_length=50
    )
    """A sentence for each file that the store did not take in all the time that it was given."""
    used_seconds: UsedSeconds | None = None
    """None, as of older workers: until this is told."""
    last_seq: int = Field(ge=0)


class ClaimBatch(Message):
    """Offers to be claimed together."""

    attempt_ids: list[Identifier] = Field(min_length=1, max_length=LARGEST_BATCH)


class RefusedAttempt(Resource):
    """One attempt of a batch that was refused, as a call of its own would have been."""

    attempt_id: str
    problem: Problem


class ClaimBatchReply(Resource):
    """What was claimed, and what was not.

    An attempt of which it says nothing had no room in the answer (``LARGEST_CLAIMS``): the worker
    holds its lease and asks for it with a call of its own.
    """

    claims: list[ClaimReply]
    refused: list[RefusedAttempt]


class Finish(FinishRequest):
    """The end of one attempt of a batch."""

    attempt_id: Identifier


class FinishBatch(Message):
    """Attempts that are over."""

    finishes: list[Finish] = Field(min_length=1, max_length=LARGEST_BATCH)


class FinishBatchReply(Resource):
    """What was not taken; every other attempt of the batch is over."""

    refused: list[RefusedAttempt]
