"""What optimisers keep, and two ways to keep less on the accelerator."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from st_shared.spec import OptimizerSpec
from st_shared.spec.optimizer import FUSABLE
from st_trainer import loop
from st_trainer.optimizers.fused import FusedBackward
from st_trainer.optimizers.host import HostOptimizer
from st_trainer.optimizers.registry import OPTIMIZERS, make_optimizer
from st_trainer.run import open_session

SHAPES = ((96, 128), (4096,), (32, 16, 3, 3))


PAGED = pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")


def of_each(names):
    return [pytest.param(n, marks=PAGED if "paged" in n else ()) for n in names]


def held(tree):
    """Bytes of the tensors in ``tree`` that are not single numbers; shared ones count once."""
    found = {}

    def look(part):
        if isinstance(part, dict):
            for each in part.values():
                look(each)
        elif isinstance(part, (list, tuple)):
            for each in part:
                look(each)
        elif hasattr(part, "__tensor_flatten__"):
            for name in part.__tensor_flatten__()[0]:
                look(getattr(part, name))
        elif isinstance(part, torch.Tensor) and part.numel() > 1:
            found[part.data_ptr()] = part.untyped_storage().nbytes()

    look(tree)
    return sum(found.values())


@pytest.mark.parametrize("name", of_each(OPTIMIZERS))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_state_weighs_what_is_foretold(name, shape):
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(shape))
    optimizer = make_optimizer([weight], OptimizerSpec(name=name), 0.01)
    if OPTIMIZERS[name].has_average:
        optimizer.train()
    for _ in range(2):
        weight.grad = torch.randn(shape)
        optimizer.step()
    tables = (1 if name == "lion_8bit" else 2) * 1024 if "8bit" in name else 0  # all share them
    foretold = OPTIMIZERS[name].state_bytes(shape)
    assert held(dict(optimizer.state)) == pytest.approx(foretold + tables, rel=0.1)


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


def learn(module, optimizer, steps=3):
    generator = torch.Generator().manual_seed(steps)
    for _ in range(steps):
        inputs = torch.randn(8, 4, generator=generator)
        (module(inputs) - inputs[:, :2]).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return [each.detach().clone() for each in module.parameters()]


def assert_equal(found, expected):
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", FUSABLE)
def test_steps_in_the_backward_pass_are_the_same_steps(name):
    spec = OptimizerSpec(name=name, fused_backward=True, max_grad_norm=None)
    plain, fused = model(), model()
    expected = learn(plain, make_optimizer(plain.parameters(), spec, 0.01))
    optimizer = FusedBackward(make_optimizer(fused.parameters(), spec, 0.01))
    assert_equal(learn(fused, optimizer), expected)
    assert all(each.grad is None for each in fused.parameters())
    assert len(optimizer.state_dict()["state"]) == 4


def test_a_run_that_asks_for_it_never_holds_the_gradients_of_all(
    tiny_spec, trainer_dataset, run_folder, trainer_journal
):
    asked = {"learning_rate": 0.1, "fused_backward": True, "max_grad_norm": None}
    spec = tiny_spec(optimizer=asked)
    session = open_session(spec, [trainer_dataset], run_folder, trainer_journal)
    for group in session.optimizer.param_groups:
        group["lr"] = 0.1
    weights = list(session.module.parameters())
    before = [each.detach().clone() for each in weights]
    loop.backward(session, session.sampler.take(session.batch_size))
    assert all(each.grad is None for each in weights)
    assert any(not torch.equal(*pair) for pair in zip(before, weights, strict=True))


def test_the_norm_of_gradients_that_are_gone_is_told():
    module = model()
    optimizer = FusedBackward(torch.optim.SGD(module.parameters(), lr=0.0))
    other = model()
    for each in (module, other):
        each(torch.ones(3, 4)).square().sum().backward()
    expected = nn.utils.get_total_norm([each.grad for each in other.parameters()])
    assert optimizer.gradient_norm() == pytest.approx(expected.item())
    assert optimizer.gradient_norm() == 0


@pytest.mark.parametrize("name", ["adamw", "prodigy", "soap", "adamw_8bit"])
def test_steps_on_the_host_are_the_same_steps_and_go_on_from_their_state(name):
    spec = OptimizerSpec(name=name)
    rate = 1.0 if OPTIMIZERS[name].finds_rate else 0.01
    plain, ours = model(), model()
    expected = learn(plain, make_optimizer(plain.parameters(), spec, rate))
    host = OptimizerSpec(name=name, offload=True)
    optimizer = make_optimizer(ours.parameters(), host, rate)
    assert isinstance(optimizer, HostOptimizer)
    copies = {each.data_ptr() for group in optimizer.param_groups for each in group["params"]}
    assert copies.isdisjoint(each.data_ptr() for each in ours.parameters())
    assert_equal(learn(ours, optimizer), expected)
    again = make_optimizer(plain.parameters(), host, rate)
    again.load_state_dict(deepcopy(optimizer.state_dict()))
    assert_equal(learn(plain, again, 2), learn(ours, optimizer, 2))
