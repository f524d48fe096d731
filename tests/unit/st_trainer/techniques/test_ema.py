import pytest
import torch
from torch import nn

from st_trainer.techniques.ema import Ema


def layer(value):
    module = nn.Linear(2, 2)
    nn.init.constant_(module.weight, value)
    nn.init.constant_(module.bias, value)
    return module


def test_the_average_follows_the_weights_by_its_formula():
    module = layer(0.0)
    ema, expected = Ema(module, decay=0.5), 0.0
    for update, value in enumerate([1.0, 3.0, -2.0, 5.0, 5.0, 1.0, 0.0, 8.0, 8.0, 8.0]):
        nn.init.constant_(module.weight, value)
        ema.update(module)
        kept = min(0.5, (1 + update) / (10 + update))
        expected = kept * expected + (1 - kept) * value
        assert ema.module.weight[0, 0].item() == pytest.approx(expected, rel=1e-5)
    assert ema.updates == 10


def test_the_average_is_apart_from_the_weights_and_is_not_trained():
    module = layer(1.0)
    ema = Ema(module, decay=0.9)
    nn.init.constant_(module.weight, 2.0)
    assert torch.equal(ema.module.weight, torch.ones(2, 2))
    assert not any(parameter.requires_grad for parameter in ema.module.parameters())
