"""``/v1/audit``: who did what to what, as far as the caller's role reaches."""

from typing import Annotated

from fastapi import APIRouter, Query

from st_controller.api.dependencies import PlatformDep, requires
from st_controller.api.paging import Limit
from st_controller.services import audit_reading
from st_controller.services.audit_reading import AuditFilter
from st_controller.services.caller import Caller
from st_controller.services.paging import decode_number
from st_shared.protocol.audit import AuditEntryView
from st_shared.protocol.message import Moment
from st_shared.protocol.resources import Page

router = APIRouter(prefix="/v1/audit", tags=["audit"])

Auditor = Annotated[Caller, requires("admin.audit")]
_Pattern = Annotated[str | None, Query(max_length=220, description="`*` stands for anything")]


@router.get("")
def list_(
    platform: PlatformDep,
    caller: Auditor,
    actor: _Pattern = None,
    action: _Pattern = None,
    target: Annotated[str | None, Query(max_length=220)] = None,
    since: Annotated[Moment | None, Query()] = None,
    until: Annotated[Moment | None, Query(description="Before this moment")] = None,
    cursor: Annotated[str | None, Query(max_length=40)] = None,
    limit: Limit = 100,
) -> Page[AuditEntryView]:
    """Entries of the audit log, newest first; those of people that the caller's role reaches.

    A page may be short, or empty, and still have a `next_cursor`: so far nothing more was found.
    """
    wanted = AuditFilter(actor, action, target, since, until)
    before = decode_number(cursor) if cursor else None
    with platform.db.read() as session:
        items, following = audit_reading.page(session, caller, wanted, before=before, limit=limit)
    return Page(items=items, next_cursor=None if following is None else str(following))
