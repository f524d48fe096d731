"""Every algorithm of LyCORIS on a small block: it learns, is switched off, and loads again."""

from dataclasses import replace
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from st_shared.spec import AdapterSpec, LycorisSpec, TrainingSpec
from st_trainer.adapters.adapter import trained
from st_trainer.adapters.lycoris import Lycoris
from st_trainer.errors import BadSpecError
from st_trainer.families.sd1 import Sd1

INPUT = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
ALGORITHMS = get_args(LycorisSpec.model_fields["algorithm"].annotation)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.to_q, self.to_k, self.other = (nn.Linear(16, 16) for _ in range(3))

    def forward(self, x):
        return self.other(torch.tanh(self.to_q(x)) + self.to_k(x))


class Shape(Sd1):
    """A family whose network answers zeros."""

    def predict(self, module, noisy, times, condition):
        del module, times, condition
        return torch.zeros_like(noisy)


@pytest.fixture
def block(load_tiny):
    return replace(load_tiny("sd1"), module=Block().eval())


@pytest.mark.parametrize(
    "algorithm",
    [a if a == "lokr" else pytest.param(a, marks=pytest.mark.families) for a in ALGORITHMS],
)
def test_an_algorithm_learns_is_switched_off_and_is_restored(block, algorithm, tmp_path):
    before = block.module(INPUT).detach()
    spec = AdapterSpec(kind="lycoris", rank=4, lycoris={"algorithm": algorithm})
    adapter = Lycoris(spec)
    torch.manual_seed(2)
    adapter.attach(block)
    torch.testing.assert_close(block.module(INPUT), before, atol=1e-4, rtol=1e-4)
    optimizer = torch.optim.Adam(trained(block.module).values(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (block.module(INPUT) - 3).square().mean().backward()
        optimizer.step()
    after = block.module(INPUT).detach()
    assert (after - before).abs().max() > 0.01
    with adapter.off(block.module):
        torch.testing.assert_close(block.module(INPUT), before, atol=1e-5, rtol=1e-5)
    assert torch.equal(block.module(INPUT), after)
    kept = {name: each.detach().clone() for name, each in adapter.tensors(block.module).items()}
    assert all(name.startswith("lycoris.lycoris_to_") for name in kept)
    again = replace(block, module=Block().eval())
    other = Lycoris(spec)
    torch.manual_seed(2)
    other.attach(again)
    other.load(again.module, kept)
    torch.testing.assert_close(again.module(INPUT), after)
    written = load_file(adapter.write(tmp_path, block, step=3))
    assert all(name.startswith(("lycoris_to_q.", "lycoris_to_k.")) for name in written)


def test_tlora_uses_fewer_ranks_the_noisier_a_sample_is(block):
    lycoris = {"algorithm": "tlora", "min_rank": 2, "rank_power": 0.5}
    adapter = Lycoris(AdapterSpec(kind="lycoris", rank=8, lycoris=lycoris))
    adapter.attach(block)
    with torch.no_grad():
        for weight in trained(block.module).values():
            weight.add_(torch.randn_like(weight))
    layer = (
        block.module.lycoris.lycoris_to_q
        if hasattr(block.module.lycoris, "lycoris_to_q")
        else block.module.lycoris.loras[0]
    )
    ranks = []
    for share in (0.0, 0.5, 0.99, 1.0):
        adapter.listener(torch.full((3,), share))
        ranks.append(int(torch.linalg.matrix_rank(layer.get_diff_weight()[0], tol=1e-4)))
    # floor((1 - t) ^ 0.5 * 6) + 2 ranks, each with what was learned and what it began as
    assert ranks == [16, 12, 4, 4]
    with pytest.raises(BadSpecError, match="set it to 1"):
        adapter.listener(torch.tensor([0.1, 0.2]))


def test_a_step_tells_the_adapter_its_times(block):
    told = []
    again = replace(block, module=block.module, listener=told.append, family=Shape())
    times = torch.tensor([250, 999])
    again.predict(torch.zeros(2, 4, 2, 2), times, {})
    assert [each.tolist() for each in told] == [pytest.approx([0.25, 0.999])]


def test_tlora_takes_one_sample_a_step():
    document = {
        "model": {"family": "sd1", "base": "b"},
        "datasets": [{"path": "pictures"}],
        "adapter": {"kind": "lycoris", "lycoris": {"algorithm": "tlora"}},
    }
    assert TrainingSpec.model_validate(document | {"batch_size": 1})
    with pytest.raises(ValueError, match="tlora has one mask of ranks"):
        TrainingSpec.model_validate(document)


def test_options_reach_the_algorithm_and_targets_are_obeyed(block):
    spec = AdapterSpec(
        rank=10_000, targets=["other"], lycoris={"factor": 4, "options": {"full_matrix": True}}
    )
    Lycoris(spec).attach(block)
    shapes = {name: tuple(each.shape) for name, each in trained(block.module).items()}
    assert shapes == {
        "lycoris.lycoris_other.lokr_w1": (4, 4),
        "lycoris.lycoris_other.lokr_w2": (4, 4),
    }


def test_an_algorithm_that_does_not_fit_is_refused(block):
    spec = AdapterSpec(rank=7, lycoris={"algorithm": "boft"})
    block.module.to_q = nn.Linear(7, 7 * 11)
    with pytest.raises(BadSpecError, match="boft does not fit"):
        Lycoris(spec).attach(block)


class Normed(Block):
    def __init__(self):
        super().__init__()
        self.norm1 = nn.LayerNorm(16)
        self.norm2 = nn.LayerNorm(16, elementwise_affine=False)

    def forward(self, x):
        return self.norm2(self.other(self.norm1(torch.tanh(self.to_q(x)) + self.to_k(x))))


def test_normalisation_is_trained_too_where_asked(block, tmp_path):
    whole = replace(block, module=Normed().eval())
    before = whole.module(INPUT).detach()
    adapter = Lycoris(AdapterSpec(kind="lycoris", rank=4, lycoris={"norms": True}))
    adapter.attach(whole)
    norms = {name for name in trained(whole.module) if "norm" in name}
    assert norms == {f"lycoris.lycoris_norm1.{end}" for end in ("w_norm", "b_norm")}
    torch.testing.assert_close(whole.module(INPUT), before)
    with torch.no_grad():
        for name in norms:
            trained(whole.module)[name].add_(0.5)
    after = whole.module(INPUT).detach()
    assert (after - before).abs().max() > 0.01
    with adapter.off(whole.module):
        torch.testing.assert_close(whole.module(INPUT), before, atol=1e-5, rtol=1e-5)
    written = load_file(adapter.write(tmp_path, whole, step=1))
    assert {"lycoris_norm1.w_norm", "lycoris_norm1.b_norm"} < set(written)
