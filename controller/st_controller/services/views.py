"""Rows as the public API shows them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from st_controller.domain.attempts import HOLDING, LIVE
from st_controller.domain.worker_condition import Facts, obstacle
from st_controller.services import faulty_slots, job_arrays
from st_controller.services.actor import Actor
from st_controller.services.visibility import within
from st_controller.services.workers import live_attempts
from st_controller.store.parts import parts
from st_controller.store.schema import Artifact, Attempt, Dataset, Job, JobArray, User, Worker
from st_shared.objectstore import ObjectStore
from st_shared.protocol.resources import (
    ArtifactView,
    AttemptView,
    DatasetView,
    FaultySlot,
    JobArrayView,
    JobDetail,
    JobView,
    Reason,
    WorkerView,
)
from st_shared.protocol.states import AttemptState, WorkerDesired, WorkerState
from st_shared.protocol.worker import Inventory, Usage

_NEW_COLUMNS = frozenset(JobView.model_fields) & frozenset(Job.__table__.columns.keys()) - {
    "submitted_by"
}
"""What a job's view takes over from its columns as it stands."""
DOWNLOAD_SECONDS = 900
"""How long a link to an artifact may be opened."""


def job_views(
    session: Session, jobs: Sequence[Job], reasons: Mapping[str, Reason] | None = None
) -> list[JobView]:
    """Jobs as a list shows them; ``reasons`` says why those that wait do."""
    users = _usernames(session, {job.submitted_by for job in jobs})
    holders = _holders(session, [job.id for job in jobs])
    told = reasons or {}
    return [
        JobView.model_validate(
            _fields(job, users[job.submitted_by], holders.get(job.id), told.get(job.id))
        )
        for job in jobs
    ]


def job_view(session: Session, job: Job, reasons: Mapping[str, Reason] | None = None) -> JobView:
    """One job as a list shows it."""
    return job_views(session, [job], reasons)[0]


def new_job_view(job: Mapping[str, Any], username: str, warnings: Sequence[Reason]) -> JobView:
    """A job that was made just now of these columns; asks the database nothing."""
    return JobView.model_validate(
        {
            **{name: job[name] for name in _NEW_COLUMNS},
            "array": job["array_id"],
            "submitted_by": username,
            "cancel_requested": False,
            "worker": None,
            "warnings": warnings,
        }
    )


def array_views(
    session: Session, arrays: Sequence[JobArray], warnings: Sequence[Reason] = ()
) -> list[JobArrayView]:
    """Job arrays with the states of their jobs."""
    users = _usernames(session, {array.submitted_by for array in arrays})
    counted = job_arrays.counts(session, [array.id for array in arrays])
    return [
        JobArrayView(
            id=array.id,
            name=array.name,
            org=array.org,
            team=array.team,
            submitted_by=users[array.submitted_by],
            submitted_at=array.submitted_at,
            size=array.size,
            max_running=array.max_running,
            counts=counted.get(array.id, {}),
            warnings=list(warnings),
        )
        for array in arrays
    ]


def job_detail(
    session: Session, job: Job, reasons: Mapping[str, Reason] | None = None
) -> JobDetail:
    """One job with its specification."""
    view = job_view(session, job, reasons)
    return JobDetail.model_validate({**view.model_dump(), "spec": job.spec})


def _fields(
    job: Job, username: str, worker: str | None, waiting: Reason | None
) -> dict[str, object]:
    return {
        "id": job.id,
        "name": job.name,
        "kind": job.kind,
        "state": job.state,
        "priority": job.priority,
        "override": job.override,
        "family": job.family,
        "org": job.org,
        "team": job.team,
        "config": job.config,
        "array": job.array_id,
        "array_index": job.array_index,
        "not_before": job.not_before,
        "submitted_by": username,
        "submitted_at": job.submitted_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "attempts": job.attempts,
        "cancel_requested": job.cancel_requested_at is not None,
        "worker": worker,
        "reason": waiting or job.reason,
        "progress": job.progress,
        "checkpoint_step": job.checkpoint_step,
        "version": job.version,
    }


def _usernames(session: Session, ids: set[str]) -> dict[str, str]:
    rows = session.execute(select(User.id, User.username).where(User.id.in_(ids)))
    return {key: name for key, name in rows}  # noqa: C416 - to mypy a Row is no pair


def _holders(session: Session, job_ids: list[str]) -> dict[str, str]:
    rows = session.execute(
        select(Attempt.job_id, Worker.name)
        .join(Worker, Worker.id == Attempt.worker_id)
        .where(Attempt.job_id.in_(job_ids), Attempt.state.in_(LIVE))
        .order_by(Attempt.node)
    )
    names: dict[str, list[str]] = defaultdict(list)
    for job_id, name in rows:
        names[job_id].append(name)
    return {job_id: ", ".join(found) for job_id, found in names.items()}


