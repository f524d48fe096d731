"""Tells other processes, through Redis, which topics have news, and hears it from them."""

import asyncio
import json
import threading
from typing import Any

import redis.asyncio
import structlog
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from st_controller.events.hub import Hub
from st_shared.ids import new_id

log = structlog.get_logger(__name__)

CHANNEL = "st:wake"
MOST_PENDING = 10_000
"""Topics that are kept while Redis is away; more are forgotten: followers also look themselves."""
SILENCE_SECONDS = 15.0
"""Without any message; then Redis is asked whether it is still there."""
_BACKOFF = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)


class RedisFanout:
    """Carries topics between the hubs of all processes; without Redis each goes on alone."""

    def __init__(self, hub: Hub, url: str) -> None:
        self._hub = hub
        self._client = redis.asyncio.Redis.from_url(
            url, socket_connect_timeout=2.0, retry=Retry(NoBackoff(), 0)
        )
        self._origin = new_id("ctl")
        self._lock = threading.Lock()
        self._pending: set[str] = set()
        self._news = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.is_connected = False

    def publish(self, topics: frozenset[str]) -> None:
        """Queue ``topics`` for the others; never waits, from any thread."""
        with self._lock:
            if len(self._pending) < MOST_PENDING:
                self._pending |= topics
        if self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)

    async def run(self) -> None:
        """Work until cancelled; an outage is logged once, and Redis is tried again and again."""
        self._loop = asyncio.get_running_loop()
        self._news.set()  # whatever was queued before there was a loop
        failures = 0
        try:
            while True:
                try:
                    await self._carry()
                except (redis.RedisError, OSError) as error:
                    failures = 1 if self.is_connected else failures + 1
                    self._note_outage(error, failures)
                await asyncio.sleep(_BACKOFF[min(failures, len(_BACKOFF)) - 1])
        finally:
            self.is_connected = False
            await self._client.aclose()

    async def _carry(self) -> None:
        """Send and receive until either fails."""
        async with self._client.pubsub(ignore_subscribe_messages=True) as subscription:
            await subscription.subscribe(CHANNEL)
            await self._client.ping()
            if not self.is_connected:
                log.info("news reach the other processes")
            self.is_connected = True
            sending = asyncio.ensure_future(self._send())
            receiving = asyncio.ensure_future(self._receive(subscription))
            try:
                await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                sending.cancel()
                receiving.cancel()
                results = await asyncio.gather(sending, receiving, return_exceptions=True)
            for result in results:
                if isinstance(result, Exception):
                    raise result

    async def _send(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            with self._lock:
                topics, self._pending = self._pending, set()
            if not topics:
                continue
            try:
                await self._client.publish(CHANNEL, self._message(topics))
            except BaseException:
                with self._lock:
                    self._pending |= topics
                raise

    async def _receive(self, subscription: PubSub) -> None:
        asked = False
        while True:
            message = await subscription.get_message(timeout=SILENCE_SECONDS)
            if message is None and asked:
                raise ConnectionError(f"no answer to a ping within {SILENCE_SECONDS} s")
            if message is None:
                await subscription.ping()
            asked = message is None
            if message is not None and message["type"] == "message":
                self._hear(json.loads(message["data"]))

    def _hear(self, body: dict[str, Any]) -> None:
        if body["from"] != self._origin:
            self._hub.ring(frozenset(body["topics"]))

    def _message(self, topics: set[str]) -> str:
        return json.dumps({"from": self._origin, "topics": sorted(topics)})

    def _note_outage(self, error: Exception, failures: int) -> None:
        if failures == 1:
            log.warning("Redis is away; this process goes on alone", error=str(error))
        self.is_connected = False
