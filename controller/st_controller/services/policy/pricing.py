"""Prices as they are set and removed; each change is audited."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from st_controller.domain.policy import money
from st_controller.errors import InvalidRequest, NotFound
from st_controller.services.actor import Actor
from st_controller.services.policy import book
from st_controller.store.schema import PriceRow
from st_controller.store.transaction import QUEUE_RULES, Transaction
from st_shared.ids import new_id
from st_shared.protocol.problems import FieldProblem
from st_shared.protocol.quotas import PriceRequest, PriceView


def prices(session: Session) -> list[PriceView]:
    """All prices, the newest of each first."""
    order = (PriceRow.accelerator, PriceRow.provider, PriceRow.since.desc())
    return [price_view(row) for row in session.scalars(select(PriceRow).order_by(*order))]


def set_price(tx: Transaction, actor: Actor, wanted: PriceRequest) -> PriceView:
    """Let slots cost something from a moment on; attempts keep the price they began with."""
    try:
        micros = money.micros(wanted.amount)
    except ValueError as wrong:
        problem = FieldProblem(field="amount", message=str(wrong))
        raise InvalidRequest(f"amount: {wrong}", errors=[problem]) from None
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
