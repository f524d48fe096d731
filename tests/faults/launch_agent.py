"""``st-worker`` as it is, with the scripted trainer and shorter waits.

``FAULTS_VERSION`` lets it call itself another version, ``FAULTS_TRAINER=real`` takes the real
trainer, ``FAULTS_WAITS=default`` leaves all waits as they are.
"""

import faulthandler
import os
import signal
import sys
from functools import partial
from pathlib import Path

import st_shared
from st_worker import settings

if version := os.environ.get("FAULTS_VERSION"):
    st_shared.__version__ = version

SHORT = {
    "first_backoff_seconds": 0.05,
    "most_backoff_seconds": 1.0,
    "call_timeout_seconds": 3.0,
    "joint_timeout_seconds": 1.0,
    "stream_silence_seconds": 20.0,
    "claim_patience_seconds": 2.0,
    "preempt_grace_seconds": 5.0,
    "refused_disk_seconds": 3.0,
    "verify_timeout_seconds": 3.0,
}
WAITS = {"short": SHORT, "default": {}}
TRAINER = {
    "scripted": (sys.executable, str(Path(__file__).with_name("scripted_trainer.py"))),
    "real": (sys.executable, "-m", "st_trainer"),
}
waits = WAITS[os.environ.get("FAULTS_WAITS", "short")]
command = TRAINER[os.environ.get("FAULTS_TRAINER", "scripted")]
settings.AgentSettings = partial(  # type: ignore[misc,assignment]
    settings.AgentSettings,
    trainer_command=command,
    **waits,
)

faulthandler.register(signal.SIGUSR1, all_threads=True)  # asked of agents of a run that failed

if __name__ == "__main__":
    from st_worker.cli import main

    main()
