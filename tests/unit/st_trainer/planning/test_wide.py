"""What autocast of GPUs computes in fp32 is traced so on a CPU, on the way there and back."""

from contextlib import ExitStack

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from st_trainer.execution.recomputation import anew_under, recompute
from st_trainer.planning.trace import Trace
from st_trainer.planning.wide import WideAsOnGpu


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.product = nn.LayerNorm(64), nn.Linear(64, 64)

    def forward(self, x):
        return self.product(self.norm(x))


class Network(nn.Module):
    _no_split_modules = ("Block",)

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.bfloat16()

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


def test_norms_and_sums_are_wide_under_autocast_alone():
    x = torch.ones(2, 64, dtype=torch.bfloat16)
    norm, product = nn.LayerNorm(64).bfloat16(), nn.Linear(64, 64).bfloat16()
    with WideAsOnGpu():
        assert norm(x).dtype == torch.bfloat16
        with torch.autocast("cpu", torch.bfloat16):
            wide = [norm(x), x.softmax(-1), x.pow(2), torch.exp(x), x.sum()]
            assert {each.dtype for each in wide} == {torch.float32}
            assert product(norm(x)).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert norm(x).dtype == torch.bfloat16


@pytest.mark.parametrize("again", [False, True])
def test_what_norms_keep_is_twice_as_large_and_computed_anew_alike(again):
    network = Network()
    if again:
        recompute(network, 1)

    def peak(*, wide):
        with FakeTensorMode(allow_non_fake_inputs=True), Trace() as trace:
            x = torch.ones(512, 64, dtype=torch.bfloat16, requires_grad=True)
            with ExitStack() as stack:
                stack.enter_context(torch.autocast("cpu", torch.bfloat16))
                for each in (anew_under(WideAsOnGpu), WideAsOnGpu()) if wide else ():
                    stack.enter_context(each)
                answer = network(x)
            answer.sum().backward()
        return trace.peak

    blocks = 1 if again else 3  # each norm keeps its input in fp32, which is there anyway in bf16
    assert peak(wide=True) - peak(wide=False) >= blocks * 512 * 64 * 4
