"""Two processes that train together, forked here: they speak over gloo on the loopback."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rank_processes import fresh_states, together
from safetensors.torch import load_file
from torch import distributed

from st_shared.protocol.journal import ExitCode, journal_event
from st_trainer import loop, ranks, run
from st_trainer.checkpoint import complete_checkpoints
from st_trainer.errors import BadSpecError, CheckpointError
from st_trainer.journal import Journal, SilentJournal
from st_trainer.run import run_training
from st_trainer.run_folder import RunFolder
from st_trainer.strategies.replicated import synchronised

CPU = torch.device("cpu")


def carry_out(spec, root, resume="none", stop=lambda: False):
    folder = RunFolder(root)
    folder.create()
    fresh_states()
    sources = [Path(dataset.path) for dataset in spec.datasets]
    rank = ranks.rank_of(os.environ)
    with SilentJournal() if rank else Journal(folder.journal) as journal:
        return run_training(spec, sources, folder, journal, resume=resume, stop=stop)


def difference(one, other, part=""):
    """Largest difference between weights of two checkpoints or results, of those in ``part``."""
    left, right = load_file(one), load_file(other)
    assert left.keys() == right.keys()
    names = [name for name in left if name.startswith(part)]
    return max((left[name] - right[name]).abs().max().item() for name in names)


def told(root, name):
    """A metric of a run by step."""
    lines = RunFolder(root).journal.read_bytes().splitlines()
    events = [journal_event.validate_json(line) for line in lines]
    found = [event for event in events if event.kind == "metric" and name in event.values]
    return {event.step: event.values[name] for event in found}


def must_tell_alike(one, two):
    """Losses and norms of gradients are those of the whole batch, whichever process tells them."""
    for name in ("loss", "gradient_norm"):
        assert told(two, name) == pytest.approx(told(one, name), rel=1e-4), name
        assert told(two, name)


def names(folder):
    return {path.name for path in folder.iterdir()}


def newest(root):
    return complete_checkpoints(RunFolder(root).checkpoints)[0]


SHORT = {"steps": 3, "checkpoint": {"every": 3}, "validation": {}}
KINDS = {
    "full": {},
    "lora": {"adapter": {"kind": "lora", "rank": 2}},
    "text": {"adapter": {"kind": "lora", "rank": 2, "text_encoder": True}, **SHORT},
    "controlnet": {"adapter": {"kind": "controlnet"}, **SHORT},
    "muon": {"optimizer": {"name": "muon", "learning_rate": 1e-3}},
    "schedule-free": {"optimizer": {"name": "adamw_schedulefree", "learning_rate": 1e-3}},
}


BASES = {"lora": "sd3", "text": "sd1", "controlnet": "sd1"}
OWN = {"rank-00000-of-00002.safetensors", "rank-00001-of-00002.safetensors", "manifest.json"}
"""Files of a checkpoint of which each of two processes writes its part."""
CLOSE = {"muon": 1e-3}
"""It makes matrices orthogonal in bfloat16; its momentum is as close as that of the others."""


@pytest.fixture
def spec_of(tiny_spec, base_folder, trainer_dataset):
    """Makes a specification of one of ``KINDS``: all weights, or an adapter of a tiny model."""

    def make(kind, batch_size, **changes):
        adamw = {"optimizer": {"name": "adamw", "learning_rate": 1e-3}}
        changes |= {"batch_size": batch_size, **adamw, **KINDS[kind]}
        if family := BASES.get(kind):
            base = str(base_folder(family))
            changes["model"] = {"family": family, "base": base, "config": {"resolution": 16}}
        if kind == "controlnet":
            edges = trainer_dataset.parent / "edges"
            shutil.copytree(trainer_dataset, edges, dirs_exist_ok=True)
            changes["datasets"] = [{"path": str(trainer_dataset), "conditioning": str(edges)}]
        return tiny_spec(**changes)

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_with_half_the_batch_learn_what_one_learns(spec_of, tmp_path, kind):
    """Else they train replicas that never exchange a gradient."""
    carry_out(spec_of(kind, 4), tmp_path / "one")
    spec = spec_of(kind, 2)
    assert together(lambda _rank: carry_out(spec, tmp_path / "two")) == [0, 0]
    must_tell_alike(tmp_path / "one", tmp_path / "two")
    one, two = newest(tmp_path / "one"), newest(tmp_path / "two")
    assert difference(one / "optimizer.safetensors", two / "optimizer.safetensors") < 1e-5
    averages = names(one) & {"ema.safetensors"}
    assert bool(averages) == (kind != "schedule-free")  # which has one of its own
    for file in {"weights.safetensors"} | averages:
        assert difference(one / file, two / file) < CLOSE.get(kind, 1e-5)


def test_weights_that_are_spread_learn_the_same_and_go_on_in_processes_that_hold_all(
    spec_of, tmp_path, monkeypatch
):
    """FSDP2; DeepSpeed and more kinds: benchmarks/distributed_equal.py."""
    carry_out(
        spec_of("full", 4, **{**SHORT, "steps": 2, "checkpoint": {"every": 2}}), tmp_path / "one"
    )
    changes = SHORT | {"steps": 2, "checkpoint": {"every": 1}}
    whole = spec_of("full", 2, **changes)
    spread = spec_of("full", 2, **changes, distributed={"strategy": "fsdp2", "processes": 2})
    kept = {}

    def held(session, folder, *others, **named):
        part, every = session.strategy.parts(), dict(session.module.named_parameters())
        kept["less"] = sum(map(torch.numel, part.values())) < sum(map(torch.numel, every.values()))
        return train(session, folder, *others, **named)

    train = loop.train
    monkeypatch.setattr(run, "train", held)

    def both(rank):
        counted = iter(range(9))
        code = carry_out(spread, tmp_path / "two", stop=lambda: next(counted) >= 1)
        written = names(newest(tmp_path / "two"))
        if code != ExitCode.PREEMPTED or not kept["less"] or not written >= OWN:
            return ExitCode.CRASHED
        os.environ.pop("ACCELERATE_USE_FSDP")
        return carry_out(whole, tmp_path / "two", "latest")

    assert together(both) == [0, 0]
    one, two = newest(tmp_path / "one"), newest(tmp_path / "two")
    for file in ("weights.safetensors", "optimizer.safetensors", "ema.safetensors"):
        assert difference(one / file, two / file) < 1e-5


class Counting:
    """A denoiser with a buffer, and a weight that is never used; as much of one as ranks see."""

    dtype = torch.float32

    def __init__(self, value):
        self.module = torch.nn.Linear(1, 1)
        self.module.register_buffer("seen", torch.tensor(float(value)))
        self.module.unused = torch.nn.Parameter(torch.ones(1))

    def predict(self, noisy, _times, _condition):
        return self.module(noisy)


def test_buffers_are_given_to_the_others_once_and_not_at_every_step():
    def work(rank):
        distributed.init_process_group("gloo")
        denoiser = Counting(rank + 5)
        answer = synchronised(denoiser, 2, CPU)
        given = denoiser.module.seen.item()
        denoiser.module.seen.fill_(rank)
        answer(torch.ones(1, 1), torch.ones(1), None)
        return 0 if (given, denoiser.module.seen.item()) == (5, rank) else 1

    assert together(work) == [0, 0]


@pytest.mark.parametrize(
    ("kind", "part"),
    [("full", ""), pytest.param("text", "text_encoder.", marks=pytest.mark.families)],
)
def test_what_is_learned_depends_on_the_other_half_of_the_batch(spec_of, tmp_path, kind, part):
    """The comparison above could fail: half a batch alone gives other weights."""
    carry_out(spec_of(kind, 4), tmp_path / "one")
    carry_out(spec_of(kind, 2), tmp_path / "half")
    one, half = newest(tmp_path / "one"), newest(tmp_path / "half")
    file = "weights.safetensors"
    assert difference(one / file, half / file, part) > 1e-4


def test_a_resumed_run_of_two_ranks_ends_bit_for_bit_like_one_that_was_not_stopped(
    spec_of, tmp_path
):
    spec = spec_of("full", 2)

    def stopped(rank):
        steps = iter(range(100))  # the second rank alone is asked, after the fifth step
        return carry_out(spec, tmp_path / "parts", stop=lambda: rank == 1 and next(steps) >= 5)

    assert together(lambda _rank: carry_out(spec, tmp_path / "whole")) == [0, 0]
    assert together(stopped) == [ExitCode.PREEMPTED, ExitCode.PREEMPTED]
    assert newest(tmp_path / "parts").name == "step-000005"
    assert together(lambda _rank: carry_out(spec, tmp_path / "parts", "latest")) == [0, 0]
    for name in ("weights", "optimizer", "random"):
        file = f"{name}.safetensors"
        assert difference(newest(tmp_path / "whole") / file, newest(tmp_path / "parts") / file) == 0


def test_the_first_rank_alone_writes(spec_of, tmp_path):
    spec, roots = spec_of("full", 2), [tmp_path / "first", tmp_path / "second"]
    assert together(lambda rank: carry_out(spec, roots[rank])) == [0, 0]
    assert complete_checkpoints(RunFolder(roots[0]).checkpoints)
    written = [path for path in roots[1].rglob("*") if path.is_file()]
    assert all(path.is_relative_to(RunFolder(roots[1]).index) for path in written)  # all read


def test_the_state_of_every_rank_is_in_the_checkpoint(spec_of, tmp_path):
    spec = spec_of("full", 2)
    assert together(lambda _rank: carry_out(spec, tmp_path)) == [0, 0]
    kept = load_file(newest(tmp_path) / "random.safetensors")
    assert sorted(kept) == ["session", "torch", "torch.1"]
    assert not torch.equal(kept["torch"], kept["torch.1"])


def test_models_may_have_weights_that_no_answer_depends_on():
    def work(rank):
        distributed.init_process_group("gloo")
        denoiser = Counting(0)
        answer = synchronised(denoiser, 2, CPU)
        for _ in range(2):  # the second is refused if the first still waits for that weight
            answer(torch.full((1, 1), rank + 1.0), torch.ones(1), None).sum().backward()
        found = denoiser.module.weight.grad.item(), denoiser.module.unused.grad
        return 0 if found == (3.0, None) else 1

    assert together(work) == [0, 0]


def test_a_process_that_is_done_waits_for_those_that_still_write(spec_of, tmp_path, monkeypatch):
    """Of checkpoints, and of results; else the launcher, which sees it end, would end them."""
    folder, met = RunFolder(tmp_path), []

    def wait(_ranks):
        result = folder.root / "output/weights.safetensors"
        met.append((len(complete_checkpoints(folder.checkpoints)), result.exists()))

    monkeypatch.setattr(ranks.Ranks, "wait", wait)
    carry_out(spec_of("full", 2, **SHORT), tmp_path)
    assert met == [(1, False), (1, True)]


def test_to_wait_is_to_hear_of_all(monkeypatch):
    state, asked = SimpleNamespace(process_index=0, num_processes=2, device=CPU), []
    monkeypatch.setattr(distributed, "all_gather_object", lambda *each: asked.append(each))
    ranks.Ranks(state).wait()
    assert len(asked) == 1


def test_a_loss_that_is_not_finite_on_one_rank_ends_all_for_that_reason(
    spec_of, tmp_path, monkeypatch
):
    real = loop.batch_loss

    def broken(session, indexes, share):
        loss = real(session, indexes, share)
        return loss * float("nan") if session.ranks.share.rank == 1 else loss

    monkeypatch.setattr(loop, "batch_loss", broken)
    spec = spec_of("full", 2)
    assert together(lambda _rank: carry_out(spec, tmp_path)) == [ExitCode.NOT_FINITE] * 2


def test_ranks_that_went_on_from_different_checkpoints_are_refused(spec_of, tmp_path):
    spec, roots = spec_of("full", 2), [tmp_path / "first", tmp_path / "second"]
    assert together(lambda _rank: carry_out(spec, roots[0])) == [0, 0]
    codes = together(lambda rank: carry_out(spec, roots[rank], "latest"))
    assert codes == [CheckpointError.exit_code] * 2


def test_the_buckets_are_told_for_the_batch_of_all(spec_of, tmp_path):
    spec = spec_of("full", 2)
    assert together(lambda _rank: carry_out(spec, tmp_path)) == [0, 0]
    lines = RunFolder(tmp_path).journal.read_bytes().splitlines()
    said = [journal_event.validate_json(line) for line in lines]
    said = [event.message for event in said if event.kind == "log"]
    assert any("2 processes together; 8 steps of 4 samples" in line for line in said)


def test_processes_that_accelerate_does_not_see_are_refused(spec_of, monkeypatch, tmp_path):
    """A launcher whose variables are incomplete would start replicas."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    with pytest.raises(BadSpecError, match="would not exchange gradients"):
        carry_out(spec_of("full", 2), tmp_path)
