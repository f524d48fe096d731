"""Who schedules: a lease in SQL with an epoch that rises at every change of holder."""

from dataclasses import dataclass
from datetime import timedelta

from st_controller.services import leader_lease
from st_controller.services.leader_lease import NAME, Held
from st_controller.store.database import ReadSession
from st_controller.store.schema import CrashMark, LeaderLease
from st_controller.store.transaction import Transaction

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

    def prove(self, session: ReadSession) -> None:
        """Lock the lease row for the transaction.

        Raises:
            LeadershipLostError: somebody else leads, or the database has crashed since it was
                read, so that what was decided last may be undone.
        """
        if leader_lease.lock(session) != Held(self.holder, self.epoch, self.epoch):
            raise LeadershipLostError(f"epoch {self.epoch} of {self.holder} is over")


def seek(
    tx: Transaction, holder: str, *, alone: bool, predecessor: str | None = None
) -> Leadership | None:
    """Take or renew the lease; none when another holder's is still in force.

    ``alone`` says that no other controller can use this database (it is embedded, and its folder
    is locked); ``predecessor`` is a holder that is known to be dead. In both cases the lease of a
    process that died is taken over at once. After a crash of the database an epoch begins, so
    everything is read anew.
    """
    lease = tx.session.get(LeaderLease, NAME, with_for_update=True)
    mark = tx.session.get(CrashMark, NAME)
    until = tx.now + timedelta(seconds=LEASE_SECONDS)
    if lease is None:
        lease = LeaderLease(name=NAME, holder=holder, epoch=1, expires_at=until)
        tx.session.add(lease)
    elif lease.holder != holder:
        is_dead = alone or lease.holder == predecessor
        if not is_dead and lease.expires_at > tx.now:
            return None
        lease.holder, lease.epoch = holder, lease.epoch + 1
    elif mark is None:
        lease.epoch += 1
    lease.expires_at = until
    if mark is None or mark.value != lease.epoch:
        tx.session.merge(CrashMark(name=NAME, value=lease.epoch))
    return Leadership(holder, lease.epoch)
