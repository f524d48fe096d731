"""What only the HTTP edge of a process needs: its limits, and how its Redis is doing."""

from dataclasses import dataclass

from st_controller.auth.rate_limit import RateLimit
from st_controller.events.redis_fanout import RedisFanout


@dataclass(frozen=True)
class Edge:
    """Kept beside the platform in ``app.state``."""

    logins: RateLimit
    fanout: RedisFanout | None
    """None: this process has no Redis and serves alone."""
