"""``/v1/jobs:check``: what would come of a job file, without submitting it."""

from typing import Annotated, Any

from fastapi import APIRouter, Body

from st_controller.api.dependencies import PlatformDep, requires
from st_controller.api.submissions import rules_of
from st_controller.services import configs
from st_controller.services.caller import Caller
from st_controller.services.policy import checking
from st_shared.protocol.policy_check import CheckView

router = APIRouter(prefix="/v1/jobs:check", tags=["jobs"])

Viewer = Annotated[Caller, requires("job.view.own")]


@router.post("")
def check(
    platform: PlatformDep,
    caller: Viewer,
    document: Annotated[dict[str, Any], Body(description="A JobSpec")],
) -> CheckView:
    """Say step by step whether the caller could submit a job; writes nothing."""
    (whole,) = configs.begun_from(platform.db, caller, [document])
    draft, step = checking.read(whole)
    if draft is None:
        return checking.view(caller, [step])
    with platform.db.read() as session:
        found = checking.check(session, caller, draft, rules_of(platform), platform.db.clock())
    (warnings,) = platform.survey.warnings(platform.db, [draft.spec.resources])
    return checking.view(caller, [*found.steps, checking.workers(warnings)])