def attempt_views(session: Session, job_id: str) -> list[AttemptView]:
    """The attempts of a job, first to last."""
    rows = session.execute(
        select(Attempt, Worker.name)
        .join(Worker, Worker.id == Attempt.worker_id)
        .where(Attempt.job_id == job_id)
        .order_by(Attempt.number, Attempt.node)
    )
    return [
        AttemptView.model_validate(
            {
                **{
                    field: getattr(attempt, field)
                    for field in AttemptView.model_fields
                    if field != "worker"
                },
                "worker": name,
            }
        )
        for attempt, name in rows
    ]


def artifact_view(objects: ObjectStore, artifact: Artifact) -> ArtifactView:
    """An artifact with a link that opens for a while."""
    url = objects.sign_download(artifact.key, expires_in=DOWNLOAD_SECONDS)
    fields = {name: getattr(artifact, name) for name in ArtifactView.model_fields if name != "url"}
    return ArtifactView.model_validate({**fields, "url": url})


def dataset_views(session: Session, datasets: Sequence[Dataset]) -> list[DatasetView]:
    """Datasets as a list shows them."""
    users = _usernames(session, {dataset.created_by for dataset in datasets})
    return [
        DatasetView(
            name=dataset.name,
            digest=dataset.digest,
            samples=dataset.samples,
            size=sum(archive["size"] for archive in dataset.archives),
            created_at=dataset.created_at,
            created_by=users[dataset.created_by],
        )
        for dataset in datasets
    ]


def worker_views(session: Session, actor: Actor, workers: Sequence[Worker]) -> list[WorkerView]:
    """Workers as the actor may see them: all organisations share them, but not what they run."""
    held = live_attempts(session, [worker.id for worker in workers])
    faulty = faulty_slots.cordoned(session, [worker.id for worker in workers])
    seen = _seen_jobs(session, actor, [each.job_id for found in held.values() for each in found])
    views = [
        _worker_view(worker, held[worker.id], faulty.get(worker.id, []), seen) for worker in workers
    ]
    return views if actor.may("admin.workers") else [_without_contents(view) for view in views]


def _seen_jobs(session: Session, actor: Actor, job_ids: Sequence[str]) -> set[str]:
    seen = within(actor, "job.view.all", Job)
    return {
        job_id
        for part in parts(job_ids)
        for job_id in session.scalars(select(Job.id).where(Job.id.in_(part), seen))
    }


def _without_contents(view: WorkerView) -> WorkerView:
    """The same without what is stored there: somebody else's datasets and models."""
    hidden: dict[str, Any] = {"cached": [], "cached_models": []}
    return view.model_copy(update={"inventory": view.inventory.model_copy(update=hidden)})


def _worker_view(
    worker: Worker, held: list[Attempt], faulty: list[FaultySlot], seen: set[str]
) -> WorkerView:
    inventory = Inventory.model_validate(worker.inventory)
    taken = {slot for attempt in held if attempt.state in HOLDING for slot in attempt.slots}
    taken |= {slot.index for slot in faulty}
    taken |= {busy.index for busy in inventory.condition.busy}
    return WorkerView(
        faulty=faulty,
        id=worker.id,
        name=worker.name,
        state=WorkerState(worker.observed),
        desired=WorkerDesired(worker.desired),
        reason=obstacle(_facts(worker, len(held))),
        ephemeral=worker.ephemeral,
        labels=worker.labels,
        set_labels=worker.set_labels,
        inventory=inventory,
        agent_version=worker.agent_version,
        joined_at=worker.joined_at,
        credential_at=worker.credential_at,
        rotation_ordered=worker.rotate_ordered_at is not None,
        last_heartbeat_at=worker.last_heartbeat_at,
        usage=Usage.model_validate(worker.usage) if worker.usage else None,
        slots_free=sum(slot.index not in taken for slot in inventory.slots),
        jobs=[
            attempt.job_id
            for attempt in held
            if attempt.state != AttemptState.FINISHED and attempt.job_id in seen
        ],
    )


def _facts(worker: Worker, attempts: int) -> Facts:
    return Facts(
        observed=WorkerState(worker.observed),
        desired=WorkerDesired(worker.desired),
        attempts=attempts,
        ephemeral=worker.ephemeral,
        last_heard=worker.last_heartbeat_at,
        ordered_by=worker.desired_by,
        ordered_at=worker.desired_at,
        why=worker.desired_why,
        drain_until=worker.drain_until,
        revoked_at=worker.revoked_at,
    )
