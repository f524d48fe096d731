"""What is concluded from a worker's silence."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from st_shared.protocol.states import WorkerState


@dataclass(frozen=True)
class Patience:
    """How long silence is borne, in seconds."""

    heartbeat: float = 5.0
    """Between two heartbeats."""
    silent_after: float = 15.0
    """Since the last heartbeat until the worker is called silent."""
    lease_ttl: float = 25.0
    """Since the last heartbeat until its attempts are lost."""
    offer_ttl: float = 10.0
    """In which an offer must be claimed."""


def observed_state(last_heard: datetime, now: datetime, patience: Patience) -> WorkerState:
    """What a worker is that was last heard at ``last_heard``."""
    silence = now - last_heard
    if silence >= timedelta(seconds=patience.lease_ttl):
        return WorkerState.GONE
    if silence >= timedelta(seconds=patience.silent_after):
        return WorkerState.SILENT
    return WorkerState.ONLINE
