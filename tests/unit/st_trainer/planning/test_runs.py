"""What is foretold of many blocks from a few of them, against a trace of all."""

from itertools import accumulate

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from st_shared.spec import TrainingSpec
from st_trainer.planning import runs
from st_trainer.planning.estimate import estimate
from st_trainer.planning.runs import cost, runs_of
from st_trainer.planning.trace import Trace

DEPTH = 8


def spec_of(**changes):
    config = {"depth": DEPTH, "width": 16, "heads": 2, "image_size": 8}
    document = {
        "model": {"family": "pixel_dit", "config": config},
        "datasets": [{"path": "x"}],
        "batch_size": 2,
    }
    return TrainingSpec.model_validate(document | changes)


@pytest.mark.parametrize("interval", [None, 2])
def test_a_few_blocks_foretell_all_of_them(monkeypatch, interval):
    """To the byte: gradients that pile up and activations that are let go, recomputed or not."""
    spec = spec_of(memory={"gradient_checkpointing": interval})
    short = estimate(spec)
    monkeypatch.setattr(runs, "runs_of", lambda _module, _interval: [])
    assert estimate(spec) == short


def test_gradients_that_are_there_already_or_go_at_once_are_counted_once():
    once, twice = estimate(spec_of()), estimate(spec_of(accumulation=2))
    assert 0 < twice.activations - once.activations <= once.gradients
    optimizer = {"name": "adamw", "fused_backward": True, "max_grad_norm": None}
    fused = estimate(spec_of(optimizer=optimizer))
    assert fused.gradients < once.gradients
    assert fused.total < once.total


class Model(nn.Module):
    """Blocks in two lists, of which every other is wider."""

    def __init__(self, count, *, calls=1):
        super().__init__()
        self.calls = calls
        self.first = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 4 + 4 * (n % 2)), nn.ReLU(), nn.Linear(4 + 4 * (n % 2), 4))
            for n in range(count)
        )
        self.second = nn.ModuleList(nn.Linear(4, 4) for _ in range(count))

    def forward(self, seen):
        for block in (*self.first, *self.second):
            for _ in range(self.calls):
                seen = block(seen)
        return seen


@pytest.mark.parametrize("calls", [1, 2])
def test_models_that_take_turns_or_call_a_block_twice_are_foretold(calls):
    model = Model(10, calls=calls)
    found = runs_of(model, 1)
    assert [(len(run.kept), len(run.others), run.step) for run in found] == [(4, 6, 2), (3, 7, 1)]

    def compute():
        for each in model.parameters():
            each.grad = None
        model(torch.zeros(3, 4)).sum().backward()

    with Trace() as whole:
        compute()
    found = cost([model], 1, compute)
    assert (found.peak, found.work) == (whole.peak, whole.work)
    assert len(model.first) == len(model.second) == 10
    assert not any(each._forward_pre_hooks for each in model.modules())


def test_what_a_convolution_holds_of_its_own_is_foretold():
    """Copies in the library's order of values, measured at torch's allocator."""
    convolution = nn.Conv2d(32, 64, 3, padding=1).requires_grad_(requires_grad=False)
    seen = torch.randn(2, 32, 16, 16, requires_grad=True)

    def compute():
        torch.autograd.grad(convolution(seen).square().sum(), seen)

    with Trace() as trace:
        compute()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        compute()
    sizes = [
        event.nbytes() for event in watched.profiler.kineto_results.events()
        if event.name() == "[memory]"
    ]  # fmt: skip
    assert trace.peak == pytest.approx(max(accumulate(sizes)), rel=0.1)
