"""``st-train launch`` as real processes: one signal, one checkpoint, one exit code."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml
from fleet import PATIENCE, wait_for
from shades import make_shades

from st_shared.protocol.journal import ExitCode, journal_event


@pytest.fixture
def launch(tmp_path):
    """Starts a training of two processes on tiny pictures."""
    config = {"image_size": 4, "width": 16, "depth": 1, "heads": 2}
    training = {
        "model": {"family": "pixel_dit", "config": config},
        "datasets": [{"path": str(make_shades(tmp_path / "shades"))}],
        "steps": 100_000,
        "batch_size": 2,
        "log_every": 1,
        "checkpoint": {"every": 1_000_000},
    }
    job = tmp_path / "job.yaml"
    job.write_text(yaml.safe_dump({"name": "shades", "training": training}))
    started = []

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "st_trainer", "launch", "--processes", "2"]
        command += ["run", str(job), "--run-dir", str(tmp_path / "run"), "--quiet"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def events(folder: Path, kind: str):
    path = folder / "run" / "journal.ndjson"
    lines = path.read_bytes().splitlines() if path.exists() else []
    found = [journal_event.validate_json(line) for line in lines]
    return [event for event in found if event.kind == kind]


@pytest.mark.faults
def test_one_signal_to_the_launcher_is_one_checkpoint_and_the_code_for_preempted(launch, tmp_path):
    process = launch()
    wait_for("some steps", lambda: len(events(tmp_path, "metric")) > 3)
    ranks = psutil.Process(process.pid).children()
    assert len(ranks) == 2
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == ExitCode.PREEMPTED
    [checkpoint] = events(tmp_path, "checkpoint")
    assert checkpoint.step == events(tmp_path, "metric")[-1].step
    assert not [rank for rank in ranks if rank.is_running()]


def test_a_process_that_is_killed_ends_the_others(launch, tmp_path):
    process = launch()
    wait_for("some steps", lambda: len(events(tmp_path, "metric")) > 3)
    ranks = psutil.Process(process.pid).children()
    ranks[1].kill()
    assert process.wait(PATIENCE) == 128 + signal.SIGKILL
    assert not [rank for rank in ranks if rank.is_running()]
