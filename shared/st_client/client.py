"""The Python client of the public API, for pipelines and for the ``st`` command."""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Self, TypeVar
from urllib.parse import urlencode
from uuid import uuid4

import httpx

from st_client.connection import Connection
from st_client.datasets import Progress, push_folder
from st_client.download import download_artifact
from st_client.errors import BadInputError, MissingError
from st_client.events import JobEvent, Sleep, follow_events
from st_client.people import People
from st_client.rules import Rules
from st_shared.protocol.audit import AuditEntryView
from st_shared.protocol.message import Resource
from st_shared.protocol.policy_approvals import ApprovalView, DecisionResults
from st_shared.protocol.policy_check import CheckView
from st_shared.protocol.queue import Explanation, QueueRules, QueueView, ShareRequest, ShareView
from st_shared.protocol.quotas import (
    PriceRequest,
    PriceView,
    QuotaRequest,
    QuotaView,
    UsageView,
)
from st_shared.protocol.resources import (
    ApiKeyCreated,
    ApiKeyRequest,
    ArtifactView,
    AttemptView,
    DatasetView,
    DrainOrder,
    JobArrayView,
    JobBatch,
    JobDetail,
    JobView,
    JoinTokenCreated,
    JoinTokenRequest,
    JoinTokenView,
    LabelChange,
    LoginRequest,
    LogLine,
    Me,
    MetricCurve,
    MetricPoint,
    OrderedWorkers,
    Page,
    SessionView,
    SetupRequest,
    WorkerView,
)
from st_shared.protocol.secrets import SecretView
from st_shared.protocol.sign_in import PasswordReset
from st_shared.protocol.states import WorkerDesired
from st_shared.spec import JobSpec

WorkerOrder = Literal[
    "cordon", "drain", "activate", "retire", "rotate", "revoke", "collect-garbage"
]
"""What an operator may say to a worker."""

Item = TypeVar("Item", bound=Resource)
Named = TypeVar("Named", JobView, JobArrayView)

LATEST = "latest"
"""Stands for the newest job wherever a job id is asked."""

ARRAY_PREFIX = "arr_"
"""How the ids of job arrays begin."""

_KINDS = {
    "job": ("jobs", "job", "a", "st submit FILE"),
    "arr": ("job-arrays", "array", "an", "st sweep FILE"),
}
"""Prefix of an id -> where its kind is listed, its name with its article, what makes one."""

_MISTAKEN = {
    "job": (
        ARRAY_PREFIX,
        "is a job array, and this takes one job",
        "`st arrays {id}` shows it, `st jobs --array {id}` its jobs; `st cancel {id}` ends them",
    ),
    "arr": (
        "job_",
        "is a job, and this takes a job array",
        "`st show {id}` shows it, with the array that it belongs to",
    ),
}
"""Prefix of an id that is wanted -> one that is given in its place, what that is, what takes it."""

_PAGE, _LONG_PAGE = 100, 500


