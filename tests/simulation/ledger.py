"""What tenants have used, worked out from the attempts alone, apart from any scheduler."""

from collections import defaultdict
from collections.abc import Iterator
from math import exp, log

from simulation.tables import Tables
from st_controller.domain.scheduling.model import Tenant
from st_shared.protocol.states import Outcome


def usage(tables: Tables, half_life: float, now: float) -> dict[str, float]:
    """Slot-seconds times price that each node held, decayed to ``now``, by path; root: ``""``.

    An attempt holds its slots from its offer to its end; an offer that nobody claimed is free.
    """
    decay = log(2) / half_life
    used: defaultdict[str, float] = defaultdict(float)
    for attempt in tables.attempts.values():
        if attempt.outcome == Outcome.EXPIRED:
            continue
        end = now if attempt.finished is None else attempt.finished
        held = exp(-decay * (now - end)) - exp(-decay * (now - attempt.offered))
        for path in paths(tables.jobs[attempt.job].tenant):
            used[path] += attempt.slots * attempt.price * held / decay
    return used


def paths(tenant: Tenant) -> Iterator[str]:
    """The nodes that a job of this tenant counts against, the root first."""
    yield ""
    yield tenant.org
    yield f"{tenant.org}/{tenant.team}"
    yield tenant.path
