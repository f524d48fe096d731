"""Sessions, passwords and second factors, as ``/v1/auth`` takes and tells them.

| route | access | body | answer |
|---|---|---|---|
| ``GET auth/sessions`` | session | | ``Page[SessionInfo]`` |
| ``DELETE auth/sessions/{id}`` | session | | 204 |
| ``POST auth/sessions:end-others`` | session | | ``Ended`` |
"""

from st_shared.protocol.message import Moment, Resource


class SessionInfo(Resource):
    """A browser that is signed in."""

    id: str
    created_at: Moment
    seen_at: Moment
    """When it was used last, to the minute."""
    expires_at: Moment
    address: str | None
    """From where it was opened."""
    agent: str | None
    """What the browser said of itself then."""
    current: bool
    """Whether it is the one that asks."""


class Ended(Resource):
    """How many were ended."""

    count: int
