"""What tenants have used, written down now and then so that reading it is quick."""

from collections.abc import Mapping

from sqlalchemy import delete, insert

from st_controller.store.schema import TenantUsage
from st_controller.store.transaction import Transaction


def save(tx: Transaction, usage: Mapping[str, tuple[float, float]]) -> None:
    """Put down usage and forfeited share of every node as they stand now.

    What is used after this moment is found in the attempts, so nothing depends on how often
    this is done.
    """
    tx.session.execute(delete(TenantUsage))
    rows = [
        {"path": path, "usage": used, "forfeited": forfeited, "as_of": tx.now}
        for path, (used, forfeited) in usage.items()
    ]
    if rows:
        tx.session.execute(insert(TenantUsage), rows)
