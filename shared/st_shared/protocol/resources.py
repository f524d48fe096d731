"""What the public API under ``/v1`` takes and gives.

| route | permission | body | answer |
|---|---|---|---|
| ``POST auth/setup`` | setup token | ``SetupRequest`` | ``ApiKeyCreated`` 201 |
| ``POST auth/login`` | | ``LoginRequest`` | ``SessionView`` + cookie |
| ``POST auth/logout`` | signed in | | 204 |
| ``GET auth/me`` | signed in | | ``Me`` |
| ``POST api-keys`` · ``GET api-keys`` · ``DELETE api-keys/{id}`` | ``api.keys.own`` | ``ApiKeyRequest`` | ``ApiKeyCreated`` 201 · ``Page[ApiKeyView]`` · 204 |
| ``POST jobs`` (``Idempotency-Key``) | ``job.submit`` | a JobSpec | ``JobView`` 201, 200 when repeated |
| ``POST jobs:batch`` (``Idempotency-Key``) | ``job.submit`` | ``JobBatchRequest`` | ``JobBatch`` 201, 200 when repeated; all or none |
| ``GET jobs`` ``?state= &priority= &array= &mine= &cursor= &limit=`` | ``job.view.own`` | | ``Page[JobView]``, newest first |
| ``GET jobs/{id}`` | ``job.view.own`` | | ``JobDetail`` |
| ``POST jobs/{id}/cancel`` | ``job.cancel.own`` | | ``JobView`` |
| ``POST jobs/{id}/retry`` | ``job.submit`` | | ``JobView`` |
| ``POST jobs/{id}/priority`` | ``job.submit``; an override ``queue.manage`` | ``PriorityChange`` | ``JobView`` |
| ``POST job-arrays`` (``Idempotency-Key``) | ``job.submit`` | ``JobArrayRequest`` | ``JobArrayView`` 201, 200 when repeated |
| ``GET job-arrays`` ``?cursor= &limit=`` · ``GET job-arrays/{id}`` | ``job.view.own`` | | ``Page[JobArrayView]``, newest first · ``JobArrayView`` |
| ``POST job-arrays/{id}/cancel`` | ``job.cancel.own`` | | ``JobArrayView`` |
| ``PATCH job-arrays/{id}`` | ``job.submit`` | ``JobArrayChange`` | ``JobArrayView`` |
| ``GET jobs/{id}/attempts`` | ``job.view.own`` | | ``Page[AttemptView]`` |
| ``GET jobs/{id}/logs`` ``?after= &limit= &tail= &before=`` | ``job.view.own`` | | ``Page[LogLine]``, oldest first |
| ``GET jobs/{id}/metrics`` ``?after= &limit=`` | ``job.view.own`` | | ``Page[MetricPoint]``, oldest first |
| ``GET jobs/{id}/artifacts`` ``?kind= &cursor=`` | ``job.view.own`` | | ``Page[ArtifactView]``, oldest first |
| ``GET jobs/{id}/events`` (SSE, ``Last-Event-ID``) | ``job.view.own`` | | ``state log metric progress sample checkpoint output`` |
| ``GET events`` (SSE, ``Last-Event-ID``) | ``job.view.own`` | | ``job`` events: ``JobView`` |
| ``GET workers`` · ``GET workers/{id}`` | ``worker.view`` | | ``Page[WorkerView]`` · ``WorkerView`` |
| ``GET workers?retired=true`` | ``worker.view`` | | those that were retired too |
| ``POST workers/{id}/cordon`` · ``/activate`` · ``/retire`` | ``admin.workers`` | ``WorkerOrder`` or none | ``WorkerView`` |
| ``POST workers/{id}/drain`` | ``admin.workers`` | ``DrainOrder`` or none | ``WorkerView`` |
| ``POST workers/{id}/rotate`` · ``/revoke`` · ``/collect-garbage`` | ``admin.workers`` | | ``WorkerView`` |
| ``POST workers:collect-garbage`` | ``admin.workers`` | | ``OrderedWorkers`` |
| ``PATCH workers/{id}/labels`` | ``admin.workers`` | ``LabelChange`` | ``WorkerView`` |
| ``DELETE workers/{id}`` ``?force=`` | ``admin.workers`` | | 204 |
| ``POST join-tokens`` · ``GET join-tokens`` · ``DELETE join-tokens/{id}`` | ``admin.workers`` | ``JoinTokenRequest`` | ``JoinTokenCreated`` 201 · ``Page[JoinTokenView]`` · 204 |
| ``POST datasets`` | ``dataset.create`` | ``DatasetRequest`` | ``DatasetTickets`` |
| ``POST datasets/{name}/complete`` | ``dataset.create`` | ``DatasetComplete`` | ``DatasetView`` |
| ``GET datasets`` · ``GET datasets/{name}`` | ``dataset.view`` | | ``Page[DatasetView]`` · ``DatasetView`` |
| ``PUT GET objects/{key}?expires=&sig=`` | the signature | bytes | |
"""

