"""Quotas of running jobs and slots, which the scheduler keeps as limits of the tenants."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from st_controller.domain.policy import quotas
from st_controller.domain.policy.quotas import RULES, RUNNING, Action, Kind, Meter, Quota
from st_controller.store.schema import QuotaRow

_KINDS = [kind for kind in Kind if RULES[kind].meter in RUNNING]


def read(session: Session) -> dict[str, dict[Meter, int]]:
    """Path -> the most jobs and slots that may run there."""
    rows = session.scalars(
        select(QuotaRow).where(QuotaRow.kind.in_(_KINDS), QuotaRow.action == Action.BLOCK)
    )
    return quotas.running_limits(
        Quota(row.id, row.path, Kind(row.kind), row.amount, Action(row.action)) for row in rows
    )
