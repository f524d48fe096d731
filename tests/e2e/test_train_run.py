"""``st-train`` as a process of its own: signals, exit codes, and the time that commands take."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from st_shared.protocol.journal import ExitCode, journal_event

STEPS = 400


def command(*arguments):
    return [sys.executable, "-m", "st_trainer", *map(str, arguments)]


def environment():
    return os.environ | {"OMP_NUM_THREADS": "1"}


def start(*arguments):
    return subprocess.Popen(
        command(*arguments), env=environment(), stderr=subprocess.PIPE, text=True
    )


def start_noted(job, run_dir, notes):
    """Start a run that writes to ``notes`` which modules it loads."""
    arguments = command("run", job, "--run-dir", run_dir, "--quiet")
    arguments[1:1] = ["-X", "importtime"]
    return subprocess.Popen(arguments, env=environment(), stderr=notes, text=True)


@pytest.fixture
def squares_job(tmp_path):
    """A job file that trains some seconds on pictures in a folder beside it."""
    folder = tmp_path / "squares"
    folder.mkdir()
    for index in range(7):
        Image.new("L", (4, 4), 30 * index).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"shade {index % 2}")
    config = {"image_size": 4, "width": 16, "depth": 2, "heads": 2}
    training = {
        "model": {"family": "pixel_dit", "config": config},
        "datasets": [{"path": str(folder)}],
        "steps": STEPS,
        "batch_size": 4,
        "checkpoint": {"every": 100},
        "validation": {"prompts": ["shade 1"], "every": 1000},
    }
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({"name": "squares", "training": training}))
    return path


def events(run_dir):
    lines = (run_dir / "journal.ndjson").read_bytes().splitlines()
    found = [journal_event.validate_json(line) for line in lines]
    assert [event.seq for event in found] == list(range(1, len(found) + 1))
    return found


def checksums(run_dir):
    manifest = json.loads((run_dir / f"checkpoints/step-{STEPS:06d}/manifest.json").read_bytes())
    return {file["path"]: file["sha256"] for file in manifest["files"]}


@pytest.mark.parametrize("number", [signal.SIGTERM])
def test_a_signal_leads_to_a_checkpoint_and_the_resumed_run_ends_the_same(
    squares_job, tmp_path, number
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    loaded = tmp_path / "loaded.txt"
    with loaded.open("w") as notes, start_noted(squares_job, whole, notes) as uninterrupted:
        with start("run", squares_job, "--run-dir", parts) as interrupted:
            for line in interrupted.stderr:
                if line.startswith("step "):
                    interrupted.send_signal(number)
                    break
            rest = interrupted.stderr.read()
        assert interrupted.returncode == ExitCode.PREEMPTED, rest
        assert "--resume latest" in rest
        assert "Traceback" not in rest
        stopped = [event for event in events(parts) if event.kind == "log"][-1]
        assert "stopped at step" in stopped.message
        saved = [event.step for event in events(parts) if event.kind == "checkpoint"]
        assert 0 < saved[-1] < STEPS
        arguments = ("run", squares_job, "--run-dir", parts, "--resume", "latest", "--quiet")
        with start(*arguments) as resumed:
            assert resumed.stderr.read() == ""
        assert resumed.returncode == ExitCode.SUCCEEDED
    assert uninterrupted.returncode == ExitCode.SUCCEEDED
    modules = {line.rpartition("|")[2].strip() for line in loaded.read_text().splitlines()}
    assert "torch.optim" in modules
    assert not {"torch._dynamo", "sympy", "torch.distributed.tensor"} & modules  # half of a start
    assert checksums(parts) == checksums(whole)
    measured = [event.step for event in events(parts) if event.kind == "metric"]
    assert measured == sorted(set(measured))
    for name in ("weights.safetensors", "sample_grid.png", "loss_curve.png"):
        assert (parts / "output" / name).read_bytes() == (whole / "output" / name).read_bytes()


def test_commands_that_do_not_train_never_load_torch(squares_job, tmp_path):
    for arguments in (("--help",), ("validate", squares_job), ("families",), ("schema",)):
        script = (
            "import sys\nfrom st_trainer.cli import main\n"
            "try:\n    main()\nexcept SystemExit as end:\n"
            "    assert end.code == 0, end.code\n"
            "heavy = {'torch', 'accelerate', 'diffusers', 'transformers', 'numpy', 'PIL'}\n"
            "assert not heavy & set(sys.modules)\n"
        )
        subprocess.run(
            [sys.executable, "-c", script, *map(str, arguments)], check=True, capture_output=True
        )


def test_a_run_that_cannot_start_says_why_with_its_exit_code(squares_job, tmp_path):
    job = yaml.safe_load(squares_job.read_text())
    job["training"]["datasets"] = [{"name": "absent"}]
    squares_job.write_text(yaml.safe_dump(job))
    missing = subprocess.run(
        command("run", squares_job, "--run-dir", tmp_path / "run"),
        env=os.environ | {"ST_DATASETS_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert missing.returncode == ExitCode.BAD_DATA
    assert "training.datasets.0.name" in missing.stderr
    squares_job.write_text("name: [")
    bad = subprocess.run(
        command("run", squares_job, "--run-dir", tmp_path / "run"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert bad.returncode == ExitCode.BAD_SPEC
    assert "not valid YAML at line" in bad.stderr


def test_the_example_job_file_is_valid():
    root = Path(__file__).parents[2]
    subprocess.run(command("validate", root / "examples/digits.yaml"), check=True)