from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import Field, model_validator

from st_shared.protocol.message import (
    LARGEST_NUMBER,
    Message,
    Moment,
    Name,
    Resource,
    Sha256,
    Text,
)
from st_shared.protocol.states import (
    AttemptState,
    JobState,
    Outcome,
    WorkerDesired,
    WorkerState,
)
from st_shared.protocol.worker import Failure, Inventory, Labels, Usage
from st_shared.spec.job import Priority
from st_shared.spec.places import FieldError

Item = TypeVar("Item")

Username = Annotated[
    str, Field(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9._-]*(@[a-z0-9.-]+)?$")
]
Password = Annotated[str, Field(min_length=10, max_length=1024)]


class Page(Resource, Generic[Item]):
    """Part of a list; ask again with ``next_cursor`` for what follows, none: the end."""

    items: list[Item]
    next_cursor: str | None = None


class SetupRequest(Message):
    """Create the first admin; possible once, with the token printed on the controller's console."""

    token: str = Field(min_length=1, max_length=200)
    username: Username
    password: Password


class LoginRequest(Message):
    """Sign in with a password."""

    username: Text = Field(min_length=1, max_length=200)
    password: str = Field(min_length=1, max_length=1024)
    code: Text | None = Field(None, min_length=6, max_length=40)
    """Of the authenticator, or a recovery code, where the account asks for one."""


class Me(Resource):
    """Who the caller is and what it may do."""

    user_id: str
    username: str
    role: str
    org: str = "default"
    team: str = "default"
    """As which they submit unless they say otherwise."""
    teams: list[str] = Field(default_factory=list)
    reach: str = "own"
    """How far permissions over the things of others go: own, team, org or system."""
    permissions: list[str]
    via: Literal["session", "api_key"]


class SessionView(Resource):
    """A session; its token travels in an HttpOnly cookie."""

    username: str
    expires_at: Moment


class ApiKeyRequest(Message):
    """A key for a pipeline or for the ``st`` command."""

    name: Text = Field(min_length=1, max_length=120)
    scopes: list[Text] | None = Field(None, max_length=100)
    """Permissions that the key may use, at most its owner's; none: all of its owner's."""
    expires_in_days: int | None = Field(None, ge=1, le=3650)
    addresses: list[Annotated[Text, Field(max_length=50)]] | None = Field(
        None, min_length=1, max_length=50
    )
    """Addresses or networks (``192.0.2.0/24``) from which it may be used; none: from everywhere."""


class ApiKeyView(Resource):
    """A key without its secret."""

    id: str
    name: str
    prefix: str
    scopes: list[str] | None
    addresses: list[str] | None = None
    created_at: Moment
    expires_at: Moment | None
    last_used_at: Moment | None


class ApiKeyCreated(ApiKeyView):
    """A key with its secret, shown this once."""

    key: str


class ProgressView(Resource):
    """How far a job's newest attempt is."""

    phase: str
    step: int
    steps: int
    steps_per_second: float | None = None
    eta_seconds: float | None = None
    loss: float | None = None


class Reason(Resource):
    """Why a job waits or ended as it did: a stable code, a sentence, and what to do next."""

    code: str
    message: str
    hint: str | None = None


