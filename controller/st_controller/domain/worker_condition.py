"""Why a worker takes no jobs, in words: pure, the same for API, command line and dashboard."""

from dataclasses import dataclass
from datetime import datetime

from st_shared.protocol.resources import Reason
from st_shared.protocol.states import WorkerDesired, WorkerState


@dataclass(frozen=True)
class Facts:
    """What is known of a worker."""

    observed: WorkerState
    desired: WorkerDesired
    attempts: int
    """Attempts that it holds."""
    ephemeral: bool = False
    last_heard: datetime | None = None
    ordered_by: str | None = None
    ordered_at: datetime | None = None
    why: str | None = None
    drain_until: datetime | None = None
    revoked_at: datetime | None = None


def obstacle(facts: Facts) -> Reason | None:
    """Why it takes no jobs; none: it does. What an operator ordered comes before what is seen."""
    if facts.desired is WorkerDesired.RETIRED:
        return Reason(
            code="retired",
            message=f"retired{_order(facts)}; its credential is void",
            hint="a host comes back by joining with a new token; delete this one to forget it",
        )
    if facts.revoked_at is not None:
        return Reason(
            code="revoked",
            message=f"its credential was revoked at {_told(facts.revoked_at)}",
            hint="let the host join again with a new token, then delete this worker",
        )
    if facts.desired is WorkerDesired.CORDONED:
        running = f"; {_jobs(facts)} on" if facts.attempts else ""
        return Reason(
            code="cordoned",
            message=f"cordoned{_order(facts)}: nothing new is offered{running}",
            hint="`st workers activate` lets it take jobs again",
        )
    if facts.desired is WorkerDesired.DRAINING:
        return _draining(facts)
    return _seen(facts)


def _draining(facts: Facts) -> Reason:
    if not facts.attempts:
        then = "it leaves by itself" if facts.ephemeral else "the host may be taken down"
        return Reason(
            code="drained",
            message=f"drained{_order(facts)}: nothing runs here, {then}",
            hint="`st workers activate` lets it take jobs again",
        )
    until = (
        f"those that are preemptible until {_told(facts.drain_until)}"
        if facts.drain_until
        else "to their ends"
    )
    return Reason(
        code="draining",
        message=f"draining{_order(facts)}: {_jobs(facts)} on, {until}",
        hint="`st workers drain --now` stops preemptible jobs at a checkpoint, to go on elsewhere",
    )


def _seen(facts: Facts) -> Reason | None:
    if facts.observed is WorkerState.ONLINE:
        return None
    heard = f"last heard at {_told(facts.last_heard)}" if facts.last_heard else "never heard"
    if facts.observed is WorkerState.JOINING:
        return Reason(code="joining", message="joined, but its agent has not been heard yet")
    if facts.observed is WorkerState.SILENT:
        return Reason(
            code="silent",
            message=f"silent, {heard}; its jobs keep their leases for some seconds more",
            hint="look at the agent and the network of the host",
        )
    return Reason(
        code="gone",
        message=f"gone, {heard}; its jobs were queued again",
        hint="start `st-worker` on the host, or delete this worker",
    )


def _order(facts: Facts) -> str:
    by = f" by {facts.ordered_by}" if facts.ordered_by else ""
    at = f" at {_told(facts.ordered_at)}" if facts.ordered_at else ""
    return f"{by}{at}" + (f" ({facts.why})" if facts.why else "")


def _jobs(facts: Facts) -> str:
    return "1 job goes" if facts.attempts == 1 else f"{facts.attempts} jobs go"


def _told(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
