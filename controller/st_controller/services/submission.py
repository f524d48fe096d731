"""Putting jobs into the queue: one, or a whole batch that stands and falls together."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from st_controller.domain.dependencies import Parent, why_waiting
from st_controller.services import (
    configs,
    dependencies,
    drafts,
    idempotency,
    parentage,
    stored_secrets,
)
from st_controller.services.actor import Actor
from st_controller.services.drafts import Draft, Rules
from st_controller.services.jobs import get_job
from st_controller.services.moves import begin_jobs
from st_controller.services.policy import admission
from st_controller.store.requests import request_text, wanted_contents
from st_controller.store.schema import Dataset, Job
from st_controller.store.transaction import Transaction
from st_shared.ids import new_id
from st_shared.protocol.resources import Reason
from st_shared.protocol.states import JobState

NOTHING_MORE = Rules()
"""No rule is relaxed."""
LARGEST_BATCH = 1000
"""Jobs in one request."""


class Submitted(NamedTuple):
    """What came of a job file."""

    job_id: str
    columns: dict[str, Any] | None
    """Of its row, where it is new."""
    warnings: tuple[Reason, ...] = ()
    """What the policy has to say of it."""


class Member(NamedTuple):
    """A job of a batch."""

    job_id: str
    name: str
    warnings: tuple[Reason, ...] = ()


def submit(
    tx: Transaction,
    actor: Actor,
    document: object,
    idempotency_key: str | None = None,
    rules: Rules = NOTHING_MORE,
) -> tuple[Job, bool]:
    """Queue a job; the second value is whether it is new.

    Raises:
        InvalidRequest: the specification is wrong; every mistake is named.
        NotPermitted: it asks for what the actor may not have.
        Conflict: the key was used with another body.
    """
    done = enqueue(tx, actor, check(actor, document, rules), idempotency_key)
    if done.columns:
        return Job(**done.columns), True
    return get_job(tx.session, actor, done.job_id), False


def check(actor: Actor, document: object, rules: Rules) -> Draft:
    """All that can be said of a job file without the database, or a refusal."""
    draft = drafts.read(document)
    drafts.must_be_allowed(actor, [draft], rules)
    return draft


def check_batch(actor: Actor, documents: Sequence[object], rules: Rules) -> list[Draft]:
    """The same for many; their mistakes are named ``jobs.3.training.steps``."""
    places = [f"jobs.{index}." for index in range(len(documents))]
    found = drafts.read_all(documents, places)
    drafts.must_be_allowed(actor, found, rules)
    return found


def enqueue(
    tx: Transaction, actor: Actor, draft: Draft, idempotency_key: str | None = None
) -> Submitted:
    """Queue a checked job; the same key and body give the id of the first call."""
    job_id = new_id("job")
    if idempotency_key is not None:
        body = f"jobs\n{draft.text}"
        earlier = idempotency.take(tx, actor, idempotency_key, body, {"job": job_id})
        if earlier is not None:
            return Submitted(str(earlier["job"]), None)
    return store(tx, actor, [draft], [job_id])[0]


def enqueue_batch(
    tx: Transaction, actor: Actor, batch: Sequence[Draft], idempotency_key: str | None = None
) -> tuple[list[Member], bool]:
    """Queue checked jobs, all or none; the jobs in their order, and whether they are new."""
    parents = parentage.inside(batch)
    ids = parentage.ids_in_order(batch, parents)
    if idempotency_key is not None:
        body = "jobs:batch\n" + "\n".join(draft.text for draft in batch)
        earlier = idempotency.take(tx, actor, idempotency_key, body, {"jobs": ids})
        if earlier is not None:
            return [
                Member(job_id, draft.spec.name)
                for job_id, draft in zip(earlier["jobs"], batch, strict=True)
            ], False
    stored = store(tx, actor, batch, ids, inside=parents)
    return [
        Member(done.job_id, draft.spec.name, done.warnings)
        for done, draft in zip(stored, batch, strict=True)
    ], True


def store(
    tx: Transaction,
    actor: Actor,
    batch: Sequence[Draft],
    ids: Sequence[str],
    *,
    inside: Sequence[Sequence[int]] | None = None,
    array_id: str | None = None,
) -> list[Submitted]:
    """Write new jobs under these ids, or refuse all of them.

    ``inside`` says for each which others of the batch it waits for.
    """
    configs.must_exist(tx.session, actor, batch)
    stored_secrets.must_exist(tx.session, actor, batch)
    pins = pinned_datasets(tx.session, actor.org, batch)
    parents = parentage.parents(tx.session, actor, batch, ids, inside)
    rows = [
        {
            **_new_job(draft, waits_for, pins),
            "id": job_id,
            "org": actor.org,
            "team": draft.spec.team or actor.team,
            "array_id": array_id,
            "array_index": None if array_id is None else index,
            "changed_at": tx.now,
            "submitted_by": actor.user_id,
            "submitted_at": tx.now,
            "queued_at": tx.now,
        }
        for index, (draft, job_id, waits_for) in enumerate(zip(batch, ids, parents, strict=True))
    ]
    admissions = admission.admit(tx, actor, batch, rows)
    begin_jobs(tx, rows, actor.signature)
    dependencies.attach(
        tx, [(row["id"], up.id) for row, ups in zip(rows, parents, strict=True) for up in ups]
    )
    admission.record(tx, actor, rows, admissions)
    return [
        Submitted(row["id"], row, admitted.warnings)
        for row, admitted in zip(rows, admissions, strict=True)
    ]


def _new_job(draft: Draft, parents: Sequence[Parent], pins: dict[str, str]) -> dict[str, Any]:
    spec = draft.spec
    document = spec.model_dump(mode="json")
    document["after"] = [parent.id for parent in parents]
    datasets = spec.training.datasets if spec.training else ()
    pinned = {item.name: pins[item.name] for item in datasets if item.name}
    why = why_waiting(parents)
    return {
        "name": spec.name,
        "kind": spec.kind,
        "family": spec.training.model.family if spec.training else spec.kind,
        "config": spec.config,
        "spec": document,
        "request": request_text(document),
        "dataset_pins": pinned,
        "wants": wanted_contents(document, pinned),
        "expected_seconds": spec.expected_seconds,
        "priority": spec.priority.value,
        "level": spec.priority.level,
        "override": None,
        "slots": spec.resources.slots * spec.resources.nodes,
        "not_before": spec.not_before,
        "open_parents": sum(parent.state is not JobState.SUCCEEDED for parent in parents),
        "preemptible": spec.preemptible,
        "preemptions": 0,
        "state": JobState.QUEUED.value,
        "version": 1,
        "cancel_requested_at": None,
        "started_at": None,
        "finished_at": None,
        "deleted_at": None,
        "purged_at": None,
        "max_attempts": spec.retry.max_attempts,
        "attempts": 0,
        "tries_used": 0,
        "reason": why.model_dump() if why else None,
        "progress": None,
        "checkpoint_step": None,
        "checkpoint_id": None,
        "held_micros": None,
        "held_slot_ms": None,
        "stop_reason": None,
    }


def pinned_datasets(session: Session, org: str, batch: Sequence[Draft]) -> dict[str, str]:
    """What each dataset name stands for now, so that every attempt trains on the same content."""
    wanted = [
        (draft, f"training.datasets.{index}.name", dataset.name)
        for draft in batch
        if draft.spec.training
        for index, dataset in enumerate(draft.spec.training.datasets)
        if dataset.name is not None
    ]
    if not wanted:
        return {}
    names = sorted({name for _, _, name in wanted})
    pins: dict[str, str] = {}
    for start in range(0, len(names), LARGEST_BATCH):
        part = names[start : start + LARGEST_BATCH]
        query = select(Dataset.name, Dataset.id).where(
            Dataset.org == org, Dataset.name.in_(part), Dataset.current
        )
        pins.update({row.name: row.id for row in session.execute(query)})
    problems = [
        draft.problem(
            field, f"no dataset is registered as {name!r}; `st datasets push` registers one"
        )
        for draft, field, name in wanted
        if name not in pins
    ]
    if problems:
        raise drafts.invalid(problems)
    return pins