class JobView(Resource):
    """A job in a list."""

    id: str
    name: str
    kind: Literal["train", "command", "noop"] = "train"
    state: JobState
    priority: str
    override: int | None = None
    """Level that an admin put in place of the class, 0 to 50."""
    family: str
    array: str | None = None
    """Id of the job array that it is part of."""
    array_index: int | None = None
    not_before: Moment | None = None
    """It is not served before: asked for, or the end of a pause between two tries."""
    org: str = "default"
    team: str = "default"
    """The team as which it was submitted."""
    config: str | None = None
    """Name of the saved configuration that it was made of."""
    submitted_by: str
    submitted_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    attempts: int
    cancel_requested: bool
    worker: str | None
    """Name of the worker that holds its newest live attempt."""
    reason: Reason | None
    progress: ProgressView | None
    checkpoint_step: int | None
    """Step of the last complete checkpoint that is stored."""
    version: int
    warnings: list[Reason] = Field(default_factory=list)
    """Told to whoever submits it: nothing that is here could ever run it."""


class JobDetail(JobView):
    """A job with its specification."""

    spec: dict[str, Any]


class JobBatchRequest(Message):
    """Jobs that are submitted together; ``after: ["@name"]`` means another one of them."""

    jobs: list[dict[str, Any]] = Field(min_length=1, max_length=1000)
    """Each a JobSpec."""


class SubmittedJob(Resource):
    """A job of a batch."""

    id: str
    name: str
    warnings: list[Reason] = Field(default_factory=list)


class JobBatch(Resource):
    """The jobs of a batch, in its order."""

    jobs: list[SubmittedJob]


class PriorityChange(Message):
    """Another class for a waiting job, or an admin's override; exactly one of the two."""

    priority: Priority | None = None
    override: int | None = Field(None, ge=0, le=50, multiple_of=10)
    """Level in place of the class; null gives the class back."""

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        overrides = "override" in self.model_fields_set
        if overrides == (self.priority is not None):
            said = "give either `priority` or `override`"
            raise FieldError(said, "override" if overrides else "priority")
        return self


Place = Annotated[Text, Field(min_length=1, max_length=200)]


class JobArrayRequest(Message):
    """Variations of one job: every combination of ``grid``, or each entry of ``list``."""

    name: Text | None = Field(None, min_length=1, max_length=116)
    """The jobs are called ``name-000`` and so on; none: the name in ``spec``."""
    spec: dict[str, Any]
    """A JobSpec; what the changes set may be missing."""
    grid: dict[Place, list[Any]] | None = Field(None, max_length=32)
    """Dotted path -> values, such as ``training.optimizer.learning_rate``."""
    entries: list[dict[Place, Any]] | None = Field(None, alias="list")
    """Sets of dotted path -> value."""
    max_running: int | None = Field(None, ge=1, le=LARGEST_NUMBER)
    """Most of its jobs that hold slots at one time."""


class JobArrayChange(Message):
    """Another cap for a job array; null takes it away."""

    max_running: int | None = Field(ge=1, le=LARGEST_NUMBER)


class JobArrayView(Resource):
    """A job array; its jobs are at ``GET jobs?array=ID``."""

    id: str
    name: str
    org: str = "default"
    team: str = "default"
    """The team as which it was submitted."""
    submitted_by: str
    submitted_at: Moment
    size: int
    max_running: int | None
    counts: dict[JobState, int]
    """How many of its jobs are in which state; states without jobs are left out."""
    warnings: list[Reason] = Field(default_factory=list)


class AttemptView(Resource):
    """One try of a job."""

    id: str
    number: int
    epoch: int
    state: AttemptState
    outcome: Outcome | None
    failure: Failure | None
    worker_id: str
    worker: str
    slots: list[int]
    node: int = 0
    """Rank among the workers of the attempt."""
    nodes: int = 1
    offered_at: Moment
    claimed_at: Moment | None
    started_at: Moment | None
    finished_at: Moment | None
    released_at: Moment | None = None
    """When its slots were given back, up to which they are charged: its program had ended, by the
    clock of its worker. It may still upload after that."""
    acked_seq: int


class LogLine(Resource):
    """One line, at its place: attempt number and sequence within it."""

    attempt: int
    seq: int
    at: Moment
    level: str
    message: str


class MetricPoint(Resource):
    """Numbers of one step."""

    attempt: int
    seq: int
    at: Moment
    step: int
    values: dict[str, float]


class MetricCurve(Resource):
    """Points of a run, evenly chosen among all that were measured, first to last."""

    items: list[MetricPoint]
    total: int
    """How many were measured."""


class StateChange(Resource):
    """Stream event ``state``: the job moved."""

    version: int
    state: JobState
    at: Moment
    reason: Reason | None