class Client:
    """One controller, as one person or pipeline sees it.

    Every method raises a ``ClientError`` when it cannot do what it promises. Lists are iterators
    that fetch their pages as they are read. Close the client, or use it in a ``with`` statement.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Sleep = time.sleep,
    ) -> None:
        self._connection = Connection(url, api_key, transport=transport)
        self._sleep = sleep

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the sockets."""
        self._connection.close()

    @property
    def url(self) -> str:
        """Address of the controller."""
        return self._connection.url

    @property
    def people(self) -> People:
        """Organisations, teams, users, roles and saved configurations."""
        return People(self._connection, self._items)

    @property
    def rules(self) -> Rules:
        """Resource and approval rules."""
        return Rules(self._connection, self._items)

    # Who we are

    def me(self) -> Me:
        """Who the caller is and what it may do."""
        return self._connection.get("auth/me", Me)

    def set_up(self, token: str, username: str, password: str) -> ApiKeyCreated:
        """Create the first admin; gives a key of theirs."""
        request = SetupRequest(token=token, username=username, password=password)
        return self._connection.post("auth/setup", ApiKeyCreated, request)

    def reset_password(self, token: str, new: str) -> None:
        """Choose a password with a token that an admin gave."""
        body = PasswordReset(token=token, new=new).model_dump()
        self._connection.post_silent("auth/reset", body)

    def create_api_key(
        self, username: str, password: str, name: str, code: str | None = None
    ) -> ApiKeyCreated:
        """Sign in for a moment, to make a key that stands for the person from now on.

        ``code`` is that of the authenticator, where the account asks for one.
        """
        login = LoginRequest(username=username, password=password, code=code)
        self._connection.post("auth/login", SessionView, login)
        try:
            return self._connection.post("api-keys", ApiKeyCreated, ApiKeyRequest(name=name))
        finally:
            self._connection.post_silent("auth/logout")

    # Jobs

    def submit(
        self, spec: JobSpec | Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> JobView:
        """Put a job into the queue, once for each idempotency key, however often it is called."""
        key = idempotency_key or uuid4().hex
        return self._connection.post("jobs", JobView, _document(spec), idempotency_key=key)

    def submit_batch(
        self, specs: Sequence[JobSpec | Mapping[str, Any]], *, idempotency_key: str | None = None
    ) -> JobBatch:
        """Put up to 1000 jobs into the queue, or none; ``after: ["@name"]`` names one of them."""
        body = {"jobs": [_document(spec) for spec in specs]}
        key = idempotency_key or uuid4().hex
        return self._connection.post("jobs:batch", JobBatch, body, idempotency_key=key)

    def jobs(
        self,
        state: str | None = None,
        *,
        priority: str | None = None,
        array: str | None = None,
        mine: bool = False,
    ) -> Iterator[JobView]:
        """Jobs, newest first."""
        return self._items(
            "jobs",
            Page[JobView],
            state=state,
            priority=priority,
            array=array,
            mine=mine or None,
            limit=_PAGE,
        )

    def job(self, job_id: str) -> JobDetail:
        """A job with its specification."""
        return self._connection.get(f"jobs/{job_id}", JobDetail)

    def find_job(self, name: str) -> str:
        """The id that ``name`` stands for: an id, its beginning where unique, or ``latest``."""
        return self._find("job", name, Page[JobView])

    def cancel(self, job_id: str) -> JobView:
        """Ask that a job stops; it is stopped once its state says so."""
        return self._connection.post(f"jobs/{job_id}/cancel", JobView)

    def retry(self, job_id: str) -> JobView:
        """Queue a job anew that failed or was cancelled; it goes on from its last checkpoint."""
        return self._connection.post(f"jobs/{job_id}/retry", JobView)

    def prioritise(self, job_id: str, priority: str) -> JobView:
        """Put a waiting job into another class."""
        body = {"priority": priority}
        return self._connection.post(f"jobs/{job_id}/priority", JobView, body)

    def override(self, job_id: str, level: int | None) -> JobView:
        """Put a level from 0 to 50 in place of a job's class, or none to give the class back."""
        body = {"override": level}
        return self._connection.post(f"jobs/{job_id}/priority", JobView, body)

    # The queue

    def explain(self, job_id: str) -> Explanation:
        """Why a job waits, what is ahead of it, and when it is expected to start."""
        return self._connection.get(f"jobs/{job_id}/explain", Explanation)

    def queue(self) -> QueueView:
        """The queue as it stands."""
        return self._connection.get("queue", QueueView)

    def queue_policy(self) -> QueueRules:
        """The rules of the queue."""
        return self._connection.get("queue/policy", QueueRules)

    def set_queue_policy(self, rules: Mapping[str, Any]) -> QueueRules:
        """Put other rules in force; what is left out takes its default."""
        return self._connection.put("queue/policy", QueueRules, rules)

    def change_share(self, path: str, share: ShareRequest) -> ShareView:
        """Change what was given of ``org``, ``org/team``, ``org/team/user`` or ``all``."""
        given = share.model_dump(exclude_unset=True)
        return self._connection.patch(f"queue/shares/{path}", ShareView, given)

    def remove_share(self, path: str) -> None:
        """Give a node weight 1 and no limits again."""
        self._connection.delete(f"queue/shares/{path}")

    def attempts(self, job_id: str) -> Iterator[AttemptView]:
        """The tries of a job."""
        return self._items(f"jobs/{job_id}/attempts", Page[AttemptView])

    def logs(
        self,
        job_id: str,
        *,
        attempt: int | None = None,
        since: datetime | None = None,
        tail: int | None = None,
    ) -> Iterator[LogLine]:
        """Log lines, oldest first: all, or those of one attempt, since a moment, or the last ones.

        ``tail``: so many at most, up to 5000.
        """
        return self._items(
            f"jobs/{job_id}/logs",
            Page[LogLine],
            "after",
            limit=_LONG_PAGE,
            attempt=attempt,
            since=since.isoformat() if since else None,
            tail=tail,
        )

    def metrics(self, job_id: str) -> Iterator[MetricPoint]:
        """Measured numbers, oldest first."""
        return self._items(f"jobs/{job_id}/metrics", Page[MetricPoint], "after", limit=_LONG_PAGE)

    def curve(self, job_id: str, points: int = 1000) -> MetricCurve:
        """So many measured points at most, evenly chosen over the whole run."""
        return self._connection.get(f"jobs/{job_id}/metrics:curve", MetricCurve, points=points)

    def artifacts(self, job_id: str, kind: str | None = None) -> Iterator[ArtifactView]:
        """Stored files, oldest first; kind is sample, checkpoint or output."""
        return self._items(f"jobs/{job_id}/artifacts", Page[ArtifactView], kind=kind)

    def download(self, job_id: str, artifact: ArtifactView, folder: Path) -> Path:
        """Store an artifact below ``folder`` under its own path, verified."""

        def renew() -> ArtifactView:
            for fresh in self.artifacts(job_id, artifact.kind):
                if fresh.id == artifact.id:
                    return fresh
            raise MissingError(f"{artifact.path} is no longer stored")

        return download_artifact(self._connection, artifact, folder, renew=renew)

    def events(
        self,
        job_id: str,
        *,
        after: LogLine | None = None,
        on_reconnect: Callable[[str], None] = lambda _reason: None,
    ) -> Iterator[JobEvent]:
        """All that happens to a job, from its beginning to its final state, as it happens.

        ``after``: lines up to this one are left out. Survives restarts of the controller:
        ``on_reconnect`` is told, and nothing comes twice.
        """
        return follow_events(
            self._connection,
            job_id,
            after=f"{after.attempt}:{after.seq}" if after else None,
            on_reconnect=on_reconnect,
            sleep=self._sleep,
        )

    def wait(self, job_id: str) -> JobView:
        """Block until a job is in a final state."""
        for _ in self.events(job_id):
            pass
        return self.job(job_id)

    # Job arrays

    def submit_array(
        self,
        spec: Mapping[str, Any],
        *,
        grid: Mapping[str, Sequence[Any]] | None = None,
        changes: Sequence[Mapping[str, Any]] | None = None,
        name: str | None = None,
        max_running: int | None = None,
        idempotency_key: str | None = None,
    ) -> JobArrayView:
        """Queue every combination of ``grid``, or each entry of ``changes``: all or none."""
        given = {
            "spec": spec,
            "grid": grid,
            "list": changes,
            "name": name,
            "max_running": max_running,
        }
        body = {key: value for key, value in given.items() if value is not None}
        key = idempotency_key or uuid4().hex
        return self._connection.post("job-arrays", JobArrayView, body, idempotency_key=key)

    def arrays(self) -> Iterator[JobArrayView]:
        """Job arrays, newest first."""
        return self._items("job-arrays", Page[JobArrayView], limit=_PAGE)

    def array(self, array_id: str) -> JobArrayView:
        """A job array with the states of its jobs."""
        return self._connection.get(f"job-arrays/{array_id}", JobArrayView)

    def find_array(self, name: str) -> str:
        """The id that ``name`` stands for: an id, its beginning where unique, or ``latest``."""
        return self._find("arr", name, Page[JobArrayView])

    def cancel_array(self, array_id: str) -> JobArrayView:
        """Ask that all jobs of an array stop."""
        return self._connection.post(f"job-arrays/{array_id}/cancel", JobArrayView)

    def cap_array(self, array_id: str, max_running: int | None) -> JobArrayView:
        """Let at most so many of its jobs hold slots at one time; none: as many as fit."""
        body = {"max_running": max_running}
        return self._connection.patch(f"job-arrays/{array_id}", JobArrayView, body)

    # Workers

    def order_worker(
        self, worker_id: str, order: WorkerOrder, *, why: str | None = None
    ) -> WorkerView:
        """Say what a worker should be or do; ``why`` is kept with what it should be."""
        body = {"why": why} if why else None
        return self._connection.post(f"workers/{worker_id}/{order}", WorkerView, body)

    def collect_garbage_everywhere(self) -> int:
        """Have all workers remove what no attempt needs; how many there are."""
        return self._connection.post("workers:collect-garbage", OrderedWorkers).workers

    def drain_worker(
        self, worker_id: str, *, grace_seconds: float | None = None, why: str | None = None
    ) -> WorkerView:
        """Let a worker finish; after ``grace_seconds`` preemptible jobs are stopped."""
        body = DrainOrder(grace_seconds=grace_seconds, why=why)
        return self._connection.post(f"workers/{worker_id}/drain", WorkerView, body)

    def label_worker(
        self, worker_id: str, labels: Mapping[str, str], remove: Sequence[str] = ()
    ) -> WorkerView:
        """Set labels on a worker, and take set ones away."""
        change = LabelChange(set=dict(labels), remove=list(remove))
        path = f"workers/{worker_id}/labels"
        return self._connection.patch(path, WorkerView, change.model_dump(mode="json"))

    def delete_worker(self, worker_id: str, *, force: bool = False) -> None:
        """Forget a worker; refused while it holds attempts, unless by force."""
        self._connection.delete(f"workers/{worker_id}{'?force=true' if force else ''}")

    def find_worker(self, named: str) -> WorkerView:
        """The worker of this id or name.

        Raises:
            MissingError: there is none, or several have the name.
        """
        by_id = self._items("workers", Page[WorkerView], id=named, retired="true")
        found = [each for each in by_id if each.id == named]
        if not found:
            by_name = self._items("workers", Page[WorkerView], name=named)
            found = [
                each
                for each in by_name
                if each.name == named and each.desired != WorkerDesired.RETIRED
            ]
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(each.id for each in found)
            raise MissingError(
                f"{len(found)} workers are called {named!r}", hint=f"give an id: {ids}"
            )
        raise MissingError(f"there is no worker {named!r}", hint="`st workers` lists them")

    def workers(self, *, retired: bool = False) -> Iterator[WorkerView]:
        """All workers; those that were retired only if asked for."""
        given = {"retired": "true"} if retired else {}
        return self._items("workers", Page[WorkerView], limit=_LONG_PAGE, **given)

    def create_join_token(
        self,
        *,
        uses: int = 1,
        expires_in_seconds: int = 3600,
        labels: Mapping[str, str] = {},
        provider: str | None = None,
    ) -> JoinTokenCreated:
        """A token with which ``uses`` workers may join; its secret is shown this once."""
        request = JoinTokenRequest(
            uses=uses,
            expires_in_seconds=expires_in_seconds,
            labels=dict(labels),
            provider=provider,
        )
        return self._connection.post("join-tokens", JoinTokenCreated, request)

    def join_tokens(self) -> Iterator[JoinTokenView]:
        """Join tokens that are not revoked, newest first, without their secrets."""
        return self._items("join-tokens", Page[JoinTokenView], limit=_PAGE)

    def revoke_join_token(self, token_id: str) -> None:
        """Let nobody join with it any more; workers that joined stay."""
        self._connection.delete(f"join-tokens/{token_id}")

    # Secrets

    def secrets(self) -> Iterator[SecretView]:
        """The secrets that one's jobs may name, without their values."""
        return self._items("secrets", Page[SecretView])

    def set_secret(self, name: str, value: str, *, shared: bool = False) -> SecretView:
        """Store a secret of one's own, or one that the organisation shares."""
        return self._connection.put(_secret(name, shared), SecretView, {"value": value})

    def delete_secret(self, name: str, *, shared: bool = False) -> None:
        """Remove a secret."""
        self._connection.delete(_secret(name, shared))

    # Policy

    def check(self, spec: JobSpec | Mapping[str, Any]) -> CheckView:
        """What would come of a job now, step by step; nothing is submitted."""
        return self._connection.post("jobs:check", CheckView, _document(spec))

    def approvals(self, state: str | None = None) -> Iterator[ApprovalView]:
        """Approvals of one's own jobs, and of those that one may decide on, oldest first."""
        return self._items("approvals", Page[ApprovalView], state=state, limit=_PAGE)

    def decide(self, refs: Sequence[str], decision: str, reason: str = "") -> DecisionResults:
        """Approve or reject jobs, each on its own; by the ids of approvals or of jobs."""
        body = {"ids": list(refs), "decision": decision, "reason": reason}
        return self._connection.post("approvals:decide", DecisionResults, body)

    # Quotas and prices

    def quota_usage(self, path: str | None = None) -> UsageView:
        """What a node may use, uses and has left; by default one's own."""
        asked = f"?{urlencode({'path': path})}" if path else ""
        return self._connection.get(f"quotas/usage{asked}", UsageView)

    def quotas(self) -> list[QuotaView]:
        """The quotas that bind one, and those that one may see."""
        return self._connection.get("quotas", Page[QuotaView]).items

    def set_quota(self, request: QuotaRequest) -> QuotaView:
        """Set a limit; another amount for the same path, kind and action takes its place."""
        return self._connection.put("quotas", QuotaView, request.model_dump(mode="json"))

    def remove_quota(self, quota_id: str) -> None:
        """Take a limit away."""
        self._connection.delete(f"quotas/{quota_id}")

    def set_team_quota(self, request: QuotaRequest) -> QuotaView:
        """Set a limit of a member of a team that one leads."""
        org, team, *_ = [*request.path.split("/"), ""]
        body = request.model_dump(mode="json")
        return self._connection.put(f"orgs/{org}/teams/{team}/quotas", QuotaView, body)

    def prices(self) -> list[PriceView]:
        """What slots cost."""
        return self._connection.get("prices", Page[PriceView]).items

    def set_price(self, request: PriceRequest) -> PriceView:
        """Let slots cost something from a moment on."""
        return self._connection.post("prices", PriceView, request)

    def remove_price(self, price_id: str) -> None:
        """Take a price away."""
        self._connection.delete(f"prices/{price_id}")

    # Audit

    def audit(
        self,
        *,
        actor: str | None = None,
        action: str | None = None,
        target: str | None = None,
        since: datetime | None = None,
        limit: int | None = None,
    ) -> Iterator[AuditEntryView]:
        """Audit entries, newest first, ``limit`` at most; ``*`` in a filter is anything."""
        given: dict[str, Any] = {"actor": actor, "action": action, "target": target}
        given["since"] = since.isoformat() if since else None
        given["limit"] = min(limit or _PAGE, _PAGE)
        return islice(self._items("audit", Page[AuditEntryView], **given), limit)

    # Datasets

    def datasets(self) -> Iterator[DatasetView]:
        """Registered datasets."""
        return self._items("datasets", Page[DatasetView])

    def push_dataset(
        self, name: str, folder: Path, *, progress: Progress = lambda _done, _total: None
    ) -> tuple[DatasetView, bool]:
        """Register the files of ``folder`` under ``name``; false where they already were.

        ``progress`` is told the bytes that are stored so far, and of how many.
        """
        return push_folder(self._connection, name, folder, progress)

    def _find(self, prefix: str, name: str, page: type[Page[Named]]) -> str:
        path, what, article, command = _KINDS[prefix]
        if name == LATEST:
            newest = self._connection.get(path, page, limit=1).items
            if not newest:
                raise MissingError(f"there is no {what} yet", hint=f"`{command}` makes one")
            return newest[0].id
        other, is_what, hint = _MISTAKEN[prefix]
        if name.startswith(other):
            raise BadInputError(f"{name} {is_what}", hint=hint.format(id=name))
        beginning = name if name.startswith(f"{prefix}_") else f"{prefix}_{name}"
        if not re.fullmatch(rf"{prefix}_[0-9a-z]{{1,26}}", beginning):
            raise BadInputError(
                f"{name!r} is not {article} {what} id", hint=f"`st {what}s` lists them"
            )
        if len(beginning) == len(prefix) + 27:
            return beginning
        first = self._connection.get(path, page, begins=beginning, limit=_PAGE)
        found = [item.id for item in first.items]
        if len(found) == 1:
            return found[0]
        if found:
            many = "more than " if first.next_cursor else ""
            raise BadInputError(
                f"{many}{len(found)} {what}s begin with {beginning}",
                detail=", ".join(found[:5]) + (", ..." if len(found) > 5 else ""),
                hint="give more of the id",
            )
        raise MissingError(f"no {what} begins with {beginning}", hint=f"`st {what}s` lists them")

    def _items(
        self, path: str, page: type[Page[Item]], cursor: str = "cursor", **params: Any
    ) -> Iterator[Item]:
        position: str | None = None
        while True:
            part = self._connection.get(path, page, **params, **{cursor: position})
            yield from part.items
            position = part.next_cursor
            if position is None:
                return


def _secret(name: str, shared: bool) -> str:
    return f"{'shared-secrets' if shared else 'secrets'}/{name}"


def _document(spec: JobSpec | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(spec, JobSpec):
        return spec.model_dump(mode="json", exclude_unset=True)
    return spec
