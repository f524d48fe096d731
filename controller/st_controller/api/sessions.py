"""``/v1/auth/sessions``: the browsers in which one is signed in."""

from typing import Annotated

from fastapi import APIRouter, Path

from st_controller.api.dependencies import PlatformDep, browser_session
from st_controller.services import sessions
from st_controller.services.caller import Caller
from st_shared.protocol.resources import Page
from st_shared.protocol.sign_in import Ended, SessionInfo

router = APIRouter(tags=["auth"])

Person = Annotated[Caller, browser_session()]


@router.get("/v1/auth/sessions")
def list_(platform: PlatformDep, caller: Person) -> Page[SessionInfo]:
    """The caller's sessions in force, the last used first."""
    with platform.db.read() as session:
        now = platform.db.clock()
        found = sessions.list_sessions(session, caller.user_id, now, caller.credential_id)
    return Page(items=found)


@router.delete("/v1/auth/sessions/{session_id}", status_code=204)
def end(
    platform: PlatformDep, caller: Person, session_id: Annotated[str, Path(max_length=40)]
) -> None:
    """Sign a browser out."""
    with platform.db.write() as tx:
        sessions.end_session(tx, caller, session_id)


@router.post("/v1/auth/sessions:end-others")
def end_others(platform: PlatformDep, caller: Person) -> Ended:
    """Sign out all browsers but this one."""
    with platform.db.write() as tx:
        ended = sessions.end_sessions(
            tx, caller.user_id, caller.signature, but=caller.credential_id
        )
    return Ended(count=len(ended))