class ArtifactView(Resource):
    """A stored file of a job."""

    id: str
    attempt: int
    kind: str
    path: str
    size: int
    sha256: str
    step: int | None
    created_at: Moment
    url: str
    """Signed and short-lived; absolute, or relative to the controller's address."""


class FaultySlot(Resource):
    """A slot whose accelerator failed again and again: it is offered no more."""

    index: int
    message: str
    """Its last fault."""
    at: Moment


class WorkerView(Resource):
    """A worker as operators see it."""

    id: str
    name: str
    state: WorkerState
    desired: WorkerDesired
    reason: Reason | None = None
    """Why it takes no jobs; none: it does."""
    ephemeral: bool
    labels: dict[str, str]
    """Those in force."""
    set_labels: dict[str, str] = Field(default_factory=dict)
    """Those of them that were set here; they win over the worker's own."""
    inventory: Inventory
    agent_version: str
    joined_at: Moment
    credential_at: Moment | None = None
    """When its credential came into force."""
    rotation_ordered: bool = False
    """It is to fetch a new credential, and has not done so yet."""
    last_heartbeat_at: Moment | None
    usage: Usage | None = None
    """As its last heartbeat told."""
    faulty: list[FaultySlot] = Field(default_factory=list)
    """Slots that are offered no more; `st workers activate` offers them again."""
    slots_free: int
    jobs: list[str]
    """Ids of the jobs that it holds."""


Why = Annotated[Text, Field(max_length=200)]


class WorkerOrder(Message):
    """What else is to be known of an order."""

    why: Why | None = None
    """For whoever looks at the worker later."""


class DrainOrder(WorkerOrder):
    """How patient a drain is."""

    grace_seconds: float | None = Field(None, ge=0, le=366 * 86_400)
    """After so long, preemptible jobs are stopped at a checkpoint and queued again; 0: at once;
    none: they are waited for. Jobs that are not preemptible are always waited for."""


class OrderedWorkers(Resource):
    """What came of an order to all workers."""

    workers: int
    """How many it is for."""


class LabelChange(Message):
    """Labels to set on a worker, and set ones to take away."""

    set: Labels = Field(default_factory=dict)
    remove: list[Annotated[Text, Field(max_length=63)]] = Field(default_factory=list, max_length=64)
    """Keys; where the worker gives itself such a label, that is in force again."""


class JoinTokenRequest(Message):
    """Lets workers join."""

    expires_in_seconds: int = Field(3600, ge=60, le=30 * 86_400)
    uses: int = Field(1, ge=1, le=10_000)
    """How many workers may join with it."""
    labels: Labels = Field(default_factory=dict)
    """Labels that every worker which joins with it gets; they win over the worker's own."""
    provider: Name | None = None
    """Where its workers come from, such as ``aws``; a worker cannot say otherwise."""


class JoinTokenView(Resource):
    """A join token without its secret."""

    id: str
    created_at: Moment
    expires_at: Moment
    uses_left: int
    labels: dict[str, str]
    provider: str | None = None


class JoinTokenCreated(JoinTokenView):
    """A join token, shown this once."""

    token: str


class ArchiveFile(Message):
    """One tar archive of a dataset."""

    size: int = Field(ge=1, le=5 * 2**40)
    sha256: Sha256


class DatasetRequest(Message):
    """Register a dataset: archives whose union is a folder of images and captions."""

    name: Name
    digest: Sha256
    """Names the content: SHA-256 over the sorted (path, size, SHA-256) of all its files."""
    samples: int = Field(ge=1, le=LARGEST_NUMBER)
    archives: list[ArchiveFile] = Field(min_length=1, max_length=10_000)


class DatasetTicket(Resource):
    """Where to PUT one archive; none when it is already stored."""

    sha256: str
    url: str | None
    headers: dict[str, str] = Field(default_factory=dict)


class DatasetTickets(Resource):
    """One ticket an archive, in order."""

    tickets: list[DatasetTicket]


class DatasetComplete(Message):
    """All archives of this content are stored; make it the one that the name stands for."""

    digest: Sha256


class DatasetView(Resource):
    """A registered dataset."""

    name: str
    digest: str
    samples: int
    size: int
    created_at: Moment
    created_by: str
