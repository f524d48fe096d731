"""Secrets by name: set and removed by people, given to attempts, and told to nobody else."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import structlog
from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from st_controller.auth.vault import Sealed, SealError, Vault
from st_controller.domain.policy.reach import Owner
from st_controller.errors import Conflict, InvalidRequest, NotFound, Unavailable
from st_controller.services import drafts, leases
from st_controller.services.actor import Actor
from st_controller.services.drafts import Draft
from st_controller.store.database import Database
from st_controller.store.schema import Job, StoredSecret
from st_controller.store.transaction import Transaction
from st_shared.ids import new_id
from st_shared.protocol.problems import FieldProblem
from st_shared.protocol.secrets import SecretView

log = structlog.get_logger(__name__)

SHARED = ""
"""The owner of what an organisation shares."""
MOST = 500
"""Secrets of one owner."""


def seal(vault: Vault, actor: Actor, name: str, value: str, *, shared: bool) -> Sealed:
    """The value, sealed for its place; done before the transaction, as a key service may be slow.

    Raises:
        InvalidRequest: no environment can hold it.
        Unavailable: the key service does not do its part.
    """
    if "\x00" in value:
        problem = FieldProblem(field="value", message="holds a NUL character")
        raise InvalidRequest("no environment can hold this value", errors=[problem])
    try:
        return vault.seal(value.encode(), _place(actor.org, _owner(actor, shared=shared), name))
    except SealError as error:
        log.exception("a secret cannot be sealed")
        raise Unavailable("the secret cannot be sealed just now") from error


def put(tx: Transaction, actor: Actor, name: str, sealed: Sealed, *, shared: bool) -> SecretView:
    """Store a secret under a name, in place of an earlier one.

    Raises:
        Conflict: the owner has too many.
    """
    owner = _owner(actor, shared=shared)
    row = tx.session.scalar(_named(actor.org, owner, [name]).with_for_update())
    is_new = row is None
    if row is None:
        others = select(StoredSecret.id).where(
            StoredSecret.org == actor.org, StoredSecret.owner == owner
        )
        if len(tx.session.scalars(others.limit(MOST)).all()) == MOST:
            raise Conflict(f"there are {MOST} secrets already", hint="delete some")
        row = StoredSecret(
            id=new_id("sec"), org=actor.org, owner=owner, name=name, created_at=tx.now
        )
        tx.session.add(row)
    row.key_id, row.wrapped_key, row.box = sealed.key_id, sealed.wrapped_key, sealed.box
    row.changed_at, row.changed_by = tx.now, actor.username
    action = "secret.created" if is_new else "secret.changed"
    tx.audit(actor.signature, action, row.id, name=name, shared=shared)
    tx.session.flush()
    return view(row)


def remove(tx: Transaction, actor: Actor, name: str, *, shared: bool) -> None:
    """Remove a secret; attempts that have it keep it until they end.

    Raises:
        NotFound: there is none.
    """
    owner = _owner(actor, shared=shared)
    gone = tx.session.execute(
        delete(StoredSecret)
        .where(
            StoredSecret.org == actor.org, StoredSecret.owner == owner, StoredSecret.name == name
        )
        .returning(StoredSecret.id)
    ).scalar()
    if gone is None:
        raise NotFound(f"there is no secret {name!r}")
    tx.audit(actor.signature, "secret.deleted", gone, name=name, shared=shared)


def usable(session: Session, actor: Actor) -> list[SecretView]:
    """The secrets that the actor's jobs may name: their own and the organisation's, by name."""
    rows = session.scalars(
        select(StoredSecret)
        .where(StoredSecret.org == actor.org, StoredSecret.owner.in_([SHARED, actor.user_id]))
        .order_by(StoredSecret.name, StoredSecret.owner)
    )
    return [view(row) for row in rows]


def must_exist(session: Session, actor: Actor, batch: Sequence[Draft]) -> None:
    """Refuse job files that name secrets which the actor cannot use.

    Raises:
        InvalidRequest: the field of each is named.
    """
    wanted = {name for draft in batch for name in draft.spec.secrets.values()}
    if not wanted:
        return
    found = _by_name(session, actor.org, actor.user_id, wanted)
    problems = [
        draft.problem(
            f"secrets.{variable}", f"no secret is stored as {name!r}; `st secrets set` stores one"
        )
        for draft in batch
        for variable, name in draft.spec.secrets.items()
        if name not in found
    ]
    if problems:
        raise drafts.invalid(problems)


def deliver(
    db: Database, vault: Vault, worker_id: str, attempt_id: str, epoch: int
) -> dict[str, str]:
    """The environment of an attempt's secrets, for the worker that holds its lease.

    A person's own secret wins over the organisation's of the same name. Every delivery is audited.

    Raises:
        StaleLease: the lease is not in force.
        Conflict: a secret that the job names is gone.
        Unavailable: what is stored cannot be opened.
    """
    with db.write() as tx:
        _, job = leases.held(tx, worker_id, attempt_id, epoch)
        wanted: dict[str, str] = job.spec.get("secrets") or {}
        found = _found(tx.session, job, wanted)
        tx.audit(
            f"worker:{worker_id}",
            "secret.delivered",
            attempt_id,
            job=job.id,
            secrets=sorted(row.id for row in found.values()),
        )
    try:
        return {
            variable: vault.open(_sealed(row), _place(row.org, row.owner, row.name)).decode()
            for variable, row in found.items()
        }
    except SealError as error:
        log.exception("a secret cannot be opened", attempt=attempt_id)
        raise Unavailable("a secret of this job cannot be opened just now") from error


def must_manage(actor: Actor) -> None:
    """Refuse who does not reach the whole organisation."""
    actor.must_cover(Owner(None, actor.org, None), "secret.manage")


def view(row: StoredSecret) -> SecretView:
    """What is told of a secret."""
    return SecretView(
        name=row.name,
        shared=row.owner == SHARED,
        created_at=row.created_at,
        changed_at=row.changed_at,
        changed_by=row.changed_by,
    )


def _found(session: Session, job: Job, wanted: Mapping[str, str]) -> dict[str, StoredSecret]:
    stored = _by_name(session, job.org, job.submitted_by, wanted.values())
    gone = sorted({name for name in wanted.values() if name not in stored})
    if gone:
        raise Conflict(
            f"the job names secrets that are gone: {', '.join(gone)}",
            code="secret_missing",
            hint="store them again with `st secrets set`, then `st retry`",
        )
    return {variable: stored[name] for variable, name in wanted.items()}


def _by_name(
    session: Session, org: str, user_id: str, names: Iterable[str]
) -> dict[str, StoredSecret]:
    mine = or_(StoredSecret.owner == SHARED, StoredSecret.owner == user_id)
    query = select(StoredSecret).where(
        StoredSecret.org == org, mine, StoredSecret.name.in_(sorted(set(names)))
    )
    # The organisation's first, so that one's own take their places.
    return {row.name: row for row in session.scalars(query.order_by(StoredSecret.owner))}


def _named(org: str, owner: str, names: Sequence[str]) -> Any:
    return select(StoredSecret).where(
        StoredSecret.org == org, StoredSecret.owner == owner, StoredSecret.name.in_(names)
    )


def _sealed(row: StoredSecret) -> Sealed:
    return Sealed(row.key_id, row.wrapped_key, row.box)


def _owner(actor: Actor, *, shared: bool) -> str:
    return SHARED if shared else actor.user_id


def _place(org: str, owner: str, name: str) -> str:
    return f"secret {org}/{owner}/{name}"
