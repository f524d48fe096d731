"""Bounds how often passwords, codes and tokens can be guessed."""

from fastapi import Request

from st_controller.api.dependencies import address_of
from st_controller.api.edge import Edge
from st_controller.errors import TooMany
from st_controller.platform import Platform

SPRAYING = 3
"""Tries from one address under any name, in multiples of those of one name."""
SWARMING = 10
"""Tries of one name from any address; so many that strangers do not easily lock a person out."""


def count_try(request: Request, platform: Platform, name: str) -> None:
    """Count a try to sign in as ``name``.

    Of one name from one address, of any name from one address, and of one name from anywhere. The
    address is that of the connection, or what a trusted proxy says (``ST_TRUSTED_PROXIES``).

    Raises:
        TooMany: one of the bounds is passed; the try is not looked at.
    """
    edge: Edge = request.app.state.edge
    address, now = address_of(request), platform.db.clock()
    allowed = (
        edge.logins.allows(f"{name}\n{address}", now),
        edge.logins.allows(f"\n{address}", now, SPRAYING),
        edge.logins.allows(f"{name}\n", now, SWARMING),
    )
    if not all(allowed):
        raise TooMany(
            f"more than {platform.settings.login_attempts_per_minute} tries within a minute",
            code="too_many_logins",
        )
