"""What can be tuned about an agent; times are seconds."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from st_worker.backoff import delays

SCRIPT_COMMAND = (sys.executable, "-m", "st_worker.script.run")
"""What the run folder of a command job is appended to."""


@dataclass(frozen=True)
class AgentSettings:
    """Timings and commands of an agent; the defaults are for production."""

    trainer_command: tuple[str, ...] = (sys.executable, "-m", "st_trainer")
    """What ``run job.json --run-dir ...`` is appended to."""
    keep_runs: bool = False
    """Leave the folders of finished attempts in place."""
    idle_timeout_seconds: float | None = None
    """An ephemeral worker that had nothing to do for so long leaves; none: it stays."""
    poll_seconds: float = 0.1
    """How often a journal and a process are looked at."""
    linger_seconds: float = 0.2
    """Between two batches of one journal while lines come faster than that."""
    first_backoff_seconds: float = 0.1
    most_backoff_seconds: float = 10.0
    call_timeout_seconds: float = 30.0
    """Longest silence while a call is answered."""
    joint_timeout_seconds: float = 3.0
    """The same for the first try of a claim or an end, which others wait for."""
    stream_silence_seconds: float = 30.0
    """A stream that brings nothing for so long is dead; the controller pings every 10."""
    steady_stream_seconds: float = 1.0
    """A stream that has lasted for so long is opened anew at once, as after the cut of a proxy."""
    claim_patience_seconds: float = 20.0
    """How long an offer is worth asking for while the controller does not answer."""
    transfer_tries: int = 4
    """How often a file may arrive damaged, or be refused, before that counts as failed."""
    renewed_url_seconds: float = 600.0
    """Signed URLs that are refused are asked for anew; again only after so long."""
    upload_patience_seconds: float = 86_400.0
    """How long after the end of its program an attempt goes on trying to store what it made."""
    failed_upload_patience_seconds: float = 900.0
    """The same for one that failed or was stopped, since the job's next try waits for it."""
    owed_backoff_seconds: float = 300.0
    """Longest pause between two tries of files that the store refused."""
    parts_at_once: int = 4
    """Parts of a file that are on their way together; each takes about 2 MiB of memory."""
    verify_timeout_seconds: float = 10.0
    """Longest silence while the controller verifies what was sent, then it is asked how that goes:
    its answer may be lost, and a silent call does not tell the one from the other."""
    cancel_grace_seconds: float = 5.0
    """From SIGTERM to SIGKILL when the job was cancelled."""
    preempt_grace_seconds: float = 60.0
    """From SIGTERM to SIGKILL when a checkpoint is wanted and the job does not say how long."""
    shutdown_grace_seconds: float = 30.0
    """From SIGTERM to SIGKILL when this agent is told to leave."""
    sample_seconds: float = 1.0
    """How long a heartbeat waits for the driver of the accelerators at most."""
    first_sample_seconds: float = 5.0
    """The same before this agent registers, so that nothing in use is offered from the start."""
    models_gb: float | None = None
    """What pretrained models of all organisations may take, GiB; none: half of their disk."""
    shares_models: bool = False
    """Whether jobs of all organisations use the model cache of the host's user."""
    min_free_gb: float = 2.0
    """Free space of the state folder's disk, GiB, below which no job is taken."""
    refused_disk_seconds: float = 60.0
    """How long no job is taken after the disk refused a write for want of room."""
    foreign_memory_gb: float = 1.0
    """Memory in use on an accelerator without a job from which on somebody else is using it."""
    report_seconds: float = 30.0
    """How long a leaving agent goes on uploading and reporting after its trainers have ended."""

    def pauses(self) -> Iterator[float]:
        """Seconds to wait before each further try of something that failed."""
        return delays(self.first_backoff_seconds, self.most_backoff_seconds)
