"""Names of the topics that followers are woken by."""

from collections.abc import Collection, Mapping
from typing import Protocol

from st_controller.domain.policy.reach import Owner
from st_controller.store.transaction import QUEUE, QUEUE_JOB, QUEUE_RELOAD, Transaction

MOST_NAMED = 1000
"""With more changed jobs than that the scheduler is told to look at all that changed."""

JOBS = "jobs"
"""Every change of any job's state; events of people."""
WORKER = "worker:"
"""Before a worker's id: orders and offers for that worker."""
WORKERS = "workers"
"""Orders for all workers."""
TO_WORKERS = "worker"
"""How the topics begin that reach the streams of workers."""

QUOTAS = "quotas"
"""Limits that are passed and do not block; events of whoever notifies people."""


class OwnedJob(Protocol):
    """A job, or what was read of one."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def submitted_by(self) -> str:
        """Id of the user."""

    @property
    def org(self) -> str:
        """The organisation that it belongs to."""

    @property
    def team(self) -> str:
        """The team that it belongs to."""


def change_of(job: OwnedJob) -> dict[str, str]:
    """Body of the event that a job changed: whose it is decides who is told."""
    return {"job_id": job.id, "submitted_by": job.submitted_by, "org": job.org, "team": job.team}


def tell_of(tx: Transaction, job: OwnedJob) -> None:
    """Send whoever may see a job the event that it changed."""
    tx.emit(JOBS, "job", change_of(job))


def owner_in(body: Mapping[str, str]) -> Owner:
    """Whose job such an event is about."""
    return Owner(body["submitted_by"], body["org"], body["team"])


def job(job_id: str) -> str:
    """State, journal and artifacts of one job."""
    return f"job:{job_id}"


def worker(worker_id: str) -> str:
    """Orders and offers for one worker."""
    return f"{WORKER}{worker_id}"


def wake_queue(tx: Transaction, job_ids: Collection[str]) -> None:
    """Tell the scheduler which jobs changed in what it looks at."""
    if not job_ids:
        return
    tx.wake(QUEUE)
    if len(job_ids) > MOST_NAMED:
        tx.wake(QUEUE_RELOAD)
        return
    for job_id in job_ids:
        tx.wake(f"{QUEUE_JOB}{job_id}")
