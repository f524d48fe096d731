"""Whether there is room left for what somebody is about to store."""

from st_controller.domain.policy.quotas import Meter
from st_controller.services.actor import Actor
from st_controller.services.policy import book, counters, stock
from st_controller.services.policy.quota_book import Payer
from st_controller.store.transaction import Transaction


def must_have_room(tx: Transaction, actor: Actor, size: int) -> None:
    """Refuse bytes for which a quota that blocks has no room, as of the last count.

    Raises:
        QuotaExceeded: which one, with what is left.
    """
    known = book.current(tx.session).quotas
    payer = Payer(actor.org, actor.team, actor.user_id)
    for place in known.chain(tx.session, payer):
        if place.meter is not Meter.STORAGE or place.ceiling is None:
            continue
        stock.make(tx, known, place)
        counter = stock.look(tx.session, place, tx.now)
        if counter.used + size > place.ceiling.amount:
            raise counters.refusal(place, counter, size, tx.now)
