"""``/v1/job-arrays``: many variations of one job."""

from typing import Annotated

from fastapi import APIRouter, Response

from st_controller.api.dependencies import PlatformDep, requires
from st_controller.api.paging import BeginningOfArray, Cursor, Limit
from st_controller.api.submissions import WANTED, IdempotencyKey, encoded, rules_of
from st_controller.services import configs, job_arrays, views
from st_controller.services.caller import Caller
from st_shared.protocol.resources import JobArrayChange, JobArrayRequest, JobArrayView, Page

router = APIRouter(prefix="/v1/job-arrays", tags=["job arrays"])

Submitter = Annotated[Caller, requires("job.submit", *WANTED)]
Viewer = Annotated[Caller, requires("job.view.own", "job.view.all")]
Canceller = Annotated[Caller, requires("job.cancel.own", "job.cancel.all")]


@router.post(
    "", status_code=201, response_model=JobArrayView, responses={200: {"model": JobArrayView}}
)
def submit(
    platform: PlatformDep,
    caller: Submitter,
    request: JobArrayRequest,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Queue every variation of a job, or none; the same key and body give the same array again."""
    (spec,) = configs.begun_from(platform.db, caller, [request.spec])
    whole = request.model_copy(update={"spec": spec})
    batch = job_arrays.check(caller, whole, rules_of(platform))
    asked = platform.survey.warnings(platform.db, [draft.spec.resources for draft in batch])
    warnings = list(dict.fromkeys(why for found in asked for why in found))
    with platform.db.write() as tx:
        array, is_new, told = job_arrays.submit(tx, caller, request, batch, idempotency_key)
        (view,) = views.array_views(tx.session, [array], [*warnings, *told])
    headers = {"Location": f"/v1/job-arrays/{array.id}"}
    return encoded(view, 201 if is_new else 200, headers)


@router.get("")
def list_arrays(
    platform: PlatformDep,
    caller: Viewer,
    begins: BeginningOfArray = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[JobArrayView]:
    """The job arrays that the caller may see, newest first."""
    with platform.db.read() as session:
        found, following = job_arrays.list_arrays(
            session, caller, beginning=begins, cursor=cursor, limit=limit
        )
        return Page(items=views.array_views(session, found), next_cursor=following)


@router.get("/{array_id}")
def show(platform: PlatformDep, caller: Viewer, array_id: str) -> JobArrayView:
    """A job array and the states of its jobs, which are at `/v1/jobs?array=ID`."""
    with platform.db.read() as session:
        found = job_arrays.get_array(session, caller, array_id)
        return views.array_views(session, [found])[0]


@router.post("/{array_id}/cancel")
def cancel(platform: PlatformDep, caller: Canceller, array_id: str) -> JobArrayView:
    """Ask for the end of all jobs of an array that are not over."""
    with platform.db.write() as tx:
        found = job_arrays.cancel(tx, caller, array_id)
        tx.session.flush()
        return views.array_views(tx.session, [found])[0]


@router.patch("/{array_id}")
def change(
    platform: PlatformDep, caller: Submitter, array_id: str, request: JobArrayChange
) -> JobArrayView:
    """Let at most so many jobs of an array hold slots at one time."""
    with platform.db.write() as tx:
        found = job_arrays.cap(tx, caller, array_id, request.max_running)
        tx.session.flush()
        return views.array_views(tx.session, [found])[0]
