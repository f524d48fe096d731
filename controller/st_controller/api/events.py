"""``/v1/events``: changes of jobs, for whoever watches many."""

from typing import Annotated

from fastapi import APIRouter, Header
from fastapi.responses import StreamingResponse

from st_controller.api.dependencies import PlatformDep, requires
from st_controller.api.streams import event_stream
from st_controller.events.topic_stream import follow_topics
from st_controller.services import jobs, topics, views
from st_controller.services.caller import Caller
from st_controller.services.outbox import PlacedEvent
from st_controller.store.database import ReadSession

router = APIRouter(prefix="/v1/events", tags=["events"])


@router.get("", response_class=StreamingResponse)
def follow(
    platform: PlatformDep,
    caller: Annotated[Caller, requires("job.view.own", "job.view.all")],
    last_event_id: Annotated[str | None, Header(max_length=40)] = None,
) -> StreamingResponse:
    """Server-sent events: ``ready`` once, then ``job`` with the job as it is now."""

    def tell(session: ReadSession, event: PlacedEvent) -> str | None:
        if not caller.reaches(topics.owner_in(event.body), "job.view.all"):
            return None
        job = jobs.find_job(session, caller, event.body["job_id"])
        return None if job is None else views.job_view(session, job).model_dump_json()

    return event_stream(
        platform,
        caller,
        follow_topics(
            platform, [topics.JOBS], last_event_id, opening=lambda _: ("ready", "{}"), tell=tell
        ),
    )
