"""What an agent's state folder tells, without asking the controller or the agent."""

from typing import Any

from st_worker.credential import Credential
from st_worker.folder import AttemptFolder, StateFolder
from st_worker.journal import Cursor
from st_worker.record import AttemptRecord
from st_worker.trainer import TrainerProcess


def read_status(folder: StateFolder) -> dict[str, Any]:
    """Who this worker is and what it runs; the secret is left out."""
    credential = Credential.load(folder)
    return {
        "state_dir": str(folder.root),
        "agent_running": folder.is_in_use(),
        "worker_id": credential.worker_id if credential else None,
        "name": credential.name if credential else None,
        "controller": credential.controller if credential else None,
        "attempts": [_attempt(attempt) for attempt in folder.known_attempts()],
    }


PULSE_SECONDS = 60.0
"""An agent that has not tried to beat for so long hangs."""


def is_healthy(folder: StateFolder, now: float) -> bool:
    """Whether an agent runs on ``folder`` and its loop turns; ``now`` is POSIX time.

    A controller that is away makes no agent ill.
    """
    if not folder.is_in_use():
        return False
    return folder.pulse.exists() and now - folder.pulse.stat().st_mtime < PULSE_SECONDS


def _attempt(folder: AttemptFolder) -> dict[str, Any]:
    record = AttemptRecord.load(folder)
    place = Cursor.load(folder.shipped, start=record.claim.acked_seq)
    size = folder.journal.stat().st_size if folder.journal.exists() else 0
    return {
        "attempt_id": record.claim.attempt_id,
        "job_id": record.claim.job_id,
        "number": record.claim.number,
        "slots": record.claim.slots,
        "claimed_at": record.claimed_at.isoformat(),
        "phase": _phase(record),
        "pid": record.pid,
        "trainer_running": TrainerProcess.find(folder.run) is not None,
        "stop": record.stop,
        "journal": {"acked_seq": place.seq, "acked_bytes": place.offset, "bytes": size},
    }


def _phase(record: AttemptRecord) -> str:
    if record.ending is not None:
        return "uploading"
    return "preparing" if record.pid is None and record.kind != "noop" else "running"


def status_lines(status: dict[str, Any]) -> list[str]:
    """The status for people."""
    if status["worker_id"] is None:
        return [f"{status['state_dir']}: no worker has joined from here"]
    alive = "running" if status["agent_running"] else "not running"
    lines = [
        f"{status['name']} ({status['worker_id']}) at {status['controller']}",
        f"agent {alive}, {len(status['attempts'])} attempts in {status['state_dir']}",
    ]
    for attempt in status["attempts"]:
        journal = attempt["journal"]
        lines.append(
            f"  {attempt['attempt_id']} of {attempt['job_id']}: {attempt['phase']}, "
            f"pid {attempt['pid'] or '-'}, journal line {journal['acked_seq']} acknowledged, "
            f"{journal['bytes'] - journal['acked_bytes']} bytes to send"
        )
    return lines
