"""Permissions and the roles that hold them; a key's scopes can only take away."""

from collections.abc import Iterable
from enum import StrEnum

from st_shared.spec.job import Priority

PERMISSIONS: dict[str, str] = {
    "job.submit": "submit jobs",
    "job.view.own": "see one's own jobs, logs and artifacts",
    "job.view.all": "see everyone's jobs, logs and artifacts",
    "job.cancel.own": "cancel one's own jobs",
    "job.cancel.all": "cancel, retry and steer anyone's jobs",
    "job.priority.high": "ask for the priority class high",
    "job.priority.urgent": "ask for the classes urgent and critical, which preempt others",
    "job.command": "submit jobs that run a shell command",
    "queue.view": "see the queue: one's own jobs and everyone's shares",
    "queue.view.all": "see everyone's jobs in the queue",
    "queue.manage": "override priorities, set shares, limits and the rules of the queue",
    "dataset.view": "see datasets",
    "dataset.create": "register datasets",
    "worker.view": "see workers",
    "admin.workers": "let workers join, label, cordon, drain, retire and delete them",
    "api.keys.own": "make and revoke one's own API keys",
}
"""Every permission, with what it allows."""


CLASS_PERMISSIONS: dict[Priority, str] = {
    Priority.HIGH: "job.priority.high",
    Priority.URGENT: "job.priority.urgent",
    Priority.CRITICAL: "job.priority.urgent",
}
"""What asking for a priority class needs; the others are open to whoever may submit."""


class Role(StrEnum):
    """What a user is, unless refined."""

    VIEWER = "viewer"
    """Looks at their own."""
    RESEARCHER = "researcher"
    """Submits and steers their own jobs."""
    LEAD = "lead"
    """Sees and steers everyone's jobs."""
    ADMIN = "admin"
    """May do everything."""


_VIEWER = frozenset({"job.view.own", "dataset.view", "worker.view"})
_RESEARCHER = _VIEWER | {
    "job.submit",
    "job.cancel.own",
    "queue.view",
    "dataset.create",
    "api.keys.own",
}
_LEAD = _RESEARCHER | {"job.view.all", "job.cancel.all", "job.priority.high", "queue.view.all"}

ROLE_PERMISSIONS: dict[Role, frozenset[str]] = {
    Role.VIEWER: _VIEWER,
    Role.RESEARCHER: frozenset(_RESEARCHER),
    Role.LEAD: frozenset(_LEAD),
    Role.ADMIN: frozenset(PERMISSIONS),
}
"""What each role may do."""


def effective(role: Role, scopes: Iterable[str] | None) -> frozenset[str]:
    """What a caller of this role may do through a key with these scopes; none: no key."""
    granted = ROLE_PERMISSIONS[role]
    return granted if scopes is None else granted & frozenset(scopes)
