"""Every optimiser moves weights, and goes on from kept state as if nothing had happened."""

from typing import get_args

import pytest
import torch
from torch import nn

from st_shared.spec import OptimizerSpec, TrainingSpec
from st_shared.spec.optimizer import OptimizerName, ScheduleName
from st_trainer.errors import BadSpecError
from st_trainer.optimizers.registry import OPTIMIZERS, make_optimizer, peak_rate
from st_trainer.optimizers.schedule import SHAPES
from st_trainer.tensor_tree import put_together, take_apart

NAMES = [
    n
    for n in get_args(OptimizerName)
    if "paged" not in n  # on a CPU, which has nothing to page, it is adamw_8bit
]


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


def optimizer_of(module, name):
    rate = 1.0 if OPTIMIZERS[name].finds_rate else 0.01
    return make_optimizer(module.parameters(), OptimizerSpec(name=name), rate)


def learn(module, optimizer, steps):
    if "ScheduleFree" in type(optimizer).__name__:
        optimizer.train()
    generator = torch.Generator().manual_seed(steps)
    for _ in range(steps):
        inputs = torch.randn(8, 4, generator=generator)
        (module(inputs) - inputs[:, :2]).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def learn_once(module, optimizers, step):
    """Step ``step`` of ``learn``, by several optimisers."""
    generator = torch.Generator().manual_seed(4)
    inputs = [torch.randn(8, 4, generator=generator) for _ in range(step + 1)][-1]
    (module(inputs) - inputs[:, :2]).square().mean().backward()
    for each in optimizers:
        each.step()
        each.zero_grad()


def test_the_names_are_those_of_the_specification():
    assert set(OPTIMIZERS) == set(get_args(OptimizerName))
    assert set(SHAPES) == set(get_args(ScheduleName))


@pytest.mark.parametrize("name", NAMES)
def test_an_optimiser_learns_and_goes_on_from_its_state_exactly(name):
    whole = model()
    optimizer = optimizer_of(whole, name)
    before = [weight.detach().clone() for weight in whole.parameters()]
    learn(whole, optimizer, 4)
    assert all(torch.isfinite(weight).all() for weight in whole.parameters())
    moved = [not torch.equal(a, b) for a, b in zip(before, whole.parameters(), strict=True)]
    assert all(moved)
    tensors = {}
    document = take_apart(optimizer.state_dict(), "", tensors)
    parts = model()
    parts.load_state_dict(whole.state_dict())
    again = optimizer_of(parts, name)
    kept = {key: each.clone() for key, each in tensors.items()}
    again.load_state_dict(put_together(document, kept))
    learn(whole, optimizer, 3)
    learn(parts, again, 3)
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(a, b)


def test_muon_turns_matrices_and_leaves_the_rest_to_adamw():
    """Each part against torch's own optimiser of it, step by step."""
    ours, theirs = model(), model()
    optimizer = optimizer_of(ours, "muon")
    weights = [each for each in theirs.parameters() if each.dim() == 2]
    others = [each for each in theirs.parameters() if each.dim() != 2]
    told = {"lr": 0.01, "weight_decay": 0.01}
    pair = (
        torch.optim.Muon(weights, **told, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, **told, betas=(0.9, 0.99)),
    )
    learn(ours, optimizer, 4)
    for step in range(4):
        learn_once(theirs, pair, step)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_muon_takes_groups_with_rates_of_their_own():
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    before = [each.detach().clone() for each in module.parameters()]
    groups = [{"params": [*each.parameters()]} for each in module]
    optimizer = make_optimizer(groups, OptimizerSpec(name="muon", weight_decay=0), 0.1)
    assert len(optimizer.param_groups) == 4
    frozen = {id(each) for each in module[0].parameters()}
    for group in optimizer.param_groups:
        group["lr"] = 0.0 if id(group["params"][0]) in frozen else 0.1
    module(torch.ones(1, 4)).square().sum().backward()
    optimizer.step()
    moved = [not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True)]
    assert moved == [False, False, True, True]


def test_options_reach_the_optimiser_and_wrong_ones_are_refused():
    spec = OptimizerSpec(name="sgd", beta1=0.5, options={"nesterov": True})
    group = make_optimizer(model().parameters(), spec, 0.1).param_groups[0]
    assert (group["nesterov"], group["momentum"], group["lr"]) == (True, 0.5, 0.1)
    with pytest.raises(BadSpecError, match="sgd refuses"):
        make_optimizer(model().parameters(), OptimizerSpec(name="sgd", options={"x": 1}), 0.1)


@pytest.mark.parametrize(
    ("model", "adapter", "optimizer", "rate"),
    [
        ({"family": "pixel_dit"}, {}, {}, 1e-3),
        ({"family": "sd1", "base": "b"}, {}, {}, 1e-4),
        ({"family": "sd1", "base": "b"}, {"kind": "full"}, {}, 1e-5),
        ({"family": "sd1", "base": "b"}, {}, {"name": "prodigy"}, 1.0),
        ({"family": "sd1", "base": "b"}, {}, {"learning_rate": 0.3}, 0.3),
    ],
)
def test_the_rate_suits_what_is_trained(model, adapter, optimizer, rate):
    spec = TrainingSpec(
        model=model, adapter=adapter, optimizer=optimizer, datasets=[{"path": "folder"}]
    )
    assert peak_rate(spec) == rate


def test_weights_on_the_host_are_stepped_without_kernels_of_accelerators():
    optimizer = optimizer_of(model(), "stableadamw")
    assert [group["triton"] for group in optimizer.param_groups] == [False]
