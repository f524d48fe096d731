"""Quotas of running jobs and slots, which the scheduler keeps as limits of the tenants."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from st_controller.domain.policy import ceilings, quotas
from st_controller.domain.policy.quotas import RULES, RUNNING, Action, Kind, Meter, Quota
from st_controller.services.policy.quota_book import quota_of
from st_controller.store.schema import Membership, QuotaRow, User

_KINDS = [kind for kind in Kind if RULES[kind].meter in RUNNING]


def read(session: Session) -> dict[str, dict[Meter, int]]:
    """Path -> the most jobs and slots that may run there."""
    rows = session.scalars(
        select(QuotaRow).where(QuotaRow.kind.in_(_KINDS), QuotaRow.action == Action.BLOCK)
    )
    found = [quota_of(row) for row in rows]
    standing = [quota for quota in found if not quota.role]
    defaults = [quota for quota in found if quota.role]
    return quotas.running_limits([*standing, *_of_users(session, standing, defaults)])


def _of_users(
    session: Session, standing: Sequence[Quota], defaults: Sequence[Quota]
) -> Iterator[Quota]:
    """What users have by their roles, each in their teams."""
    if not defaults:
        return
    roles = {quota.role for quota in defaults}
    own: dict[str, list[Quota]] = {}
    for quota in standing:
        own.setdefault(quota.path, []).append(quota)
    members = session.execute(
        select(Membership.org, Membership.team, User.username, User.role)
        .join(User, User.id == Membership.user_id)
        .where(User.role.in_(roles))
    )
    for org, team, username, role in members:
        path = f"{org}/{team}/{username}"
        for quota in ceilings.of_user(path, role, own.get(path, ()), defaults):
            yield replace(quota, path=path)
