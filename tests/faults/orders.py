"""Orders to yield, given while things break: a worker is drained, or an urgent job wants its slots.

Whoever gives one repeats it until a controller has taken it, as people and scripts do.
"""

import threading
import time
from collections.abc import Callable

from st_client import Client
from st_client.errors import ClientError

GRACE = 0.5
"""Seconds for which a drain waits before it stops jobs, unless it stops them at once."""
URGENT_SECONDS = 0.3
PATIENCE = 120.0
"""Seconds in which a controller that runs again must take an order."""


class Orders:
    """The orders of one run; ``settle`` waits until they were taken, and takes drains back."""

    def __init__(self, client: Client, slots: int) -> None:
        self._client, self._slots = client, slots
        self._threads: list[threading.Thread] = []
        self._drained: list[str] = []
        self._refused: list[str] = []
        self.urgent: list[str] = []
        """Ids of the jobs that made others yield."""

    def give(self, how: str, worker: str) -> None:
        """Let jobs yield: those of ``worker`` for a drain, all for urgent jobs."""
        act = self._preempt if how == "preempt" else lambda: self._drain(how, worker)
        thread = threading.Thread(target=self._until_taken, args=(how, act), daemon=True)
        self._threads.append(thread)
        thread.start()

    def settle(self) -> list[str]:
        """Every order is taken, and every worker takes jobs again; what went wrong comes back."""
        for thread in self._threads:
            thread.join()
        for worker in self._drained:
            self._until_taken(
                "activate", lambda worker=worker: self._client.order_worker(worker, "activate")
            )
        return self._refused

    def _drain(self, how: str, name: str) -> None:
        worker = self._client.find_worker(name).id
        grace = GRACE if how == "drain" else 0.0
        self._client.drain_worker(worker, grace_seconds=grace, why="a fault campaign")
        self._drained.append(worker)

    def _preempt(self) -> None:
        """One job for each worker, as wide as it is."""
        for number in range(2):
            job = {
                "name": "urgent",
                "priority": "urgent",
                "noop": {"seconds": URGENT_SECONDS},
                "resources": {"slots": self._slots},
                "retry": {"max_attempts": 10, "backoff": "0.1s"},
            }
            key = f"urgent-{id(self)}-{number}"
            taken = self._client.submit(job, idempotency_key=key).id
            if taken not in self.urgent:
                self.urgent.append(taken)

    def _until_taken(self, what: str, act: Callable[[], object]) -> None:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                act()
            except ClientError as error:
                if time.monotonic() > until:
                    self._refused.append(f"{what} was not taken in {PATIENCE:g} s: {error}")
                    return
            else:
                return
            time.sleep(0.1)
