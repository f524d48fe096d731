"""Quotas as they are set and removed; each change is audited."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from st_controller.domain.policy import ceilings, quotas
from st_controller.domain.policy.ceilings import Above
from st_controller.domain.policy.quotas import Action, Kind, Quota
from st_controller.domain.policy.reach import Reach
from st_controller.errors import Conflict, InvalidRequest, NotFound, NotPermitted, Refusal
from st_controller.services.actor import Actor
from st_controller.services.outranking import get_role
from st_controller.services.policy import book, quota_book, stock
from st_controller.services.policy.quota_book import QuotaBook
from st_controller.store.schema import Organisation, QuotaCounter, QuotaRow, Team, User
from st_controller.store.transaction import QUEUE_RULES, Transaction
from st_shared.ids import new_id
from st_shared.protocol.problems import FieldProblem
from st_shared.protocol.quotas import QuotaRequest, QuotaView

MANAGE = "quota.manage"
WHOLE = "all"
"""Stands for the whole system where a path is asked."""
_PATH = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}(/[a-z0-9][a-z0-9._@-]{0,99}){0,2}")


def must_bind_others(session: Session, actor: Actor, quota: Quota, permission: str) -> None:
    """Refuse with 403 to set a limit of a node that the permission does not cover.

    Nobody sets a limit that binds themselves: who reaches a team sets those of its other members,
    who reaches an organisation those of its teams and members, and only who reaches the whole
    system those of organisations. Limits of each user of a role are those of members, and the role
    has to be below one's own.

    Raises:
        NotFound: the node is not for the actor's eyes.
        NotPermitted: the limit is not theirs to set.
    """
    reach = actor.reach(permission)
    if reach is Reach.SYSTEM:
        return
    org, team, user, *_ = [*quota.path.split("/"), "", "", ""]
    if org != actor.org:
        raise NotFound(f"there is no {quota.path or WHOLE}")
    if quota.role:
        is_below = get_role(session, quota.role).rank < actor.rank
        covered = is_below and (reach is Reach.ORG or (bool(team) and team in actor.teams))
    else:
        covered = (reach is Reach.ORG and bool(team)) or (
            reach is Reach.TEAM and bool(user) and team in actor.teams
        )
    if not covered or user == actor.username:
        said = f"the quotas of {quota.node} are set by who is above it"
        raise NotPermitted(said, hint="ask an admin")


def set_quota(
    tx: Transaction, actor: Actor, wanted: QuotaRequest, permission: str = MANAGE
) -> QuotaView:
    """Put a limit in force, or another amount in place of one; it counts from what was used.

    Raises:
        NotPermitted: it is not the actor's to set.
        InvalidRequest: the path, the role, or the amount for this kind, is wrong.
        NotFound: there is no such organisation, team or user.
        Conflict: it would lie above the limit of a node it belongs to, or below one under it.
    """
    quota = _asked(tx.session, wanted)
    must_bind_others(tx.session, actor, quota, permission)
    book.changed(tx)  # whoever sets another at the same time waits here
    standing = quota_book.read(tx.session)
    known = _same(standing, quota)
    if known is not None:
        quota = replace(quota, id=known.id)
    _must_exist(tx.session, quota.path)
    above = ceilings.above_ceilings(quota, standing.quotas)
    if above:
        raise _above(quota, above)
    _must_keep_what_it_exceeds(tx.session, actor, quota, standing, permission)
    _put(tx, quota)
    before = f"{quotas.spoken(known.kind, known.amount):f}" if known else None
    after = f"{quotas.spoken(quota.kind, quota.amount):f}"
    tx.audit(
        actor.signature,
        "quota.set",
        quota.path or WHOLE,
        **_said(quota),
        before=before,
        after=after,
    )
    tx.wake(QUEUE_RULES)
    return view(quota)


def _put(tx: Transaction, quota: Quota) -> None:
    columns = {"path": quota.path, "role": quota.role, "kind": quota.kind.value}
    row = tx.session.get(QuotaRow, quota.id)
    if row is None:
        row = QuotaRow(id=quota.id, **columns, action=quota.action.value)
        tx.session.add(row)
    row.amount = quota.amount
    tx.session.flush()
    if quota.role:
        stock.forget(tx, quota.path, quota.kind)
    else:
        stock.take_again(tx, quota_book.read(tx.session), quota.path, quota.kind)


def remove_quota(tx: Transaction, actor: Actor, quota: Quota, permission: str = MANAGE) -> None:
    """Let a limit hold no more.

    Raises:
        NotPermitted: it is not the actor's to remove.
    """
    must_bind_others(tx.session, actor, quota, permission)
    book.changed(tx)
    tx.session.execute(delete(QuotaRow).where(QuotaRow.id == quota.id))
    others = select(QuotaRow.id).where(QuotaRow.path == quota.path, QuotaRow.kind == quota.kind)
    if quota.role:
        stock.forget(tx, quota.path, quota.kind)
    elif tx.session.scalar(others.where(QuotaRow.role == "").limit(1)) is None:
        tx.session.execute(
            delete(QuotaCounter).where(
                QuotaCounter.path == quota.path, QuotaCounter.kind == quota.kind
            )
        )
    tx.audit(actor.signature, "quota.removed", quota.path or WHOLE, **_said(quota))
    tx.wake(QUEUE_RULES)


def role_changed(tx: Transaction, username: str) -> None:
    """Let the limits of another role hold for a user, from what they used already."""
    book.changed(tx)
    stock.forget(tx, "", username=username)
    tx.wake(QUEUE_RULES)


def calendar_changed(tx: Transaction, org: str) -> None:
    """Count anew by another calendar, once the organisation has another time zone.

    Days that are over stay the days that they were.
    """
    book.changed(tx)
    tx.session.flush()
    known = quota_book.read(tx.session)
    stock.forget(tx, org)
    standing = (quota for quota in known.quotas if not quota.role)
    paths = {quota.path for quota in standing if f"{quota.path}/".startswith(f"{org}/")}
    places = {place for path in paths for place in known.places_at(tx.session, path)}
    for place in quotas.in_order(places):
        stock.take(tx, known, place)


def find(session: Session, quota_id: str) -> Quota:
    """A quota, or ``NotFound``."""
    row = session.get(QuotaRow, quota_id)
    if row is None:
        raise NotFound(f"there is no quota {quota_id}")
    return quota_book.quota_of(row)


def view(quota: Quota) -> QuotaView:
    """A quota as people see it."""
    return QuotaView(
        id=quota.id,
        path=quota.path or WHOLE,
        role=quota.role or None,
        kind=quota.kind.value,
        amount=quotas.spoken(quota.kind, quota.amount),
        action=quota.action.value,
    )


def place_of(path: str) -> str:
    """The path of a node as rows hold it, or ``InvalidRequest``."""
    if path == WHOLE:
        return ""
    if not _PATH.fullmatch(path):
        raise _wrong("path", "write `org`, `org/team`, `org/team/user`, or `all`")
    return path


def _asked(session: Session, wanted: QuotaRequest) -> Quota:
    path, role = place_of(wanted.path), wanted.role or ""
    if role and path.count("/") > 1:
        raise _wrong("role", "a user has limits of their own; leave it out, or end the path before")
    if role:
        get_role(session, role)
    kind, action = Kind(wanted.kind), Action(wanted.action)
    return Quota(new_id("quo"), path, kind, _amount(wanted), action, role)


def _said(quota: Quota) -> dict[str, Any]:
    role = {"role": quota.role} if quota.role else {}
    return {**role, "kind": quota.kind, "then": quota.action}


def _must_keep_what_it_exceeds(
    session: Session, actor: Actor, own: Quota, standing: QuotaBook, permission: str
) -> None:
    """Who gives a user more than each of their role has is one who may set that."""
    username = own.path.split("/")[2:]
    if not username or not standing.of_roles:
        return
    role = session.scalar(select(User.role).where(User.username == username[0])) or ""
    for default in ceilings.exceeded(own, role, standing.of_roles):
        try:
            must_bind_others(session, actor, default, permission)
        except Refusal:
            most = f"{quotas.spoken(default.kind, default.amount):f}"
            said = f"{default.node} has {most}: more is given by who sets that"
            raise NotPermitted(said, hint=f"give at most {most}, or ask an admin") from None


def _amount(wanted: QuotaRequest) -> int:
    try:
        return quotas.smallest(Kind(wanted.kind), wanted.amount)
    except ValueError as wrong:
        raise _wrong("amount", str(wrong)) from None


def _same(standing: QuotaBook, wanted: Quota) -> Quota | None:
    """The limit that it takes the place of."""
    found = (each for each in standing.quotas if _key(each) == _key(wanted))
    return next(found, None)


def _key(quota: Quota) -> tuple[str, str, Kind, Action]:
    return quota.path, quota.role, quota.kind, quota.action


def _must_exist(session: Session, path: str) -> None:
    """A limit of nobody would bind nobody, and whoever mistyped it would not know."""
    org, team, user, *_ = [*path.split("/"), "", "", ""]
    if org and session.get(Organisation, org) is None:
        raise NotFound(f"there is no organisation {org!r}")
    if team and session.get(Team, (org, team)) is None:
        raise NotFound(f"there is no team {team!r} in {org!r}")
    known = select(User.id).where(User.username == user, User.org == org)
    if user and session.scalar(known) is None:
        raise NotFound(f"there is no user {user!r} in {org!r}")


def _above(wanted: Quota, found: Sequence[Above]) -> Conflict:
    outer, _ = found[0]
    if outer is wanted:
        names = ", ".join(
            f"{inner.node} ({quotas.spoken(inner.kind, inner.amount):f})" for _, inner in found[:10]
        )
        said = f"limits below it are higher: {names}"
        mend = "lower those first"
    else:
        ceiling = f"{quotas.spoken(outer.kind, outer.amount):f}"
        said = f"{outer.node} has {ceiling}: no limit below it can be higher"
        mend = f"give at most {ceiling}, or raise that first"
    return Conflict(said, code="above_ceiling", hint=mend)


def _wrong(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(
        f"{field}: {message}", errors=[FieldProblem(field=field, message=message)]
    )
