"""What a transaction adds to charges and counters, written at its end in the order of everybody."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from sqlalchemy import text
from sqlalchemy.orm import Session

from st_controller.domain.policy import quotas
from st_controller.domain.policy.estimates import NOTHING, Amounts
from st_controller.domain.policy.quotas import HELD, Counter, Place
from st_controller.services.policy import book, counters, stock
from st_controller.services.policy.counters import Change
from st_controller.services.policy.quota_book import Payer, QuotaBook
from st_controller.services.policy.spans import Used
from st_controller.store.bulk import document
from st_controller.store.transaction import Transaction

_NAME = "quotas"
_COLUMNS = "job_id, day, utc_day, org, team, user_id, micros, slot_ms"
_ADDED = (
    " ON CONFLICT (job_id, day, utc_day) DO UPDATE SET"
    " micros = charges.micros + excluded.micros, slot_ms = charges.slot_ms + excluded.slot_ms"
)
_CHARGE = text(
    f"INSERT INTO charges ({_COLUMNS})"  # noqa: S608 - names of our own schema
    f" VALUES (:job_id, :day, :utc_day, :org, :team, :user_id, :micros, :slot_ms){_ADDED}"
)
_CHARGE_AT_ONCE = (
    f"INSERT INTO charges ({_COLUMNS})"  # noqa: S608 - names of our own schema
    f" SELECT {_COLUMNS} FROM json_populate_recordset(null::charges, %s){_ADDED}"
)


class Settlement:
    """What is used, held and given back by the jobs that a transaction is about."""

    def __init__(self, book: QuotaBook, session: Session) -> None:
        self.quotas, self._session = book, session
        self._charges: dict[tuple[str, str, str, Payer], Amounts] = defaultdict(Amounts)
        self._used: dict[Place, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self._held: dict[Place, int] = defaultdict(int)
        self._asked: dict[Place, int] = defaultdict(int)

    def charge(self, job_id: str, payer: Payer, used: Iterable[Used]) -> None:
        """Write down what a job used."""
        zone = self.quotas.zone(payer.org)
        for since, amounts in used:
            day = since.astimezone(zone).date().isoformat()
            utc_day = since.astimezone(UTC).date().isoformat()
            self._charges[job_id, day, utc_day, payer] += amounts

    def count(self, payer: Payer, used: Iterable[Used], held: Amounts) -> None:
        """Add to the counters of a tenant what was used, and a change of what is held."""
        spans = list(used)
        for place in self._places(payer):
            for since, amounts in spans:
                self._used[place][place.period(since)] += amounts.of(place.meter)
            self._held[place] += held.of(place.meter)

    def ask(self, payer: Payer, held: Amounts) -> None:
        """Hold more for a tenant, as far as the ceilings allow; else the transaction is undone."""
        for place in self._places(payer):
            self._asked[place] += held.of(place.meter)

    def changed(self, now: datetime, known: Mapping[Place, Counter]) -> dict[Place, Counter]:
        """Counters as they will be once this is written, for whoever decides with them."""
        return {
            place: Counter(
                counter.used + self._used[place].get(place.period(now), 0),
                counter.held + self._held[place],
            )
            for place, counter in known.items()
        }

    def write(self, tx: Transaction) -> None:
        """Write all of it.

        Raises:
            QuotaExceeded: what was asked for is not left.
        """
        self._write_charges(tx)
        touched = {*self._used, *self._held, *self._asked}
        for place in quotas.in_order(touched):
            used = {period: amount for period, amount in self._used[place].items() if amount}
            if used or self._held[place]:
                counters.add(tx, place, used, self._held[place])
            if self._asked[place]:
                self._take(tx, place, Change(held=self._asked[place]))

    def _take(self, tx: Transaction, place: Place, change: Change) -> None:
        if counters.take(tx, place, change, capped=True) is None and place.comes_with_role:
            made = stock.take(tx, self.quotas, place)  # what is asked for is in it already
            before = made._replace(held=made.held - change.held)
            if place.ceiling and made.total > place.ceiling.amount:
                raise counters.refusal(place, before, change.held, tx.now)

    def _write_charges(self, tx: Transaction) -> None:
        rows = [
            {
                "job_id": job_id,
                "day": day,
                "utc_day": utc_day,
                **payer._asdict(),
                "micros": amounts.micros,
                "slot_ms": amounts.slot_ms,
            }
            for (job_id, day, utc_day, payer), amounts in sorted(self._charges.items())
            if amounts != NOTHING
        ]
        connection = tx.session.connection()
        if rows and connection.dialect.name == "postgresql":
            connection.exec_driver_sql(_CHARGE_AT_ONCE, (document(rows),))
        elif rows:
            connection.execute(_CHARGE, rows)

    def _places(self, payer: Payer) -> list[Place]:
        return [place for place in self.quotas.chain(self._session, payer) if place.meter in HELD]


def settlement(tx: Transaction) -> Settlement:
    """That of a transaction, with the quotas in force when it was first asked for."""
    found = tx.closing.get(_NAME)
    if not isinstance(found, Settlement):
        found = tx.closing[_NAME] = Settlement(book.current(tx.session).quotas, tx.session)
    return found
