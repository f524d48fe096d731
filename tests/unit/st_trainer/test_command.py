import errno
import os

import pytest

from st_shared.protocol.journal import ExitCode, journal_event
from st_shared.spec import TrainingSpec
from st_trainer import loop
from st_trainer.command import run_command


@pytest.fixture
def outcome_of(tmp_path, tiny_spec):
    """Runs a specification; gives the result and the log lines of level error."""

    def run(spec: TrainingSpec | None = None, resume="none", stop=lambda: False):
        root = tmp_path / "run"
        result = run_command(
            spec or tiny_spec(), root, {}, environment={}, resume=resume, stop=stop
        )
        lines = (root / "journal.ndjson").read_bytes().splitlines()
        events = [journal_event.validate_json(line) for line in lines]
        return result, [e.message for e in events if e.kind == "log" and e.level == "error"]

    return run


def test_a_run_that_ends_well_lists_its_outputs(outcome_of, tmp_path, capfd):
    result, errors = outcome_of()
    assert (result.exit_code, result.outcome, result.error) == (0, "succeeded", None)
    assert errors == []
    assert result.document()["outputs"]["weights"] == f"{tmp_path}/run/output/weights.safetensors"
    assert capfd.readouterr().err == ""


def test_a_stopped_run_says_how_to_go_on(outcome_of):
    result, errors = outcome_of(stop=lambda: True)
    assert (result.exit_code, result.outcome) == (ExitCode.PREEMPTED, "preempted")
    assert "--resume latest" in result.summary()
    assert errors == []


def test_bad_data_is_one_line_without_traceback(outcome_of, tiny_spec, capfd):
    result, errors = outcome_of(tiny_spec(datasets=[{"name": "absent"}]))
    assert result.exit_code == ExitCode.BAD_DATA
    assert errors == [result.error]
    assert result.error.startswith("training.datasets.0.name: no folder")
    assert "Traceback" not in capfd.readouterr().err


def test_a_checkpoint_path_that_does_not_exist_is_told(outcome_of, capfd):
    result, errors = outcome_of(resume="/nowhere/step-000002")
    assert result.exit_code == ExitCode.CRASHED
    assert errors == [result.error]
    assert "/nowhere/step-000002 is incomplete" in result.error
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("error", "code_and_traceback"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), (ExitCode.DISK_FULL, False)),
        (RuntimeError("DefaultCPUAllocator: not enough memory"), (ExitCode.OUT_OF_MEMORY, False)),
        (KeyError("surprise"), (ExitCode.CRASHED, True)),
    ],
)
def test_every_error_has_its_exit_code(outcome_of, monkeypatch, capfd, error, code_and_traceback):
    def fail(*_):
        raise error

    monkeypatch.setattr(loop, "step", fail)
    result, errors = outcome_of()
    assert errors == [result.error]
    assert (result.exit_code, "Traceback" in capfd.readouterr().err) == code_and_traceback


def test_a_journal_that_cannot_be_written_still_ends_with_the_code_of_the_disk(
    tmp_path, tiny_spec, monkeypatch
):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("st_trainer.command.PATIENCE", 0.0)
    monkeypatch.setattr(os, "write", full)
    result = run_command(
        tiny_spec(), tmp_path / "run", {}, environment={}, resume="none", stop=lambda: False
    )
    monkeypatch.undo()
    assert result.exit_code == ExitCode.DISK_FULL
    assert (tmp_path / "run/journal.ndjson").read_bytes() == b""
