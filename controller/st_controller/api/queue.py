"""``/v1/queue``: shares, limits and rules; ``/v1/jobs/{id}/explain``: why a job waits."""

from typing import Annotated

from fastapi import APIRouter, Path

from st_controller.api.dependencies import PlatformDep, requires
from st_controller.services import explaining, jobs, queue_overview, queue_rules
from st_controller.services.caller import Caller
from st_shared.protocol.queue import (
    Explanation,
    QueueRules,
    QueueView,
    ShareRequest,
    ShareView,
)

router = APIRouter(prefix="/v1", tags=["queue"])

Viewer = Annotated[Caller, requires("queue.view", "queue.view.all")]
JobViewer = Annotated[Caller, requires("job.view.own", "job.view.all")]
Admin = Annotated[Caller, requires("admin.queue")]
Divider = Annotated[Caller, requires("queue.manage")]
TenantPath = Annotated[
    str, Path(max_length=260, description="`org`, `org/team`, `org/team/user`, or `all`")
]


@router.get("/queue")
def show(platform: PlatformDep, caller: Viewer) -> QueueView:
    """The queue as it stands: shares, use, what is held and what is reserved."""
    with platform.db.read() as session:
        return queue_overview.overview(session, platform.queue, caller, platform.db.clock())


@router.get("/queue/policy")
def show_rules(platform: PlatformDep, caller: Viewer) -> QueueRules:
    """The rules in force."""
    del caller
    with platform.db.read() as session:
        return queue_rules.rules(session)


@router.put("/queue/policy")
def set_rules(platform: PlatformDep, caller: Admin, rules: QueueRules) -> QueueRules:
    """Put other rules in force; what is left out takes its default."""
    with platform.db.write() as tx:
        return queue_rules.set_rules(tx, caller, rules)


@router.put("/queue/shares/{path:path}")
def set_share(
    platform: PlatformDep, caller: Divider, path: TenantPath, share: ShareRequest
) -> ShareView:
    """Set weight and limits of an organisation, a team or a user; what is left out is none."""
    with platform.db.write() as tx:
        return queue_rules.set_share(tx, caller, path, share)


@router.patch("/queue/shares/{path:path}")
def change_share(
    platform: PlatformDep, caller: Divider, path: TenantPath, share: ShareRequest
) -> ShareView:
    """Change weight or limits of a node: what is left out stays, and null lifts a limit."""
    with platform.db.write() as tx:
        return queue_rules.change_share(tx, caller, path, share)


@router.delete("/queue/shares/{path:path}", status_code=204)
def remove_share(platform: PlatformDep, caller: Divider, path: TenantPath) -> None:
    """Give a node weight 1 and no limits again."""
    with platform.db.write() as tx:
        queue_rules.remove_share(tx, caller, path)


@router.get("/jobs/{job_id}/explain")
def explain(platform: PlatformDep, caller: JobViewer, job_id: str) -> Explanation:
    """Why a job waits, what is ahead of it, and when it is expected to start."""
    with platform.db.read() as session:
        job = jobs.get_job(session, caller, job_id)
        return explaining.explain(session, platform.queue, caller, job, platform.db.clock())
