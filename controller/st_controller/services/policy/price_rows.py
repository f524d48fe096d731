"""Prices as they stand in the database."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from st_controller.domain.policy.prices import Price
from st_controller.store.schema import PriceRow

_ALL = select(PriceRow.accelerator, PriceRow.provider, PriceRow.micros, PriceRow.since)


def read(session: Session) -> list[Price]:
    """All prices, those of the past and the future as well."""
    return [Price(*row) for row in session.execute(_ALL)]
