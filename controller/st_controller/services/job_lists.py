"""Lists of jobs, newest first: what a page costs depends on its length, not on that of the list."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, select, text, true, union_all
from sqlalchemy.orm import Session

from st_controller.domain.policy.reach import Reach
from st_controller.services.actor import Actor
from st_controller.services.paging import decode_cursor, encode_cursor
from st_controller.services.visibility import own, within
from st_controller.store.keyset import begins, earlier
from st_controller.store.schema import Job
from st_controller.store.schema.jobs import UNUSUAL
from st_shared.protocol.states import JobState
from st_shared.spec.job import Priority


def list_jobs(
    session: Session,
    actor: Actor,
    *,
    states: Sequence[JobState] = (),
    priorities: Sequence[Priority] = (),
    array_id: str | None = None,
    mine: bool = False,
    beginning: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> tuple[list[Job], str | None]:
    """The jobs that the actor may see, newest first, and the cursor of the next page.

    Those whose id has a ``beginning`` come by id, the highest first: they are to be told apart.
    """
    seen = own(actor, Job) if mine else within(actor, "job.view.all", Job)
    conditions = [seen, Job.deleted_at.is_(None)]
    if array_id:
        conditions.append(Job.array_id == array_id)
    if cursor:
        place = decode_cursor(cursor)
        by_id = Job.id < place[1]
        conditions.append(by_id if beginning else earlier(Job.submitted_at, Job.id, place))
    if beginning:
        conditions.append(begins(Job.id, beginning))
        query = _filtered(conditions, Job.state, states, priorities).order_by(Job.id.desc())
    elif array_id:  # has a thousand jobs at most
        query = _sorted(conditions, Job.state, states, priorities)
    elif mine or actor.reach("job.view.all") in {None, Reach.OWN}:
        # SQLite knows nothing of numbers: it would go through all that are in one state, if it
        # could, instead of the few that are theirs.
        on_sqlite = session.get_bind().dialect.name == "sqlite"
        query = _sorted(conditions, Job.state + "" if on_sqlite else Job.state, states, priorities)
    else:
        query = _newest(conditions, _kinds(states, priorities), limit + 1)
    found = list(session.scalars(query.limit(limit + 1)))
    if len(found) <= limit:
        return found, None
    last = found[limit - 1]
    return found[:limit], encode_cursor(last.submitted_at, last.id)


def _sorted(
    conditions: Sequence[ColumnElement[bool]],
    state: Any,
    states: Sequence[JobState],
    priorities: Sequence[Priority],
) -> Select[Any]:
    found = _filtered(conditions, state, states, priorities)
    return found.order_by(*_newest_first())


def _filtered(
    conditions: Sequence[ColumnElement[bool]],
    state: Any,
    states: Sequence[JobState],
    priorities: Sequence[Priority],
) -> Select[Any]:
    filters = _one_of(state, states), _one_of(Job.priority, priorities)
    return select(Job).where(*conditions, *filters)


def _one_of(column: Any, values: Collection[str]) -> ColumnElement[bool]:
    found: ColumnElement[bool] = column.in_(sorted(values)) if values else true()
    return found


def _newest_first() -> tuple[Any, Any]:
    return Job.submitted_at.desc(), Job.id.desc()


def _kinds(states: Sequence[JobState], priorities: Sequence[Priority]) -> list[ColumnElement[bool]]:
    """Conditions that no job meets two of; of each an index has the jobs in their order.

    With one condition for several states, the jobs of all of them would be sorted for a page.
    """
    of_states, of_priorities = _one_of(Job.state, states), _one_of(Job.priority, priorities)
    if priorities and Priority.NORMAL not in priorities:
        return [
            and_(Job.priority == one, text(UNUSUAL), of_states) for one in sorted(set(priorities))
        ]
    if states:
        return [and_(Job.state == one, of_priorities) for one in sorted(set(states))]
    return [of_priorities]


def _newest(
    conditions: Sequence[ColumnElement[bool]], kinds: Sequence[ColumnElement[bool]], most: int
) -> Select[Any]:
    newest_first = _newest_first()
    if len(kinds) == 1:
        return select(Job).where(*conditions, kinds[0]).order_by(*newest_first)
    each = (
        select(Job.id).where(*conditions, kind).order_by(*newest_first).limit(most).subquery()
        for kind in kinds
    )
    newest = union_all(*map(select, each)).subquery()
    return select(Job).where(Job.id.in_(select(newest))).order_by(*newest_first)
