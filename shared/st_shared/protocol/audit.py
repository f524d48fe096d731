"""The audit log as it is told: ``GET /v1/audit``, for holders of ``admin.audit``."""

from typing import Any

from st_shared.protocol.message import Moment, Resource


class AuditEntryView(Resource):
    """Who did what to what."""

    id: int
    """Later entries have larger numbers; there may be gaps."""
    place: int | None
    """Place in the chain, from 1 without gaps; none: not chained yet."""
    at: Moment
    actor: str
    """``user:NAME``, ``worker:ID``, or a part of the controller."""
    action: str
    target: str
    details: dict[str, Any]
    code: str | None
    """HMAC-SHA-256 over all fields and the code before."""
