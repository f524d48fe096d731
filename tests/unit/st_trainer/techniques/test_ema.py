from types import SimpleNamespace

import pytest
import torch
from torch import nn

from st_shared.spec import EmaSpec
from st_trainer.adapters.adapter import trained
from st_trainer.strategies.replicated import Replicated
from st_trainer.techniques.ema import Ema, kept_share
from st_trainer.techniques.technique import TechniqueState


def layer(value):
    module = nn.Linear(2, 2)
    nn.init.constant_(module.weight, value)
    nn.init.constant_(module.bias, value)
    return module


def whole(module):
    """A process that trains alone."""
    strategy = Replicated(None, None)
    strategy.module = module
    return strategy


def started(module, **spec):
    ema = Ema(EmaSpec(**spec))
    ema.start(trained(module))
    return ema


def test_the_average_follows_the_weights_by_its_formula():
    module = layer(0.0)
    ema, expected = started(module, decay=0.5), 0.0
    for update, value in enumerate([1.0, 3.0, -2.0, 5.0, 5.0, 1.0, 0.0, 8.0, 8.0, 8.0]):
        nn.init.constant_(module.weight, value)
        ema.update(trained(module))
        kept = min(0.5, (1 + update) / (10 + update))
        expected = kept * expected + (1 - kept) * value
        assert ema.average["weight"][0, 0].item() == pytest.approx(expected, rel=1e-5)
    assert ema.updates == 10


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, [0.1, 2 / 11, 0.9, 0.9]),
        ({"ramp": "none"}, [0.9, 0.9, 0.9, 0.9]),
        ({"ramp": "power", "ramp_steps": 3, "ramp_power": 0.5}, [0, 1 - 0.75**0.5, 0.9, 0.9]),
    ],
)
def test_the_decay_grows_as_its_ramp_says(spec, expected):
    told = EmaSpec(decay=0.9, **spec)
    assert [kept_share(told, n) for n in (0, 1, 300, 10_000)] == pytest.approx(expected)


def test_the_average_is_apart_from_the_weights_and_holds_what_is_trained_alone():
    module = layer(1.0)
    module.bias.requires_grad_(requires_grad=False)
    ema = started(module, decay=0.9)
    nn.init.constant_(module.weight, 2.0)
    assert list(ema.average) == ["weight"]
    assert torch.equal(ema.average["weight"], torch.ones(2, 2))


def test_while_evaluating_the_average_stands_in_and_then_the_weights_are_back():
    module = layer(1.0)
    ema = started(module)
    nn.init.constant_(module.weight, 2.0)
    with ema.evaluating(SimpleNamespace(strategy=whole(module))):
        assert torch.equal(module.weight, torch.ones(2, 2))
    assert torch.equal(module.weight, 2 * torch.ones(2, 2))


def test_only_every_so_many_steps_move_the_average():
    module = layer(1.0)
    ema = started(module, every=3)
    for step in range(7):
        ema.stepped(SimpleNamespace(strategy=whole(module), step=step))
    assert ema.updates == 2


def test_a_kept_state_is_taken_back_and_another_is_refused():
    ema = started(layer(1.0))
    ema.update(trained(layer(5.0)))
    again = started(layer(0.0))
    again.restore(TechniqueState(ema.state().tensors, ema.state().numbers))
    assert torch.equal(again.average["weight"], ema.average["weight"])
    assert again.updates == 1
    with pytest.raises(ValueError, match="no counterpart"):
        again.restore(TechniqueState({"weight": torch.ones(2, 2)}, {"updates": 1}))
