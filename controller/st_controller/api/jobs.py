"""``/v1/jobs``: submit, look, follow, steer, cancel."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from st_controller.api.dependencies import PlatformDep, requires, requires_any
from st_controller.api.paging import BeginningOfJob, Cursor, Limit
from st_controller.api.streams import event_stream
from st_controller.api.submissions import (
    SMALL,
    WANTED,
    IdempotencyKey,
    encoded,
    rules_of,
    taken_in,
)
from st_controller.errors import InvalidRequest
from st_controller.events.job_stream import JobPlace, follow_job
from st_controller.platform import Platform
from st_controller.services import (
    artifacts,
    configs,
    explaining,
    job_lists,
    jobs,
    steering,
    submission,
    views,
)
from st_controller.services.caller import Caller
from st_controller.services.drafts import Draft, Rules
from st_controller.services.journal_pieces import Wanted
from st_controller.services.journal_points import read_points
from st_controller.services.journal_reading import LinePage
from st_controller.services.paging import LARGEST, decode_place, encode_place
from st_shared.protocol.message import Moment
from st_shared.protocol.problems import FieldProblem
from st_shared.protocol.resources import (
    ArtifactView,
    AttemptView,
    JobBatch,
    JobBatchRequest,
    JobDetail,
    JobView,
    LogLine,
    MetricCurve,
    MetricPoint,
    Page,
    PriorityChange,
    SubmittedJob,
)
from st_shared.protocol.states import JobState
from st_shared.spec.job import Priority

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
batch_router = APIRouter(prefix="/v1/jobs:batch", tags=["jobs"])

Submitter = Annotated[Caller, requires("job.submit", *WANTED)]
Retrier = Annotated[
    Caller, requires("job.submit", "job.cancel.all", "job.command", "job.bypass.quota")
]
Steerer = Annotated[
    Caller,
    requires(
        "job.submit", "queue.manage", "job.bypass.queue", "job.priority.high", "job.priority.urgent"
    ),
]
Viewer = Annotated[Caller, requires("job.view.own", "job.view.all")]
Canceller = Annotated[
    Caller,
    requires_any("job.cancel.own", "queue.cancel.own", also=("job.cancel.all", "queue.cancel.all")),
]
Deleter = Annotated[Caller, requires("job.delete.own", "job.delete.all")]
LineLimit = Annotated[int, Query(ge=1, le=5000)]
After = Annotated[str | None, Query(max_length=40, description="`next_cursor` of the last page")]

OfAttempt = Annotated[int | None, Query(ge=1, le=LARGEST, description="Number of an attempt")]
Since = Annotated[
    Moment | None, Query(description="Lines that were written then or later, by the worker's clock")
]


@router.post("", status_code=201, response_model=JobView, responses={200: {"model": JobView}})
async def submit(
    request: Request,
    platform: PlatformDep,
    caller: Submitter,
    document: Annotated[dict[str, Any], Body(description="A JobSpec")],
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Queue a job; the same Idempotency-Key and body give the same job again, with 200."""
    rules = rules_of(platform)
    length = request.headers.get("content-length", "")
    if "config" not in document and length.isdecimal() and int(length) <= SMALL:
        draft = submission.check(caller, document, rules)
    else:  # others would wait too long meanwhile
        draft = await run_in_threadpool(_checked, platform, caller, document, rules)
    view, is_new = await taken_in(platform, caller, draft, idempotency_key)
    return encoded(view, 201 if is_new else 200, {"Location": f"/v1/jobs/{view.id}"})


def _checked(platform: Platform, caller: Caller, document: dict[str, Any], rules: Rules) -> Draft:
    (whole,) = configs.begun_from(platform.db, caller, [document])
    return configs.as_sent(submission.check(caller, whole, rules), document)


