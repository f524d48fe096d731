"""Every permission: what it allows, and whose things it is about."""

from enum import StrEnum
from typing import NamedTuple

from st_shared.spec.job import Priority


class About(StrEnum):
    """Whose things a permission is about."""

    OWN = "own"
    """One's own doings; the reach of the role does not matter."""
    OTHERS = "others"
    """The things of others, as far as the role reaches."""
    SYSTEM = "system"
    """What all organisations share; it takes a role that reaches the whole system."""


class Permission(NamedTuple):
    """What a permission allows."""

    allows: str
    about: About


_OWN: dict[str, str] = {
    "api.access": "use the API with a key, as `st` and pipelines do",
    "api.keys.own": "make and revoke one's own API keys",
    "config.create": "save configurations",
    "config.delete.own": "delete one's own saved configurations",
    "config.edit.own": "change one's own saved configurations",
    "config.view": "see the saved configurations of one's organisation",
    "dataset.create": "register datasets in one's organisation",
    "dataset.view": "see the datasets of one's organisation",
    "job.bypass.approval": "submit without waiting for approval",
    "job.bypass.queue": "submit before everything else in the queue",
    "job.bypass.quota": "submit beyond quotas that block, where the job file asks for it",
    "job.cancel.own": "cancel one's own jobs",
    "job.command": "submit jobs that run a shell command, hooks of trainings included",
    "job.delete.own": "delete one's own jobs that are over",
    "job.priority.high": "ask for the priority class high",
    "job.priority.urgent": "ask for the classes urgent and critical, which preempt others",
    "job.submit": "submit jobs",
    "job.view.own": "see one's own jobs, logs and artifacts",
    "queue.cancel.own": "cancel one's own jobs while they wait",
    "queue.view": "see the queue: one's own jobs and one's own shares",
    "secret.own": "keep secrets, and use them and those of one's organisation in jobs",
    "worker.view": "see workers",
}
_OTHERS: dict[str, str] = {
    "admin.approve": "see approvals and manage the rules that ask for them",
    "admin.audit": "read the audit log",
    "admin.config": "manage resource rules",
    "admin.users": "make users, disable them, give them roles, permissions and denials",
    "api.keys.all": "see and revoke the API keys of others",
    "config.delete.all": "delete anyone's saved configurations",
    "config.edit.all": "change anyone's saved configurations",
    "job.cancel.all": "cancel, retry and cap the jobs of others",
    "job.delete.all": "delete jobs of others that are over",
    "job.view.all": "see the jobs, logs and artifacts of others",
    "org.edit": "rename an organisation and set its time zone",
    "org.manage.members": "see who is in an organisation, and take users into it",
    "org.manage.quotas": "set the quotas of an organisation and all below it",
    "org.view": "see organisations",
    "queue.approve": "approve or reject jobs that wait for approval",
    "queue.cancel.all": "cancel jobs of others while they wait",
    "queue.manage": "override priorities, and set shares and limits of teams and users",
    "queue.view.all": "see the jobs and shares of others in the queue",
    "quota.manage": "set and remove quotas",
    "quota.view": "see the quotas and the use of others",
    "secret.manage": "set and remove the secrets that an organisation shares",
    "team.create": "make teams, from the reach org on",
    "team.delete": "archive teams",
    "team.edit": "rename teams",
    "team.manage.members": "take users of the organisation into teams, and out of them",
    "team.manage.quotas": "set the quotas of a team and its members",
    "team.view": "see teams and their members",
}
_SYSTEM: dict[str, str] = {
    "admin.levels": "make, change and delete roles",
    "admin.queue": "set the rules of the queue",
    "admin.quotas": "set prices and default quotas",
    "admin.workers": "let workers join, label, cordon, drain, retire and delete them",
    "org.create": "make organisations",
    "org.delete": "disable organisations",
}

TABLE: dict[str, Permission] = dict(
    sorted(
        (name, Permission(allows, about))
        for about, group in ((About.OWN, _OWN), (About.OTHERS, _OTHERS), (About.SYSTEM, _SYSTEM))
        for name, allows in group.items()
    )
)
"""Every permission by its name."""

PERMISSIONS: dict[str, str] = {name: permission.allows for name, permission in TABLE.items()}
"""What each allows."""

CLASS_PERMISSIONS: dict[Priority, str] = {
    Priority.HIGH: "job.priority.high",
    Priority.URGENT: "job.priority.urgent",
    Priority.CRITICAL: "job.priority.urgent",
}
"""What asking for a priority class needs; the others are open to whoever may submit."""
