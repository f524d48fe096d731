"""Quotas, prices and time zones as every process keeps them in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from threading import Lock
from typing import NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import select
from sqlalchemy.orm import Session

from st_controller.domain.policy import ceilings, quotas
from st_controller.domain.policy.estimates import Amounts, Asked, estimate, to_hold
from st_controller.domain.policy.prices import Price, PriceList
from st_controller.domain.policy.quotas import HELD, Action, Kind, Place, Quota
from st_controller.services import durations
from st_controller.services.durations import Durations
from st_controller.services.policy import price_rows
from st_controller.store.schema import Organisation, QuotaRow, User

_RELEARN = timedelta(seconds=60)
_MOST_CHAINS = 100_000


class Payer(NamedTuple):
    """Whom something is counted for."""

    org: str
    team: str
    user_id: str


class _Learned:
    """What jobs of the past took; read again now and then."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._durations = Durations()
        self._read_at: datetime | None = None

    def durations(self, session: Session, now: datetime) -> Durations:
        with self._lock:
            if self._read_at is None or now - self._read_at >= _RELEARN:
                self._durations, self._read_at = durations.learn(session), now
            return self._durations


@dataclass(frozen=True)
class QuotaBook:
    """All quotas and prices at one version of the policy."""

    quotas: tuple[Quota, ...] = ()
    """Of nodes, and of the users of a role."""
    prices: tuple[Price, ...] = ()
    zones: Mapping[str, tzinfo] = field(default_factory=dict)
    """Of organisations; those that are not here keep UTC."""
    usernames: Mapping[str, str] = field(default_factory=dict)
    """Of users who have quotas of their own, by their ids."""
    _chains: dict[Payer, tuple[Place, ...]] = field(default_factory=dict)
    _by_path: dict[str, list[Quota]] = field(default_factory=dict)
    of_roles: list[Quota] = field(default_factory=list)
    """Those that each user of a role has."""
    _lists: dict[datetime | None, PriceList] = field(default_factory=dict)
    _learned: _Learned = field(default_factory=_Learned)

    def __post_init__(self) -> None:
        for quota in self.quotas:
            (self.of_roles if quota.role else self._by_path.setdefault(quota.path, [])).append(
                quota
            )

    def chain(self, session: Session, payer: Payer) -> tuple[Place, ...]:
        """Every counter that a job of this tenant counts on, in the order of locking."""
        if not self.quotas:
            return ()
        found = self._chains.get(payer)
        if found is None:
            if len(self._chains) >= _MOST_CHAINS:
                self._chains.clear()
            found = self._chains[payer] = self._chain(session, payer)
        return found

    def _chain(self, session: Session, payer: Payer) -> tuple[Place, ...]:
        team = f"{payer.org}/{payer.team}"
        found = [place for path in ("", payer.org, team) for place in self.places(path)]
        username, role = self.usernames.get(payer.user_id), ""
        if self.of_roles:
            query = select(User.username, User.role).where(User.id == payer.user_id)
            username, role = session.execute(query).one()
        if username:
            found += self.places(f"{team}/{username}", role)
        return tuple(found)

    def places(self, path: str, role: str = "") -> tuple[Place, ...]:
        """The counters of one node; those of a user go by their role too."""
        standing = self._by_path.get(path, [])
        if role:
            standing = ceilings.of_user(path, role, standing, self.of_roles)
        return quotas.places(standing, self.zone(path), path)

    def places_at(self, session: Session, path: str) -> tuple[Place, ...]:
        """The counters of any node, with the role that its user has now."""
        username = path.split("/")[2:]
        role = ""
        if username and self.of_roles:
            query = select(User.role).where(User.username == username[0])
            role = session.scalar(query) or ""
        return self.places(path, role)

    def zone(self, path: str) -> tzinfo:
        """The time zone of a node's calendar; that of the whole system is UTC."""
        return self.zones.get(path.split("/", 1)[0], UTC)

    def price_list(self, now: datetime) -> PriceList:
        """The prices in force."""
        since = max((price.since for price in self.prices if price.since <= now), default=None)
        known = self._lists.get(since)
        if known is None:
            known = self._lists[since] = PriceList.at(now, self.prices)
        return known

    def hold(self, asked: Asked, estimated: Amounts, now: datetime) -> Amounts:
        """What is held for a job that is estimated to use so much."""
        return to_hold(asked, self.price_list(now), estimated)

    def estimate(
        self, session: Session, asked: Asked, of: tuple[str, str, str], now: datetime
    ) -> Amounts:
        """What a job will use; ``of`` are its owner's id, its name and its family."""
        learned = None
        if asked.expected is None:
            learned = self._learned.durations(session, now).of(*of)
        return estimate(asked, self.price_list(now), learned)


def holds(chain: Sequence[Place]) -> bool:
    """Whether something has to be held for a job that counts on these."""
    return any(place.meter in HELD for place in chain)


def read(session: Session) -> QuotaBook:
    """The book as the database has it now."""
    rows = session.scalars(select(QuotaRow))
    found = tuple(quota_of(row) for row in rows)
    names = {quota.path.split("/")[2] for quota in found if quota.depth == 3}
    return QuotaBook(found, tuple(price_rows.read(session)), _zones(session), _ids(session, names))


def quota_of(row: QuotaRow) -> Quota:
    """A limit as its row says."""
    return Quota(row.id, row.path, Kind(row.kind), row.amount, Action(row.action), row.role)


def _ids(session: Session, names: set[str]) -> dict[str, str]:
    if not names:
        return {}
    wanted = sorted(names)
    found: dict[str, str] = {}
    for start in range(0, len(wanted), 500):
        part = wanted[start : start + 500]
        query = select(User.id, User.username).where(User.username.in_(part))
        found.update((row.id, row.username) for row in session.execute(query))
    return found


def _zones(session: Session) -> dict[str, tzinfo]:
    rows = session.execute(select(Organisation.slug, Organisation.time_zone))
    return {row.slug: ZoneInfo(row.time_zone) for row in rows}
