"""Quotas and prices as they are set and removed; each change is audited."""

import re
from collections.abc import Sequence

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from st_controller.domain.policy import money, quotas
from st_controller.domain.policy.quotas import Above, Action, Kind, Quota
from st_controller.domain.policy.reach import Reach
from st_controller.errors import Conflict, InvalidRequest, NotFound, NotPermitted
from st_controller.services.actor import Actor
from st_controller.services.policy import book, quota_book, stock
from st_controller.services.policy.quota_book import QuotaBook
from st_controller.store.schema import Organisation, PriceRow, QuotaCounter, QuotaRow, Team, User
from st_controller.store.transaction import QUEUE_RULES, Transaction
from st_shared.ids import new_id
from st_shared.protocol.problems import FieldProblem
from st_shared.protocol.quotas import PriceRequest, PriceView, QuotaRequest, QuotaView

MANAGE = "quota.manage"
WHOLE = "all"
"""Stands for the whole system where a path is asked."""
_PATH = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}(/[a-z0-9][a-z0-9._@-]{0,99}){0,2}")


def must_bind_others(actor: Actor, path: str, permission: str) -> None:
    """Refuse with 403 to set a limit of a node that the permission does not cover.

    Nobody sets a limit that binds themselves: who reaches a team sets those of its other members,
    who reaches an organisation those of its teams and members, and only who reaches the whole
    system those of organisations.

    Raises:
        NotFound: the node is not for the actor's eyes.
        NotPermitted: the limit is not theirs to set.
    """
    reach = actor.reach(permission)
    if reach is Reach.SYSTEM:
        return
    org, team, user, *_ = [*path.split("/"), "", "", ""]
    if org != actor.org:
        raise NotFound(f"there is no {path or WHOLE}")
    covered = (reach is Reach.ORG and bool(team)) or (
        reach is Reach.TEAM and bool(user) and team in actor.teams
    )
    if not covered or user == actor.username:
        said = f"the quotas of {path} are set by who is above it"
        raise NotPermitted(said, hint="ask an admin")


def set_quota(
    tx: Transaction, actor: Actor, wanted: QuotaRequest, permission: str = MANAGE
) -> QuotaView:
    """Put a limit in force, or another amount in place of one; it counts from what was used.

    Raises:
        NotPermitted: it is not the actor's to set.
        InvalidRequest: the path, or the amount for this kind, is wrong.
        NotFound: there is no such organisation, team or user.
        Conflict: it would lie above the limit of a node it belongs to, or below one under it.
    """
    path = place_of(wanted.path)
    must_bind_others(actor, path, permission)
    quota = Quota(new_id("quo"), path, Kind(wanted.kind), _amount(wanted), Action(wanted.action))
    book.changed(tx)  # whoever sets another at the same time waits here
    standing = quota_book.read(tx.session)
    known = _same(standing, quota)
    if known is not None:
        quota = Quota(known.id, path, quota.kind, quota.amount, quota.action)
    _must_exist(tx.session, path)
    above = quotas.above_ceilings(quota, standing.quotas)
    if above:
        raise _above(quota, above)
    if known is None:
        row = QuotaRow(
            id=quota.id, path=path, kind=quota.kind.value, action=quota.action.value,
            amount=quota.amount, changed_at=tx.now,
        )  # fmt: skip
        tx.session.add(row)
    else:
        row = tx.session.get_one(QuotaRow, quota.id)
        row.amount, row.changed_at = quota.amount, tx.now
    tx.session.flush()
    stock.take_again(tx, path, quota.kind)
    before = f"{quotas.spoken(known.kind, known.amount):f}" if known else None
    said = {"kind": quota.kind, "then": quota.action, "before": before}
    after = f"{quotas.spoken(quota.kind, quota.amount):f}"
    tx.audit(actor.signature, "quota.set", path or WHOLE, **said, after=after)
    tx.wake(QUEUE_RULES)
    return view(quota)


def remove_quota(tx: Transaction, actor: Actor, quota: Quota, permission: str = MANAGE) -> None:
    """Let a limit hold no more.

    Raises:
        NotPermitted: it is not the actor's to remove.
    """
    must_bind_others(actor, quota.path, permission)
    book.changed(tx)
    tx.session.execute(delete(QuotaRow).where(QuotaRow.id == quota.id))
    others = select(QuotaRow.id).where(QuotaRow.path == quota.path, QuotaRow.kind == quota.kind)
    if tx.session.scalar(others.limit(1)) is None:
        tx.session.execute(
            delete(QuotaCounter).where(
                QuotaCounter.path == quota.path, QuotaCounter.kind == quota.kind
            )
        )
    said = {"kind": quota.kind, "then": quota.action}
    tx.audit(actor.signature, "quota.removed", quota.path or WHOLE, **said)
    tx.wake(QUEUE_RULES)


