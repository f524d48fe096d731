"""Names of the topics that followers are woken by."""

JOBS = "jobs"
"""Every change of any job's state; events of people."""


def job(job_id: str) -> str:
    """State, journal and artifacts of one job."""
    return f"job:{job_id}"


def worker(worker_id: str) -> str:
    """Orders and offers for one worker."""
    return f"worker:{worker_id}"
