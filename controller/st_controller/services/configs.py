"""Saved configurations: parts of job files under a name, which job files begin from."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from st_controller.domain.policy.reach import Owner
from st_controller.errors import Conflict, NotFound, NotPermitted
from st_controller.services import drafts
from st_controller.services.actor import Actor
from st_controller.services.drafts import Draft
from st_controller.store.database import Database
from st_controller.store.schema import SavedConfig, User
from st_controller.store.transaction import Transaction
from st_shared.ids import new_id
from st_shared.protocol.configs import ConfigChange, ConfigDetail, ConfigRequest, ConfigView
from st_shared.spec.job import JobSpec
from st_shared.spec.reading import SpecProblem, SpecProblems, validate_section

_OF_ONE_JOB = ("config", "team", "after", "not_before")
"""What a job says for itself."""
_LATER = ("required, but missing", "give exactly one of")
"""Mistakes that the job file may mend."""


def list_configs(
    session: Session, actor: Actor, *, after: str | None, limit: int
) -> tuple[list[SavedConfig], str | None]:
    """Those of the actor's organisation by name, and the name after which the next page begins."""
    query = select(SavedConfig).where(SavedConfig.org == actor.org).order_by(SavedConfig.name)
    if after:
        query = query.where(SavedConfig.name > after)
    found = list(session.scalars(query.limit(limit + 1)))
    return found[:limit], found[limit - 1].name if len(found) > limit else None


def get_config(session: Session, actor: Actor, name: str, *, lock: bool = False) -> SavedConfig:
    """One of the actor's organisation, or ``NotFound``."""
    query = select(SavedConfig).where(SavedConfig.org == actor.org, SavedConfig.name == name)
    row = session.scalar(query.with_for_update() if lock else query)
    if row is None:
        raise NotFound(f"there is no config {name!r}", hint="`st configs list` shows them")
    return row


def make_config(tx: Transaction, actor: Actor, request: ConfigRequest) -> SavedConfig:
    """Save a configuration under a new name.

    Raises:
        InvalidRequest: it is no part of a job file.
        Conflict: the name is taken.
    """
    _must_be_part(request.document)
    row = SavedConfig(
        id=new_id("cfg"),
        org=actor.org,
        team=actor.team,
        name=request.name,
        note=request.note,
        document=request.document,
        version=1,
        created_by=actor.user_id,
        created_at=tx.now,
        changed_at=tx.now,
    )
    try:
        with tx.session.begin_nested():
            tx.session.add(row)
    except IntegrityError:
        raise Conflict(
            f"the name {request.name!r} is taken",
            code="name_taken",
            hint="change that one, or choose another name",
        ) from None
    tx.audit(actor.signature, "config.created", row.id, name=row.name)
    return row


def change_config(tx: Transaction, actor: Actor, name: str, change: ConfigChange) -> SavedConfig:
    """Put other content under a name; jobs that were made of the earlier one keep theirs.

    Raises:
        NotPermitted: it is somebody else's.
        Conflict: it was changed since the version that the caller saw.
    """
    _must_be_part(change.document)
    row = get_config(tx.session, actor, name, lock=True)
    _must_own(actor, row, "config.edit.own", "config.edit.all")
    if change.version is not None and change.version != row.version:
        raise Conflict(
            f"{name} is at version {row.version}, not {change.version}",
            code="version_conflict",
            hint="look at it again, and change what is there now",
        )
    row.document, row.changed_at = change.document, tx.now
    row.note = row.note if change.note is None else change.note
    row.version += 1
    tx.audit(actor.signature, "config.changed", row.id, name=name, version=row.version)
    return row


def delete_config(tx: Transaction, actor: Actor, name: str) -> None:
    """Remove a configuration; jobs that were made of it stay as they are."""
    row = get_config(tx.session, actor, name, lock=True)
    _must_own(actor, row, "config.delete.own", "config.delete.all")
    tx.session.delete(row)
    tx.audit(actor.signature, "config.deleted", row.id, name=name)


