import threading

import pytest
import torch

from st_trainer import checkpoint_writer
from st_trainer.checkpoint import complete_checkpoints
from st_trainer.checkpoint_writer import CheckpointWriter
from st_trainer.snapshot import Snapshot


def snapshot(step):
    tensors = {"weights.safetensors": {"w": torch.full((2,), float(step))}}
    return Snapshot(step, "0" * 64, tensors, {}, {"step": step, "loss": None})


@pytest.fixture
def told():
    return []


@pytest.fixture
def writer_of(tmp_path, told):
    return lambda background: CheckpointWriter(
        tmp_path, lambda step, path: told.append((step, path.is_file())), background=background
    )


@pytest.mark.parametrize("background", [True, False])
def test_each_checkpoint_is_told_once_it_is_complete(writer_of, told, tmp_path, background):
    with writer_of(background) as writer:
        writer.write(snapshot(1))
        writer.write(snapshot(2))
        assert told[0] == (1, True)
    assert told == [(1, True), (2, True)]
    assert [folder.name for folder in complete_checkpoints(tmp_path)] == [
        "step-000002",
        "step-000001",
    ]


def test_training_goes_on_while_a_checkpoint_is_written(writer_of, told, monkeypatch):
    may_end, real = threading.Event(), checkpoint_writer.write_checkpoint

    def slow(taken, folder):
        assert may_end.wait(120)
        return real(taken, folder)

    monkeypatch.setattr(checkpoint_writer, "write_checkpoint", slow)
    with writer_of(background=True) as writer:
        writer.write(snapshot(1))
        writer.poll()
        assert told == []
        may_end.set()
        writer.finish()
        assert told == [(1, True)]


def fail(*_):
    raise OSError(28, "No space left on device")


def test_a_failure_in_the_background_is_raised(writer_of, monkeypatch):
    monkeypatch.setattr(checkpoint_writer, "write_checkpoint", fail)
    writer = writer_of(background=True)
    with pytest.raises(OSError, match="No space"), writer:
        writer.write(snapshot(1))


def test_a_failure_in_the_background_does_not_hide_the_error_of_the_training(
    writer_of, monkeypatch
):
    monkeypatch.setattr(checkpoint_writer, "write_checkpoint", fail)

    def train():
        with writer_of(background=True) as writer:
            writer.write(snapshot(1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as raised:
        train()
    assert "No space left" in raised.value.__notes__[0]
