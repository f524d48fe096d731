"""Checkpoints whose parts several processes write: threads stand in for them."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from st_trainer import sharded_writer
from st_trainer.checkpoint import complete_checkpoints, verify_checkpoint
from st_trainer.errors import BadSpecError, CheckpointError
from st_trainer.sharded_writer import ShardedWriter, is_sharded
from st_trainer.snapshot import Snapshot

PATIENCE = 60


class Together:
    """What two ranks say to each other, thread to thread; as much of ``Ranks`` as is asked."""

    def __init__(self):
        self.said, self.barrier = [None, None], threading.Barrier(2, timeout=PATIENCE)

    def rank(self, number):
        return Rank(self, number)


class Rank:
    def __init__(self, together, number):
        self.together, self.number, self.is_first = together, number, number == 0

    def gather(self, value):
        self.together.said[self.number] = value
        self.together.barrier.wait()
        found = [*self.together.said]
        self.together.barrier.wait()
        return found

    def any(self, flag):
        return any(self.gather(flag))

    def wait(self):
        self.gather(None)


def snapshot(step, number):
    tensors = {f"rank-{number}.safetensors": {"w": torch.full((2,), float(step))}}
    state = {"step": step, "loss": None} if number == 0 else {}
    return Snapshot(step, "0" * 64, tensors, {}, state)


def together(work):
    """What each of two ranks gives back, or raises."""
    group = Together()
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(work, group.rank(number)) for number in range(2)]
    return [each.exception() or each.result() for each in futures]


@pytest.mark.parametrize("background", [True, False])
def test_a_checkpoint_holds_the_files_of_all_and_is_told_once(tmp_path, background):
    told = []

    def work(rank):
        def written(step, path):
            told.append((rank.number, step, path.is_file()))

        with ShardedWriter(tmp_path, rank, written, background=background) as writer:
            for step in (1, 2):
                writer.begin(step)
                writer.write(snapshot(step, rank.number))
                writer.poll()

    assert together(work) == [None, None]
    assert told == [(0, 1, True), (0, 2, True)]
    newest, _ = complete_checkpoints(tmp_path)
    files = [file.path for file in verify_checkpoint(newest).files]
    assert files == ["rank-0.safetensors", "rank-1.safetensors", "state.json"]


def test_there_is_no_manifest_before_all_have_written(tmp_path, monkeypatch):
    may_end, real = threading.Event(), sharded_writer.write_files

    def slow(taken, aside):
        assert taken.state or may_end.wait(PATIENCE)
        return real(taken, aside)

    monkeypatch.setattr(sharded_writer, "write_files", slow)

    def work(rank):
        with ShardedWriter(tmp_path, rank, lambda *_: None, background=True) as writer:
            writer.begin(1)
            writer.write(snapshot(1, rank.number))
            writer.poll()
            before = complete_checkpoints(tmp_path)
            rank.wait()
            may_end.set()
            writer.finish()
            rank.wait()
            return before, len(complete_checkpoints(tmp_path))

    assert together(work) == [([], 1), ([], 1)]


def test_all_end_when_one_cannot_write(tmp_path, monkeypatch):
    real = sharded_writer.write_files

    def full(taken, aside):
        if taken.state:
            return real(taken, aside)
        raise OSError(28, "No space left on device", str(Path(aside)))

    monkeypatch.setattr(sharded_writer, "write_files", full)

    def work(rank):
        with ShardedWriter(tmp_path, rank, lambda *_: None, background=True) as writer:
            writer.begin(1)
            writer.write(snapshot(1, rank.number))

    first, second = together(work)
    assert isinstance(first, CheckpointError)
    assert "process 1 could not write its part: the disk is full" in str(first)
    assert isinstance(second, OSError)
    assert complete_checkpoints(tmp_path) == []


def test_an_error_of_the_training_waits_for_nobody(tmp_path):
    (tmp_path / ".step-000001.partial").mkdir()
    rank = Together().rank(1)

    def work():
        with ShardedWriter(tmp_path, rank, lambda *_: None, background=True) as writer:
            writer.write(snapshot(1, 1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert complete_checkpoints(tmp_path) == []


class Heard:
    def __init__(self):
        self.said = []

    def log(self, message, level="info"):
        self.said.append((level, message))


def session_of(sharing, *, kind="full", asked=None, spreads=True, count=2):
    """What is looked at of a session whose processes see the folder, ``sharing`` of them."""
    ranks = SimpleNamespace(count=count, sharing=lambda _: (0, sharing), any=bool)
    spec = SimpleNamespace(adapter_kind=kind, checkpoint=SimpleNamespace(sharded=asked))
    strategy = SimpleNamespace(spreads_state=spreads, count=lambda weight: weight.numel())
    module = torch.nn.Linear(1000, 1000, bias=False)
    return SimpleNamespace(spec=spec, ranks=ranks, strategy=strategy, module=module)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, True),
        ({"asked": False}, False),
        ({"kind": "lora"}, False),
        ({"kind": "lora", "asked": True}, True),
        ({"spreads": False}, False),
        ({"count": 1}, False),
    ],
)
def test_full_training_that_is_spread_is_written_in_parts(tmp_path, changes, wanted):
    assert is_sharded(session_of(2, **changes), tmp_path, Heard()) is wanted


def test_hosts_that_share_no_folder_gather_and_are_told_what_that_takes(tmp_path):
    heard = Heard()
    assert not is_sharded(session_of(1), tmp_path, heard)
    [(level, message)] = heard.said
    assert level == "warning"
    assert "needs memory for some 0.0 GB: put --run-dir where all hosts see it" in message
    with pytest.raises(BadSpecError, match=r"training\.checkpoint\.sharded: not all processes see"):
        is_sharded(session_of(1, asked=True), tmp_path, heard)
