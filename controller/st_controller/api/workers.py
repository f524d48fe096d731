"""``/v1/workers``: look at workers, and say what they should be."""

from typing import Annotated

from fastapi import APIRouter

from st_controller.api.dependencies import PlatformDep, requires
from st_controller.platform import Platform
from st_controller.services import views, workers
from st_controller.services.caller import Caller
from st_shared.protocol.resources import Page, WorkerView
from st_shared.protocol.states import WorkerDesired

router = APIRouter(prefix="/v1/workers", tags=["workers"])

Viewer = Annotated[Caller, requires("worker.view")]
Operator = Annotated[Caller, requires("admin.workers")]


@router.get("")
def list_workers(platform: PlatformDep, caller: Viewer) -> Page[WorkerView]:
    """Every worker that was not retired."""
    del caller
    with platform.db.read() as session:
        return Page(items=views.worker_views(session, workers.list_workers(session)))


@router.get("/{worker_id}")
def show(platform: PlatformDep, caller: Viewer, worker_id: str) -> WorkerView:
    """One worker."""
    del caller
    with platform.db.read() as session:
        return views.worker_views(session, [workers.get_worker(session, worker_id)])[0]


@router.post("/{worker_id}/drain")
def drain(platform: PlatformDep, caller: Operator, worker_id: str) -> WorkerView:
    """Let it finish what it has and take nothing new."""
    return _order(platform, caller, worker_id, WorkerDesired.DRAINING)


@router.post("/{worker_id}/activate")
def activate(platform: PlatformDep, caller: Operator, worker_id: str) -> WorkerView:
    """Let it take jobs again."""
    return _order(platform, caller, worker_id, WorkerDesired.ACTIVE)


@router.post("/{worker_id}/retire")
def retire(platform: PlatformDep, caller: Operator, worker_id: str) -> WorkerView:
    """Send it away for good; its credential is void from now on."""
    return _order(platform, caller, worker_id, WorkerDesired.RETIRED)


def _order(
    platform: Platform, caller: Caller, worker_id: str, desired: WorkerDesired
) -> WorkerView:
    with platform.db.write() as tx:
        worker = workers.order(tx, caller.signature, worker_id, desired)
        tx.session.flush()
        return views.worker_views(tx.session, [worker])[0]
