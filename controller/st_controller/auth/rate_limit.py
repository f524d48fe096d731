"""Counts tries within a minute, for all replicas together where Redis answers."""

import hashlib
import threading
from collections import Counter
from datetime import datetime

import redis
import structlog
from redis.backoff import NoBackoff
from redis.retry import Retry

log = structlog.get_logger(__name__)

WINDOW_SECONDS = 60


class RateLimit:
    """At most ``limit`` tries a minute of one key.

    When Redis is away the tries are counted in this process, so the limit goes on to hold here.
    """

    def __init__(self, name: str, limit: int, redis_url: str | None) -> None:
        self._name, self._limit = name, limit
        self._client = (
            redis.Redis.from_url(
                redis_url,
                socket_timeout=0.5,
                socket_connect_timeout=0.5,
                retry=Retry(NoBackoff(), 0),
            )
            if redis_url
            else None
        )
        self._here = _Tries()
        self._is_away = False

    def allows(self, key: str, now: datetime, times: int = 1) -> bool:
        """Count one try of ``key``; whether it is within ``times`` the limit."""
        window = int(now.timestamp()) // WINDOW_SECONDS
        hashed = hashlib.sha256(key.encode()).hexdigest()[:32]
        here = self._here.add(hashed, window)
        shared = self._shared(f"st:limit:{self._name}:{hashed}:{window}")
        return max(here, shared) <= self._limit * times

    def close(self) -> None:
        """Close the connection."""
        if self._client:
            self._client.close()

    def _shared(self, name: str) -> int:
        """Tries that all replicas saw; 0 when that cannot be known."""
        if self._client is None:
            return 0
        try:
            with self._client.pipeline(transaction=True) as pipeline:
                pipeline.incr(name)
                pipeline.expire(name, 2 * WINDOW_SECONDS)
                count = int(pipeline.execute()[0])
        except redis.RedisError as error:
            if not self._is_away:
                log.warning("tries are counted in this process only", error=str(error))
            self._is_away = True
            return 0
        self._is_away = False
        return count


class _Tries:
    """Tries in this process in the present window."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._window = 0
        self._counts: Counter[str] = Counter()

    def add(self, key: str, window: int) -> int:
        with self._lock:
            if window != self._window:
                self._window = window
                self._counts.clear()
            self._counts[key] += 1
            return self._counts[key]
