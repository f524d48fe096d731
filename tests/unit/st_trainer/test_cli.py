import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from st_shared.protocol.journal import ExitCode, journal_event
from st_trainer.cli import st_train


@pytest.fixture
def job_file(tmp_path, tiny_spec):
    """Writes a job file; keywords replace keys of its training section."""

    def write(**changes):
        training = tiny_spec().model_dump(mode="json") | changes
        path = tmp_path / "job.yaml"
        path.write_text(yaml.safe_dump({"name": "tiny", "training": training}))
        return str(path)

    return write


def call(*arguments):
    return CliRunner().invoke(st_train, [str(argument) for argument in arguments])


def test_run_prints_its_results_as_json(job_file, tmp_path):
    result = call("run", job_file(), "--run-dir", tmp_path / "run", "--json", "--quiet")
    assert result.exit_code == ExitCode.SUCCEEDED
    assert result.stderr == ""
    document = json.loads(result.stdout)
    assert document["outcome"] == "succeeded"
    assert set(document["outputs"]) == {"weights", "loss_curve", "sample_grid", "report"}


def test_run_shows_its_progress_and_results(job_file, tmp_path):
    result = call("run", job_file(), "--run-dir", tmp_path / "run")
    assert result.exit_code == ExitCode.SUCCEEDED
    assert "7 samples" in result.stderr
    assert "step 8 of 8  loss " in result.stderr
    assert f"weights: {tmp_path}/run/output/weights.safetensors" in result.stdout


def test_quiet_errors_are_one_line_on_stderr(job_file, tmp_path):
    job = job_file(datasets=[{"name": "absent"}])
    result = call("run", job, "--run-dir", tmp_path / "run", "--quiet")
    assert result.exit_code == ExitCode.BAD_DATA
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("st-train: training.datasets.0.name: no folder")


def test_the_exit_code_tells_even_where_standard_error_lies_on_a_full_disk(job_file, tmp_path):
    job = job_file(datasets=[{"name": "absent"}])
    command = [sys.executable, "-m", "st_trainer", "run", job, "--quiet"]
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run([*command, "--run-dir", tmp_path / "run"], stderr=full, check=False)
    assert ended.returncode == ExitCode.BAD_DATA


def test_a_run_folder_that_cannot_be_made_is_told_in_a_sentence(job_file, tmp_path):
    (tmp_path / "file").touch()
    result = call("run", job_file(), "--run-dir", tmp_path / "file" / "run", "--quiet")
    assert result.exit_code == 1
    assert "Not a directory; give another --run-dir" in result.stderr
    assert "Traceback" not in result.stderr


def test_named_datasets_come_from_the_option(job_file, tmp_path, trainer_dataset):
    job, run_dir = job_file(datasets=[{"name": "squares"}]), tmp_path / "run"
    given = f"squares={trainer_dataset}"
    result = call("run", job, "--run-dir", run_dir, "--dataset", given, "--quiet")
    assert result.exit_code == ExitCode.SUCCEEDED
    lines = (run_dir / "journal.ndjson").read_bytes().splitlines()
    assert any("7 samples" in getattr(journal_event.validate_json(x), "message", "") for x in lines)


@pytest.mark.parametrize("value", ["squares", "=x", "squares="])
def test_a_dataset_option_without_name_and_folder_is_refused(job_file, tmp_path, value):
    result = call("run", job_file(), "--run-dir", tmp_path / "run", "--dataset", value)
    assert result.exit_code == ExitCode.BAD_SPEC
    assert "write NAME=FOLDER" in result.stderr


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"steps": -1}, "training.steps"),
        ({"stpes": 3}, "training.stpes"),
        ({"datasets": []}, "training"),
        ({"model": {"family": "pixel_dot"}}, "training.model"),
        ({"model": {"family": "pixel_dit", "config": {"heads": 7}}}, "training.model.config"),
        (
            {"model": {"family": "pixel_dit", "config": {"image_size": 256}}},
            "training.model.config",
        ),
        ({"optimizer": {"learning_rate": "fast"}}, "training.optimizer.learning_rate"),
    ],
)
@pytest.mark.parametrize("command", ["validate", "run"])
def test_bad_job_files_name_the_field_and_exit_with_2(job_file, tmp_path, command, changes, field):
    more = ["--run-dir", tmp_path / "run"] if command == "run" else []
    result = call(command, job_file(**changes), *more)
    assert result.exit_code == ExitCode.BAD_SPEC
    assert f"  {field}: " in result.stderr
    assert not (tmp_path / "run").exists()
    found = json.loads(call(command, job_file(**changes), "--json", *more).stdout)
    assert found["ok"] is False
    assert found["problems"][0]["field"] == field


def test_a_good_job_file_is_valid(job_file):
    assert "ok" in call("validate", job_file()).stdout
    found = json.loads(call("validate", job_file(), "--json").stdout)
    assert found == {"ok": True, "kind": "train", "problems": []}


OTHER_KINDS = [("command", {"run": "true"}), ("noop", {"seconds": 1})]


@pytest.mark.parametrize(("kind", "section"), OTHER_KINDS)
def test_a_job_that_trains_nothing_is_valid_but_not_run_here(tmp_path, kind, section):
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump({"name": "other", kind: section}))
    assert f"ok; other, kind {kind}" in call("validate", file).stdout
    assert json.loads(call("validate", file, "--json").stdout)["kind"] == kind
    refused = call("run", file, "--run-dir", tmp_path / "run")
    assert refused.exit_code == ExitCode.BAD_SPEC
    assert f"{kind}: st-train runs `training` only" in refused.stderr
    assert "`st submit`" in refused.stderr
    assert not (tmp_path / "run").exists()
    (problem,) = json.loads(call("run", file, "--run-dir", tmp_path, "--json").stdout)["problems"]
    assert problem["field"] == kind


def test_the_schema_lists_every_option_once():
    text = call("schema").stdout.splitlines()
    keys = [line.split(" = ")[0] for line in text]
    assert len(keys) == len(set(keys))
    assert {"training.steps", "training.datasets[].captions.suffix", "command.run"} < set(keys)
    assert 'training.schedule.name = "cosine"' in "\n".join(text)
    schema = json.loads(call("schema", "--json").stdout)
    assert "training" in schema["properties"]


def test_families_are_listed_with_their_options():
    assert "  patch_size = 1" in call("families").stdout
    listed = {each["name"]: each for each in json.loads(call("families", "--json").stdout)}
    assert "width" in listed["pixel_dit"]["config"]["properties"]
    assert not listed["pixel_dit"]["needs_base"]
    assert listed["flux"]["needs_base"]
