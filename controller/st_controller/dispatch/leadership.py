"""Who schedules: a lease in SQL with an epoch that rises at every change of holder."""

from dataclasses import dataclass
from datetime import timedelta

from st_controller.store.database import ReadSession
from st_controller.store.schema import LeaderLease
from st_controller.store.transaction import Transaction

LEASE_NAME = "scheduler"
LEASE_SECONDS = 3.5
"""A leader that is gone is replaced after so long and one ``RENEW_SECONDS`` at most."""
RENEW_SECONDS = 1.0


class LeadershipLostError(RuntimeError):
    """Another process leads; nothing that this one decided may be written."""


@dataclass(frozen=True)
class Leadership:
    """The right to schedule; proven again inside every transaction that uses it."""

    holder: str
    epoch: int

    def prove(self, session: ReadSession) -> LeaderLease:
        """Lock the lease row for the transaction, or raise ``LeadershipLostError``."""
        lease = session.get(LeaderLease, LEASE_NAME, with_for_update=True)
        if lease is None or (lease.holder, lease.epoch) != (self.holder, self.epoch):
            raise LeadershipLostError(f"epoch {self.epoch} of {self.holder} is over")
        return lease


def seek(
    tx: Transaction, holder: str, *, alone: bool, predecessor: str | None = None
) -> Leadership | None:
    """Take or renew the lease; none when another holder's is still in force.

    ``alone`` says that no other controller can use this database (it is embedded, and its folder
    is locked); ``predecessor`` is a holder that is known to be dead. In both cases the lease of a
    process that died is taken over at once.
    """
    lease = tx.session.get(LeaderLease, LEASE_NAME, with_for_update=True)
    until = tx.now + timedelta(seconds=LEASE_SECONDS)
    if lease is None:
        lease = LeaderLease(name=LEASE_NAME, holder=holder, epoch=1, expires_at=until)
        tx.session.add(lease)
    elif lease.holder != holder:
        is_dead = alone or lease.holder == predecessor
        if not is_dead and lease.expires_at > tx.now:
            return None
        lease.holder, lease.epoch = holder, lease.epoch + 1
    lease.expires_at = until
    return Leadership(holder, lease.epoch)
