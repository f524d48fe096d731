"""LoftQ on a small block: the base is what nf4 makes of it, and the matrices mend it."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from st_shared.spec import AdapterSpec
from st_trainer.adapters.adapter import trained
from st_trainer.adapters.loftq import nf4_rounded
from st_trainer.adapters.lora import Lora, lora_layers

INPUT = torch.randn(5, 48, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    _keep_in_fp32_modules = ("exact",)

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.to_q, self.to_v, self.exact = (nn.Linear(48, 48) for _ in range(3))

    def forward(self, x):
        return self.exact(torch.tanh(self.to_q(x)) + self.to_v(x))


@pytest.fixture
def block(load_tiny):
    return replace(load_tiny("sd1"), module=Block())


def attached(block, **spec):
    adapter = Lora(AdapterSpec(init="loftq", **spec))
    adapter.attach(block)
    return adapter


def test_rounding_is_that_of_bitsandbytes():
    """What its ``quantize_4bit`` and ``dequantize_4bit`` gave for the cubes of -1 to 1."""
    cubes = torch.linspace(-1, 1, 16).reshape(2, 8) ** 3
    half = [0.0, 0.0, 0.0, 0.0796, 0.2461, 0.4407, 0.7230, 1.0]
    expected = torch.tensor([[-1, -0.6962, -0.3949, -0.1848, -0.0911, 0, 0, 0], half])
    torch.testing.assert_close(nf4_rounded(cubes), expected, atol=1e-4, rtol=0)
    uneven = torch.randn(10, 7)
    scaled = torch.cat([100 * uneven.flatten()[:64], uneven.flatten()[64:]])
    apart = nf4_rounded(scaled.view(10, 7)).flatten()[64:]  # blocks of 64 have scales of their own
    assert torch.equal(apart, nf4_rounded(uneven).flatten()[64:])
    assert not nf4_rounded(torch.zeros(3, 3)).any()


@pytest.mark.parametrize("spec", [{}, {"alpha": 2}, {"dora": True}, {"rslora": True}], ids=str)
def test_the_matrices_start_as_the_best_mend_of_the_rounded_base(block, spec):
    whole = {name: each.weight.clone() for name, each in Block().named_children()}
    attached(block, rank=4, **spec)
    layers = dict(lora_layers(block.module))
    assert layers.keys() == {"to_q", "to_v"}
    assert torch.equal(block.module.exact.weight, whole["exact"])
    for name, layer in layers.items():
        base = layer.get_base_layer().weight
        assert torch.equal(base, nf4_rounded(whole[name]))
        lost = whole[name] - base
        added = layer.get_delta_weight("default")
        left = torch.linalg.svdvals(lost)[4:].square().sum().sqrt()  # Eckart & Young 1936
        torch.testing.assert_close((lost - added).norm(), left, rtol=1e-4, atol=1e-6)


def test_layers_without_matrices_are_rounded_too(block):
    attached(block, rank=4, targets=["to_q"])
    assert torch.equal(block.module.to_v.weight, nf4_rounded(Block().to_v.weight))


def test_the_file_fits_a_base_in_four_bits(block, tmp_path):
    adapter = attached(block, rank=4)
    with torch.no_grad():
        for weight in trained(block.module).values():
            weight.add_(0.1 * torch.randn_like(weight))
    expected = block.module(INPUT)
    path = adapter.write(tmp_path, block, step=1)
    again = replace(block, module=Block())
    attached(again, continue_from=str(path))
    torch.testing.assert_close(again.module(INPUT), expected, atol=1e-5, rtol=1e-5)