@batch_router.post(
    "", status_code=201, response_model=JobBatch, responses={200: {"model": JobBatch}}
)
def submit_batch(
    platform: PlatformDep,
    caller: Submitter,
    request: JobBatchRequest,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Queue many jobs, or none of them: every mistake is named, such as `jobs.3.name`."""
    whole = configs.begun_from(platform.db, caller, request.jobs)
    checked = submission.check_batch(caller, whole, rules_of(platform))
    batch = list(map(configs.as_sent, checked, request.jobs))
    warnings = platform.survey.warnings(platform.db, [draft.spec.resources for draft in batch])
    with platform.db.write() as tx:
        made, is_new = submission.enqueue_batch(tx, caller, batch, idempotency_key)
    told = [
        SubmittedJob(id=job.job_id, name=job.name, warnings=[*why, *job.warnings])
        for job, why in zip(made, warnings, strict=True)
    ]
    return encoded(JobBatch(jobs=told), 201 if is_new else 200)


@router.get("")
def list_jobs(
    platform: PlatformDep,
    caller: Viewer,
    state: Annotated[list[JobState] | None, Query()] = None,
    priority: Annotated[list[Priority] | None, Query()] = None,
    array: Annotated[str | None, Query(max_length=40, description="Id of a job array")] = None,
    mine: Annotated[bool, Query(description="Only the caller's own")] = False,
    begins: BeginningOfJob = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[JobView]:
    """The jobs that the caller may see, newest first."""
    with platform.db.read() as session:
        found, following = job_lists.list_jobs(
            session,
            caller,
            states=state or (),
            priorities=priority or (),
            array_id=array,
            mine=mine,
            beginning=begins,
            cursor=cursor,
            limit=limit,
        )
        waiting = explaining.reasons(session, platform.queue, found, platform.db.clock())
        return Page(items=views.job_views(session, found, waiting), next_cursor=following)


@router.get("/{job_id}")
def show(platform: PlatformDep, caller: Viewer, job_id: str) -> JobDetail:
    """A job with its specification."""
    with platform.db.read() as session:
        job = jobs.get_job(session, caller, job_id)
        waiting = explaining.reasons(session, platform.queue, [job], platform.db.clock())
        return views.job_detail(session, job, waiting)


@router.post("/{job_id}/cancel")
def cancel(platform: PlatformDep, caller: Canceller, job_id: str) -> JobView:
    """Ask for the end of a job."""
    with platform.db.write() as tx:
        job = jobs.cancel(tx, caller, job_id)
        tx.session.flush()
        return views.job_view(tx.session, job)


@router.delete("/{job_id}", status_code=204)
def delete(platform: PlatformDep, caller: Deleter, job_id: str) -> None:
    """Take a job that is over out of every list, for good."""
    with platform.db.write() as tx:
        jobs.delete(tx, caller, job_id)


@router.post("/{job_id}/retry")
def retry(platform: PlatformDep, caller: Retrier, job_id: str) -> JobView:
    """Queue a job anew that failed or was cancelled; it goes on from its last checkpoint."""
    with platform.db.write() as tx:
        job = steering.retry(tx, caller, job_id, rules_of(platform))
        tx.session.flush()
        return views.job_view(tx.session, job)


@router.post("/{job_id}/priority")
def prioritise(
    platform: PlatformDep, caller: Steerer, job_id: str, change: PriorityChange
) -> JobView:
    """Put a waiting job into another class, or set or clear an admin's override."""
    with platform.db.write() as tx:
        if change.priority is not None:
            job = steering.change_class(tx, caller, job_id, change.priority)
        else:
            job = steering.override(tx, caller, job_id, change.override)
        tx.session.flush()
        return views.job_view(tx.session, job)


@router.get("/{job_id}/attempts")
def attempts(platform: PlatformDep, caller: Viewer, job_id: str) -> Page[AttemptView]:
    """The tries of a job, first to last."""
    with platform.db.read() as session:
        jobs.get_job(session, caller, job_id)
        return Page(items=views.attempt_views(session, job_id))


@router.get("/{job_id}/logs")
def logs(
    platform: PlatformDep,
    caller: Viewer,
    job_id: str,
    after: After = None,
    limit: LineLimit = 1000,
    attempt: OfAttempt = None,
    since: Since = None,
    tail: Annotated[
        int | None, Query(ge=1, le=5000, description="The last lines alone; not with `after`")
    ] = None,
    before: Annotated[
        str | None,
        Query(max_length=40, description="With `tail`: the last ones before line `attempt:seq`"),
    ] = None,
) -> Page[LogLine]:
    """Log lines over all attempts, oldest first."""
    wanted = Wanted("log", attempt, since)
    _visible(platform, caller, job_id)
    if tail is not None:
        if after is not None:
            raise _unfit("after", "give either after or tail", "the last lines are not paged")
        end = decode_place(before, "before") if before else None
        page = LinePage(platform.lines.last(job_id, tail, before=end, wanted=wanted), None)
    elif before is not None:
        raise _unfit("before", "before goes with tail alone", "tail says how many lines before it")
    else:
        page = platform.lines.page(job_id, after=decode_place(after), wanted=wanted, limit=limit)
    items = [LogLine(attempt=line.attempt, **_fields(line.body)) for line in page.lines]
    return Page(items=items, next_cursor=_cursor(page))


@router.get("/{job_id}/metrics")
def metrics(
    platform: PlatformDep,
    caller: Viewer,
    job_id: str,
    after: After = None,
    limit: LineLimit = 1000,
    attempt: OfAttempt = None,
) -> Page[MetricPoint]:
    """Metric points over all attempts, oldest first."""
    _visible(platform, caller, job_id)
    page = platform.lines.page(
        job_id, after=decode_place(after), wanted=Wanted("metric", attempt), limit=limit
    )
    items = [MetricPoint(attempt=line.attempt, **_fields(line.body)) for line in page.lines]
    return Page(items=items, next_cursor=_cursor(page))


@router.get("/{job_id}/metrics:curve")
def curve(
    platform: PlatformDep,
    caller: Viewer,
    job_id: str,
    points: Annotated[int, Query(ge=2, le=5000)] = 1000,
) -> MetricCurve:
    """Some of the metric points, evenly chosen over the whole run, however long it is."""
    _visible(platform, caller, job_id)
    lines, total = read_points(platform.db, platform.lines, job_id, points)
    items = [MetricPoint(attempt=line.attempt, **_fields(line.body)) for line in lines]
    return MetricCurve(items=items, total=total)


def _unfit(field: str, said: str, why: str) -> InvalidRequest:
    problem = FieldProblem(field=field, message=f"leave it out: {why}")
    return InvalidRequest(said, errors=[problem])


def _visible(platform: Platform, caller: Caller, job_id: str) -> None:
    with platform.db.read() as session:
        jobs.get_job(session, caller, job_id)


@router.get("/{job_id}/artifacts")
def list_artifacts(
    platform: PlatformDep,
    caller: Viewer,
    job_id: str,
    kind: Annotated[str | None, Query(pattern="^(sample|checkpoint|output)$")] = None,
    cursor: Cursor = None,
    limit: Limit = 200,
) -> Page[ArtifactView]:
    """Stored files of a job, oldest first, with links that open for a while."""
    with platform.db.read() as session:
        jobs.get_job(session, caller, job_id)
        found, following = artifacts.list_artifacts(
            session, job_id, kind=kind, after_id=cursor, limit=limit
        )
    items = [views.artifact_view(platform.objects, artifact) for artifact in found]
    return Page(items=items, next_cursor=following)


@router.get("/{job_id}/events", response_class=StreamingResponse)
def follow(
    platform: PlatformDep,
    caller: Viewer,
    job_id: str,
    last_event_id: Annotated[str | None, Header(max_length=100)] = None,
    after: Annotated[
        str | None, Query(max_length=40, description="Leave out the lines up to `attempt:seq`")
    ] = None,
) -> StreamingResponse:
    """Server-sent events: states and every journal line, resumable; ends with the job."""
    _visible(platform, caller, job_id)
    begun = JobPlace(0, *decode_place(after))
    place = JobPlace.parse(last_event_id) if last_event_id else begun
    return event_stream(platform, caller, follow_job(platform, job_id, place))


def _fields(body: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key != "kind"}


def _cursor(page: LinePage) -> str | None:
    return encode_place(*page.after) if page.after else None