def prices(session: Session) -> list[PriceView]:
    """All prices, the newest of each first."""
    order = (PriceRow.accelerator, PriceRow.provider, PriceRow.since.desc())
    return [price_view(row) for row in session.scalars(select(PriceRow).order_by(*order))]


def calendar_changed(tx: Transaction, org: str) -> None:
    """Count anew by another calendar, once the organisation has another time zone.

    Days that are over stay the days that they were.
    """
    book.changed(tx)
    tx.session.flush()
    known = quota_book.read(tx.session)
    paths = {quota.path for quota in known.quotas if f"{quota.path}/".startswith(f"{org}/")}
    for place in quotas.in_order(place for path in paths for place in known.places(path)):
        stock.take(tx, known, place)


def find(session: Session, quota_id: str) -> Quota:
    """A quota, or ``NotFound``."""
    row = session.get(QuotaRow, quota_id)
    if row is None:
        raise NotFound(f"there is no quota {quota_id}")
    return Quota(row.id, row.path, Kind(row.kind), row.amount, Action(row.action))


def view(quota: Quota) -> QuotaView:
    """A quota as people see it."""
    return QuotaView(
        id=quota.id,
        path=quota.path or WHOLE,
        kind=quota.kind.value,
        amount=quotas.spoken(quota.kind, quota.amount),
        action=quota.action.value,
    )


def set_price(tx: Transaction, actor: Actor, wanted: PriceRequest) -> PriceView:
    """Let slots cost something from a moment on; attempts keep the price they began with."""
    try:
        micros = money.micros(wanted.amount)
    except ValueError as wrong:
        raise _wrong("amount", str(wrong)) from None
    since = wanted.since or tx.now
    same = (
        (PriceRow.accelerator == wanted.accelerator)
        & (PriceRow.provider == wanted.provider)
        & (PriceRow.since == since)
    )
    book.changed(tx)
    row = tx.session.scalar(select(PriceRow).where(same))
    if row is None:
        row = PriceRow(
            id=new_id("pri"), accelerator=wanted.accelerator, provider=wanted.provider,
            micros=micros, since=since,
        )  # fmt: skip
        tx.session.add(row)
    row.micros = micros
    tx.session.flush()
    said = {"provider": row.provider, "amount": f"{money.decimal(micros):f}"}
    tx.audit(actor.signature, "price.set", row.accelerator, **said, since=since.isoformat())
    tx.wake(QUEUE_RULES)
    return price_view(row)


def remove_price(tx: Transaction, actor: Actor, price_id: str) -> None:
    """Take a price away; what was charged stays charged."""
    book.changed(tx)
    row = tx.session.get(PriceRow, price_id)
    if row is None:
        raise NotFound(f"there is no price {price_id}")
    tx.session.delete(row)
    tx.audit(actor.signature, "price.removed", row.accelerator, provider=row.provider)
    tx.wake(QUEUE_RULES)


def price_view(row: PriceRow) -> PriceView:
    """A price as people see it."""
    return PriceView(
        id=row.id,
        accelerator=row.accelerator,
        provider=row.provider,
        amount=money.decimal(row.micros),
        since=row.since,
    )


def place_of(path: str) -> str:
    """The path of a node as rows hold it, or ``InvalidRequest``."""
    if path == WHOLE:
        return ""
    if not _PATH.fullmatch(path):
        raise _wrong("path", "write `org`, `org/team`, `org/team/user`, or `all`")
    return path


def _amount(wanted: QuotaRequest) -> int:
    try:
        return quotas.smallest(Kind(wanted.kind), wanted.amount)
    except ValueError as wrong:
        raise _wrong("amount", str(wrong)) from None


def _same(standing: QuotaBook, wanted: Quota) -> Quota | None:
    key = (wanted.path, wanted.kind, wanted.action)
    found = (each for each in standing.quotas if (each.path, each.kind, each.action) == key)
    return next(found, None)


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
            f"{inner.path} ({quotas.spoken(inner.kind, inner.amount):f})" for _, inner in found[:10]
        )
        said = f"limits below it are higher: {names}"
        mend = "lower those first"
    else:
        ceiling = f"{quotas.spoken(outer.kind, outer.amount):f}"
        said = f"{outer.path or 'the whole system'} has {ceiling}: no limit below it can be higher"
        mend = f"give at most {ceiling}, or raise that first"
    return Conflict(said, code="above_ceiling", hint=mend)


def _wrong(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(
        f"{field}: {message}", errors=[FieldProblem(field=field, message=message)]
    )
