"""Quotas and prices of a file."""

from collections.abc import Iterator, Sequence

from sqlalchemy import select

from st_controller.domain.policy import money
from st_controller.services.actor import Actor
from st_controller.services.arrangement.change import Change
from st_controller.services.policy import pricing, quota_book, quota_setting
from st_controller.store.schema import PriceRow, QuotaRow
from st_controller.store.transaction import Transaction
from st_shared.protocol.org_file import PriceEntry
from st_shared.protocol.quotas import PriceRequest, QuotaRequest, QuotaView

_Key = tuple[str, str, str, str]


def arrange_quotas(
    tx: Transaction, actor: Actor, wanted: Sequence[QuotaRequest], *, prune: bool
) -> Iterator[Change]:
    """Set limits: lower ones from the inside, then higher and new ones from the outside.

    So no limit ever stands above that of a node around it, if none does in the end.
    """
    quotas = [
        quota_book.quota_of(row)
        for row in tx.session.scalars(select(QuotaRow).order_by(QuotaRow.path))
    ]
    standing = {(q.path or "all", q.role, q.kind.value, q.action.value): q for q in quotas}
    views = {key: quota_setting.view(quota) for key, quota in standing.items()}
    asked = {(e.path, e.role or "", e.kind, e.action): e for e in wanted}
    for key in sorted(views.keys() - asked.keys(), key=_depth, reverse=True) if prune else []:
        quota_setting.remove_quota(tx, actor, standing[key])
        yield Change("remove", "quota", _called(key))
    lower = [key for key in asked if key in views and asked[key].amount < views[key].amount]
    higher = [key for key in asked if key not in views or asked[key].amount > views[key].amount]
    for key in [*sorted(lower, key=_depth, reverse=True), *sorted(higher, key=_depth)]:
        yield _set(tx, actor, key, asked[key], views.get(key))


def _set(
    tx: Transaction, actor: Actor, key: _Key, entry: QuotaRequest, view: QuotaView | None
) -> Change:
    name = _called(key)
    quota_setting.set_quota(tx, actor, entry)
    tx.session.flush()
    if view is None:
        return Change("create", "quota", name)
    return Change("change", "quota", name, {"amount": (f"{view.amount:f}", f"{entry.amount:f}")})


def arrange_prices(
    tx: Transaction, actor: Actor, wanted: Sequence[PriceEntry], *, prune: bool
) -> Iterator[Change]:
    """Let slots cost what the file says from now on, where they do not already."""
    now: dict[tuple[str, str], PriceRow] = {}
    for row in tx.session.scalars(
        select(PriceRow).where(PriceRow.since <= tx.now).order_by(PriceRow.since)
    ):
        now[row.accelerator, row.provider] = row
    kept = set()
    for entry in wanted:
        kept.add((entry.accelerator, entry.provider))
        name = f"{entry.provider}/{entry.accelerator}"
        standing = now.get((entry.accelerator, entry.provider))
        before = money.decimal(standing.micros) if standing else None
        if before == entry.amount:
            continue
        request = PriceRequest(
            accelerator=entry.accelerator, provider=entry.provider, amount=entry.amount
        )
        pricing.set_price(tx, actor, request)
        fields = {} if before is None else {"amount": (f"{before:f}", f"{entry.amount:f}")}
        yield Change("create" if before is None else "change", "price", name, fields)
    if prune:
        rows = tx.session.scalars(select(PriceRow).order_by(PriceRow.id))
        for row in [row for row in rows if (row.accelerator, row.provider) not in kept]:
            pricing.remove_price(tx, actor, row.id)
            yield Change("remove", "price", f"{row.provider}/{row.accelerator}")


def _called(key: _Key) -> str:
    return " ".join(part for part in key if part)


def _depth(key: _Key) -> tuple[int, bool, _Key]:
    """Limits of the users of a role lie within those of the node."""
    return (0 if key[0] == "all" else 1 + key[0].count("/"), bool(key[1]), key)
