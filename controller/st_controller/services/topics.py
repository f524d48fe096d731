"""Names of the topics that followers are woken by."""

from collections.abc import Collection

from st_controller.store.transaction import QUEUE, QUEUE_JOB, QUEUE_RELOAD, Transaction

MOST_NAMED = 200
"""With more changed jobs than that the scheduler is told to look at all that changed."""

JOBS = "jobs"
"""Every change of any job's state; events of people."""


def job(job_id: str) -> str:
    """State, journal and artifacts of one job."""
    return f"job:{job_id}"


def worker(worker_id: str) -> str:
    """Orders and offers for one worker."""
    return f"worker:{worker_id}"


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