def begun_from(db: Database, actor: Actor, documents: Iterable[Any]) -> list[Any]:
    """Job files with what the configurations that they name have, under what they say themselves.

    A configuration that does not exist is left to be told as a mistake of the file.
    """
    given = list(documents)
    wanted = {name for each in given if (name := _named(each)) is not None}
    if not wanted or not actor.may("config.view"):
        return given
    with db.read() as session:
        rows = session.scalars(
            select(SavedConfig).where(
                SavedConfig.org == actor.org, SavedConfig.name.in_(sorted(wanted))
            )
        )
        known = {row.name: row.document for row in rows}
    return [_merged(known.get(_named(each) or "", {}), each) for each in given]


def must_exist(session: Session, actor: Actor, batch: Iterable[Draft]) -> None:
    """Refuse with 422 jobs that begin from configurations which are not there."""
    named = [draft for draft in batch if draft.spec.config is not None]
    if not named:
        return
    names = sorted({draft.spec.config or "" for draft in named})
    query = select(SavedConfig.name).where(SavedConfig.org == actor.org)
    known = set(session.scalars(query.where(SavedConfig.name.in_(names))))
    if not actor.may("config.view"):
        raise NotPermitted("this needs the permission 'config.view'")
    problems = [
        draft.problem("config", f"there is no config {draft.spec.config!r}; see `st configs`")
        for draft in named
        if draft.spec.config not in known
    ]
    if problems:
        raise drafts.invalid(problems)


def as_sent(draft: Draft, document: object) -> Draft:
    """The draft with the text that came, so that the same request stays the same."""
    return draft if draft.spec.config is None else replace(draft, text=drafts.canonical(document))


def views(session: Session, rows: Iterable[SavedConfig]) -> list[ConfigView]:
    """Configurations as a list shows them."""
    found = list(rows)
    ids = {row.created_by for row in found}
    users = session.execute(select(User.id, User.username).where(User.id.in_(ids)))
    names = {key: name for key, name in users}  # noqa: C416 - to mypy a Row is no pair
    return [ConfigView(**_fields(row, names[row.created_by])) for row in found]


def detail(session: Session, row: SavedConfig) -> ConfigDetail:
    """One configuration with its content."""
    (view,) = views(session, [row])
    return ConfigDetail(**view.model_dump(), document=row.document)


def _fields(row: SavedConfig, username: str) -> dict[str, Any]:
    columns = ("name", "note", "team", "version", "created_at", "changed_at")
    return {**{name: getattr(row, name) for name in columns}, "created_by": username}


def _named(document: object) -> str | None:
    name = document.get("config") if isinstance(document, dict) else None
    return name if isinstance(name, str) else None


def _merged(below: Mapping[str, Any], above: Any) -> Any:
    """Mappings are merged key by key; anything else that is said above wins."""
    if not isinstance(above, dict):
        return above
    found: dict[str, Any] = dict(below)
    for key, value in above.items():
        under = found.get(key)
        is_both = isinstance(value, dict) and isinstance(under, dict)
        found[key] = _merged(under or {}, value) if is_both else value
    return found


def _must_own(actor: Actor, row: SavedConfig, own: str, everyone: str) -> None:
    if row.created_by == actor.user_id and actor.may(own):
        return
    owner = Owner(None, row.org, row.team)
    if not actor.reaches(owner, everyone):
        raise NotPermitted(
            f"it is {'yours' if row.created_by == actor.user_id else 'not yours'}: "
            f"this needs the permission {everyone!r}"
        )


def _must_be_part(document: Mapping[str, Any]) -> None:
    """Refuse what no job file could say; what is missing may still come from the job."""
    problems = [
        SpecProblem(f"document.{key}", "leave it out: each job says it for itself")
        for key in _OF_ONE_JOB
        if key in document
    ]
    if len(drafts.canonical(document)) > drafts.MAX_SPEC_BYTES:
        problems.append(SpecProblem("document", "more than 1 MiB"))
    try:
        validate_section(JobSpec, dict(document))
    except SpecProblems as found:
        problems += [
            SpecProblem(f"document.{each.field}".removesuffix("."), each.message)
            for each in found.problems
            if not each.message.startswith(_LATER)
        ]
    if problems:
        raise drafts.invalid(problems)
