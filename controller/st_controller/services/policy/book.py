"""The policy in force, as every process keeps it in memory."""

from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock

from sqlalchemy import insert, update
from sqlalchemy.orm import Session

from st_controller.domain.policy.approval_rules import ApprovalRules
from st_controller.domain.policy.resource_rules import ResourceRules
from st_controller.services.policy import approval_rows, quota_book, resource_rows
from st_controller.services.policy.quota_book import QuotaBook
from st_controller.store.schema import PolicyVersion
from st_controller.store.transaction import Transaction
from st_shared.ids import new_id

_THE_ROW = 1
_READ = "SELECT version FROM policy_versions WHERE id = 1"
_KEPT = 4
"""Versions that are remembered, for those who read an older state of the database."""


@dataclass(frozen=True)
class PolicyBook:
    """All rules of the database at one version, indexed by what they may match."""

    version: str
    """Empty: nobody has made any rule."""
    resources: ResourceRules = field(default_factory=ResourceRules)
    approvals: ApprovalRules = field(default_factory=ApprovalRules)
    quotas: QuotaBook = field(default_factory=QuotaBook)

    @property
    def is_empty(self) -> bool:
        """Whether there is no rule at all."""
        return not self.version


EMPTY = PolicyBook("")


class _Books:
    """Books by version. A version is used once, so none of them can be out of date."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: OrderedDict[str, PolicyBook] = OrderedDict()

    def find(self, session: Session, version: str) -> PolicyBook:
        """The book of this version, read now where it is not known yet."""
        with self._lock:
            known = self._known.get(version)
        if known is not None:
            return known
        # Rules of a later version may be among what is read here. Nobody is judged by them for
        # longer than until the next look, which finds that version.
        book = _read(session, version)
        with self._lock:
            self._known[version] = book
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return book


_books = _Books()


def current(session: Session) -> PolicyBook:
    """The policy in force in this transaction; costs one small statement while none changes."""
    version = session.connection().exec_driver_sql(_READ).scalar()
    return _books.find(session, version) if version else EMPTY


def changed(tx: Transaction) -> None:
    """Say that this transaction changes the policy; whoever submits after it obeys the new one.

    Transactions that change it take turns.
    """
    version = new_id("pol")
    row = PolicyVersion.id == _THE_ROW
    done = tx.session.execute(update(PolicyVersion).where(row).values(version=version))
    if not done.rowcount:  # type: ignore[attr-defined]
        tx.session.execute(insert(PolicyVersion).values(id=_THE_ROW, version=version))


def _read(session: Session, version: str) -> PolicyBook:
    return PolicyBook(
        version,
        resources=resource_rows.read(session),
        approvals=approval_rows.read(session),
        quotas=quota_book.read(session),
    )
