"""Quotas and prices of a controller, and what its counters and charges say."""

from decimal import Decimal

from sqlalchemy import select

from st_controller.services.policy import accrual, pricing, quota_book, quota_setting, stock
from st_controller.store.schema import Charge, QuotaCounter
from st_shared.protocol.quotas import PriceRequest, QuotaRequest

ORG, TEAM = "default", "default/default"


class Purse:
    """Sets quotas and prices, and looks at what they say."""

    def __init__(self, steps) -> None:
        self.steps, self.db = steps, steps.db

    def quota(self, path, kind, amount, action="block", role=None):
        wanted = QuotaRequest(
            path=path, role=role, kind=kind, amount=Decimal(amount), action=action
        )
        with self.db.write() as tx:
            return quota_setting.set_quota(tx, self.steps.admin, wanted)

    def price(self, amount, accelerator="*"):
        wanted = PriceRequest(accelerator=accelerator, amount=Decimal(amount))
        with self.db.write() as tx:
            pricing.set_price(tx, self.steps.admin, wanted)
        self.steps.place()  # the scheduler hears of it

    def counter(self, path, kind) -> tuple[int, int]:
        with self.db.read() as session:
            row = session.get(QuotaCounter, ("" if path == "all" else path, kind))
            return row.used, row.held

    def money(self, path=ORG, kind="cost_monthly") -> tuple[float, float]:
        used, held = self.counter(path, kind)
        return used / 1e6, held / 1e6

    def accrue(self) -> None:
        after = ""
        while after is not None:
            with self.db.write() as tx:
                after = accrual.accrue(tx, after)

    def charged(self) -> list[tuple[str, int, int]]:
        with self.db.read() as session:
            rows = session.scalars(select(Charge).order_by(Charge.job_id, Charge.day))
            return [(row.day, row.micros, row.slot_ms) for row in rows]

    def agrees(self) -> None:
        """Every counter says what a count of everything says."""
        with self.db.read() as session:
            book = quota_book.read(session)
            for row in session.scalars(select(QuotaCounter)).all():
                places = {place.kind: place for place in book.places_at(session, row.path)}
                counted = stock.count(session, places[row.kind], self.db.clock())
                assert (row.used, row.held) == counted, row.path
