"""``/v1/workers``: look at workers, and say what they should be."""

from collections.abc import Callable
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Response

from st_controller.api.dependencies import PlatformDep, requires
from st_controller.api.paging import Cursor, Limit
from st_controller.api.submissions import encoded
from st_controller.platform import Platform
from st_controller.services import paging, views, worker_credentials, worker_orders, workers
from st_controller.services.caller import Caller
from st_controller.store.schema import Worker
from st_controller.store.transaction import Transaction
from st_shared.protocol.resources import (
    DrainOrder,
    LabelChange,
    OrderedWorkers,
    Page,
    WorkerOrder,
    WorkerView,
)
from st_shared.protocol.states import WorkerDesired

router = APIRouter(prefix="/v1/workers", tags=["workers"])
all_router = APIRouter(prefix="/v1/workers:collect-garbage", tags=["workers"])

Viewer = Annotated[Caller, requires("worker.view")]
Operator = Annotated[Caller, requires("admin.workers")]


@router.get("", response_model=Page[WorkerView])
def list_workers(
    platform: PlatformDep,
    caller: Viewer,
    retired: Annotated[bool, Query()] = False,
    name: Annotated[
        str | None, Query(max_length=120, description="Only those of this name")
    ] = None,
    ids: Annotated[
        list[str] | None, Query(alias="id", max_length=100, description="Only these")
    ] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Response:
    """Workers by name; those that were retired only if asked for."""
    after = paging.decode_name(cursor) if cursor else None
    with platform.db.read() as session:
        found = workers.list_workers(
            session, retired=retired, name=name, ids=ids or (), after=after, limit=limit + 1
        )
        shown = views.worker_views(session, caller, found[:limit])
    is_more = len(found) > limit
    place = paging.encode_name(shown[-1].name, shown[-1].id) if is_more else None
    return encoded(Page(items=shown, next_cursor=place), 200)


@router.get("/{worker_id}")
def show(platform: PlatformDep, caller: Viewer, worker_id: str) -> WorkerView:
    """One worker."""
    with platform.db.read() as session:
        return views.worker_views(session, caller, [workers.get_worker(session, worker_id)])[0]


@router.post("/{worker_id}/cordon")
def cordon(
    platform: PlatformDep, caller: Operator, worker_id: str, body: WorkerOrder | None = None
) -> WorkerView:
    """Offer it nothing new; what it runs is left alone."""
    return _order(platform, caller, worker_id, WorkerDesired.CORDONED, body)


@router.post("/{worker_id}/drain")
def drain(
    platform: PlatformDep, caller: Operator, worker_id: str, body: DrainOrder | None = None
) -> WorkerView:
    """Offer it nothing new, and wait for what it runs or stop it at a checkpoint."""
    return _order(platform, caller, worker_id, WorkerDesired.DRAINING, body)


@router.post("/{worker_id}/activate")
def activate(
    platform: PlatformDep, caller: Operator, worker_id: str, body: WorkerOrder | None = None
) -> WorkerView:
    """Let it take jobs again."""
    return _order(platform, caller, worker_id, WorkerDesired.ACTIVE, body)


@router.post("/{worker_id}/retire")
def retire(
    platform: PlatformDep, caller: Operator, worker_id: str, body: WorkerOrder | None = None
) -> WorkerView:
    """Send it away for good; its credential is void from now on."""
    return _order(platform, caller, worker_id, WorkerDesired.RETIRED, body)


@router.post("/{worker_id}/rotate")
def rotate(platform: PlatformDep, caller: Operator, worker_id: str) -> WorkerView:
    """Have it fetch a new credential; the old one is in force until the new one is used."""
    return _change(
        platform, caller, lambda tx: worker_credentials.rotate(tx, caller.signature, worker_id)
    )


@router.post("/{worker_id}/revoke")
def revoke(platform: PlatformDep, caller: Operator, worker_id: str) -> WorkerView:
    """Void its credential at once; its jobs are queued again, and it may join again."""
    return _change(
        platform, caller, lambda tx: worker_credentials.revoke(tx, caller.signature, worker_id)
    )


@router.post("/{worker_id}/collect-garbage")
def collect_garbage(platform: PlatformDep, caller: Operator, worker_id: str) -> WorkerView:
    """Have it remove what no attempt needs."""
    return _change(
        platform, caller, lambda tx: worker_orders.collect_garbage(tx, caller.signature, worker_id)
    )


@all_router.post("")
def collect_garbage_everywhere(platform: PlatformDep, caller: Operator) -> OrderedWorkers:
    """Have all workers remove what no attempt needs."""
    with platform.db.write() as tx:
        return OrderedWorkers(
            workers=worker_orders.collect_garbage_everywhere(tx, caller.signature)
        )


@router.patch("/{worker_id}/labels")
def label(platform: PlatformDep, caller: Operator, worker_id: str, body: LabelChange) -> WorkerView:
    """Set labels, and take set ones away; they win over the worker's own."""
    return _change(
        platform, caller, lambda tx: worker_orders.label(tx, caller.signature, worker_id, body)
    )


@router.delete("/{worker_id}", status_code=204)
def delete(
    platform: PlatformDep,
    caller: Operator,
    worker_id: str,
    force: Annotated[bool, Query()] = False,
) -> None:
    """Forget it; the history of its attempts is kept. Refused while it holds some."""
    with platform.db.write() as tx:
        worker_orders.delete(tx, caller.signature, worker_id, force=force)


def _order(
    platform: Platform,
    caller: Caller,
    worker_id: str,
    desired: WorkerDesired,
    said: WorkerOrder | None,
) -> WorkerView:
    seconds = said.grace_seconds if isinstance(said, DrainOrder) else None
    grace = None if seconds is None else timedelta(seconds=seconds)
    why = said.why if said else None
    return _change(
        platform,
        caller,
        lambda tx: worker_orders.order(
            tx, caller.signature, worker_id, desired, why=why, grace=grace
        ),
    )


def _change(
    platform: Platform, caller: Caller, change: Callable[[Transaction], Worker]
) -> WorkerView:
    with platform.db.write() as tx:
        worker = change(tx)
        tx.session.flush()
        return views.worker_views(tx.session, caller, [worker])[0]
