"""What the routes that submit have in common."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import Header, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from st_controller.platform import Platform
from st_controller.services import jobs, views
from st_controller.services.caller import Caller
from st_controller.services.drafts import Draft, Rules
from st_shared.protocol.resources import JobView, Reason

SMALL = 32_768
"""Bytes of a body that is checked in less than a millisecond or two."""
MOST_OF_KEY = 200
SIGNS_OF_KEY = r"^[\x21-\x7e]+$"
IdempotencyKey = Annotated[
    str | None, Header(min_length=1, max_length=MOST_OF_KEY, pattern=SIGNS_OF_KEY)
]


WANTED = (
    "config.view",
    "job.priority.high",
    "job.priority.urgent",
    "job.command",
    "job.bypass.approval",
    "job.bypass.quota",
)
"""Permissions that a job file may need beyond that to submit."""


def rules_of(platform: Platform) -> Rules:
    """What this controller's configuration lets people submit."""
    return Rules(allow_commands=platform.settings.allow_command_jobs)


def encoded(answer: BaseModel, status: int, headers: Mapping[str, str] = {}) -> Response:
    """An answer as it goes out: our own model, so that the framework need not check it again."""
    return Response(
        answer.model_dump_json(),
        status_code=status,
        media_type="application/json",
        headers=dict(headers),
    )


async def taken_in(
    platform: Platform, caller: Caller, draft: Draft, idempotency_key: str | None
) -> tuple[JobView, bool]:
    """Queue one checked job; how it is shown, and whether it is new."""
    warnings = await _warnings(platform, draft)
    job_id, columns, told = await platform.submissions.submit(caller, draft, idempotency_key)
    if columns:
        return views.new_job_view(columns, caller.username, [*warnings, *told]), True
    known = await run_in_threadpool(_known_job, platform, caller, job_id)
    return known.model_copy(update={"warnings": warnings}), False


async def _warnings(platform: Platform, draft: Draft) -> list[Reason]:
    """Why the job can never start, as far as is known; only a look into the database waits."""
    resources = draft.spec.resources
    known = platform.survey.known(resources, platform.db.clock())
    if known is not None:
        return known
    (warnings,) = await run_in_threadpool(platform.survey.warnings, platform.db, [resources])
    return warnings


def _known_job(platform: Platform, caller: Caller, job_id: str) -> JobView:
    with platform.db.read() as session:
        return views.job_view(session, jobs.get_job(session, caller, job_id))
