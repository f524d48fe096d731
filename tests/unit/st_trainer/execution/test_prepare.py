"""Recomputed, compiled and offloaded blocks answer as plain ones do, gradients too."""

import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fixtures.media import dataset_of
from fixtures.tiny import TINY
from torch import nn

from st_shared.spec import TrainingSpec
from st_shared.spec.memory import OffloadSpec
from st_trainer.adapters.adapter import trained
from st_trainer.adapters.registry import make_adapter
from st_trainer.errors import BadSpecError
from st_trainer.execution.attention import available, set_attention
from st_trainer.execution.blocks import repeated_blocks
from st_trainer.execution.compilation import compile_blocks
from st_trainer.execution.demands import must_suit
from st_trainer.execution.offloading import Group, Offloading, offloaded
from st_trainer.execution.prepare import prepared
from st_trainer.execution.recomputation import recompute

CPU = torch.device("cpu")


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0
        self.into, self.out = nn.Linear(8, 16), nn.Linear(16, 8)
        self.small = nn.Linear(8, 8)

    def forward(self, x):
        self.calls += 1
        return x + self.out(torch.tanh(self.into(nn.functional.dropout(x, 0.3)))) + self.small(x)


class Network(nn.Module):
    """Four blocks; ``small`` is trained."""

    _no_split_modules = ("Block",)

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.Linear(8, 8)
        self.blocks = nn.ModuleList(Block() for _ in range(4))
        self.requires_grad_(requires_grad=False)
        for block in self.blocks:
            block.small.requires_grad_(requires_grad=True)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return x


def gradients(network):
    torch.manual_seed(5)
    network(torch.linspace(-1, 1, 24).view(3, 8)).square().sum().backward()
    return {name: each.grad.clone() for name, each in trained(network).items()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], each) for name, each in expected.items())


@pytest.mark.parametrize(("interval", "again"), [(1, [2, 2, 2, 2]), (2, [2, 1, 2, 1])])
def test_recomputed_blocks_give_the_same_gradients_to_the_last_bit(interval, again):
    network = Network()
    recompute(network, interval)
    assert_same(gradients(network), gradients(Network()))
    assert [block.calls for block in network.blocks] == again


@pytest.mark.parametrize(
    "family", [pytest.param(n, marks=() if n == "flux" else pytest.mark.families) for n in TINY]
)
def test_every_family_is_recomputed_exactly(load_tiny, family):
    """``attach`` starts LoRA at zero, so one matrix alone has a gradient; it must be the same."""
    found = []
    for interval in (None, 1):
        denoiser = replace(load_tiny(family))
        spec = TrainingSpec.model_validate(
            {
                "model": {"family": family, "base": "b"},
                "datasets": [dataset_of(family, Path("x"))],
                "memory": {"gradient_checkpointing": interval},
            }
        )
        torch.manual_seed(0)
        denoiser = prepared(denoiser, make_adapter(spec), spec, CPU)
        generator = torch.Generator().manual_seed(4)
        noisy = torch.randn(2, *denoiser.latent_shape, generator=generator)
        times = denoiser.objective.from_share(torch.tensor([0.5, 0.5]))
        with torch.no_grad():
            condition = denoiser.encode(["a", "b"]) | TINY[family].told(denoiser)
        denoiser.predict(noisy, times, condition).square().mean().backward()
        pairs = trained(denoiser.module).items()
        found.append({name: each.grad.clone() for name, each in pairs if each.grad is not None})
    assert found[0]
    assert_same(found[1], found[0])


def flux_of(load_tiny, **changes):
    """The tiny ``flux``, which is two blocks, made ready as ``changes`` want it."""
    document = {"model": {"family": "flux", "base": "b"}, "datasets": [{"path": "x"}]}
    spec = TrainingSpec.model_validate(document | changes)
    return prepared(load_tiny("flux"), make_adapter(spec), spec, CPU)


@pytest.mark.parametrize(("interval", "again"), [(1, [2, 2]), (2, [2, 1])])
def test_of_a_model_of_diffusers_every_nth_block_is_computed_anew(load_tiny, interval, again):
    denoiser = flux_of(load_tiny, memory={"gradient_checkpointing": interval})
    blocks = [block for _, block in repeated_blocks(denoiser.module)]
    calls = [0] * len(blocks)

    def count(place):
        def called(*_told):
            calls[place] += 1

        return called

    for place, block in enumerate(blocks):
        block.register_forward_pre_hook(count(place))
    denoiser.module.train()
    with torch.no_grad():
        condition = denoiser.encode(["a"])
    noisy = torch.zeros(1, *denoiser.latent_shape)
    times = denoiser.objective.from_share(torch.tensor([0.5]))
    denoiser.predict(noisy, times, condition).square().mean().backward()
    assert calls == again


@pytest.mark.parametrize("to", ["disk", "cpu"])
@pytest.mark.parametrize(
    ("level", "blocks", "groups"), [("block", 1, 4), ("block", 3, 2), ("leaf", 1, 12)]
)
def test_weights_that_wait_elsewhere_come_back_for_both_passes(level, blocks, groups, to):
    network = Network()
    frozen = [each.weight for block in network.blocks for each in (block.into, block.out)]
    before = [weakref.ref(each.untyped_storage()) for each in frozen]
    recompute(network, 1)
    made = offloaded(network, OffloadSpec(level=level, blocks=blocks, to=to), CPU)
    assert len(made.groups) == groups
    assert made.nbytes == sum(each.numel() * 4 for each in network.blocks.parameters()) - sum(
        each.numel() * 4 for each in trained(network).values()
    )
    assert all(each() is None for each in before) or to == "cpu"
    for _ in range(2):
        network.zero_grad()
        assert_same(gradients(network), gradients(Network()))
    here = sum(each.untyped_storage().nbytes() > 4 for each in frozen)
    assert here <= 2 * blocks


class Stream:
    """In place of a CUDA stream: notes which group is fetched on it."""

    def __init__(self, monkeypatch):
        self.fetched = []
        monkeypatch.setattr(Group, "fetch", lambda group, stream: stream.fetched.append(group))


def test_while_a_group_computes_the_next_one_is_fetched_in_both_passes(monkeypatch):
    network, stream = Network(), Stream(monkeypatch)
    recompute(network, 1)
    made = Offloading([[block] for block in network.blocks], CPU, None, stream)
    assert_same(gradients(network), gradients(Network()))
    places = [made.groups.index(group) for group in stream.fetched]
    assert places == [2, 3, 1, 0]  # forward from the second on, back from the third


def test_blocks_and_code_of_attention_are_as_the_specification_says(load_tiny, monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda block, **_: compiled.append(block))
    flux_of(load_tiny)
    assert compiled == []
    module = flux_of(load_tiny, speed={"compile": True, "attention": "native_math"}).module
    assert compiled == [block for _, block in repeated_blocks(module)]
    assert chosen_code(module) == {"_native_math"}
    set_attention(module, "native", "cpu")  # the choice is the process's


def test_blocks_are_compiled_as_one_graph():
    compiled = []

    def backend(graph, _inputs):
        compiled.append(graph)
        return graph.forward

    network = Network().eval()
    inputs = torch.linspace(-1, 1, 24).view(3, 8)
    with torch.no_grad():
        for block in network.blocks:
            block.__class__ = Plain
        expected = network(inputs)
        assert compile_blocks(network, backend) == 4
        assert torch.equal(network(inputs), expected)
    assert len(compiled) == 1


class Plain(Block):
    """Without what is traced anew: counted calls and random numbers."""

    def forward(self, x):
        return x + self.out(torch.tanh(self.into(x))) + self.small(x)


@pytest.mark.parametrize(
    "family", [pytest.param(n, marks=() if n == "flux" else pytest.mark.families) for n in TINY]
)
def test_every_family_has_blocks_and_says_how_attention_is_computed(load_tiny, family):
    module = load_tiny(family).module
    assert repeated_blocks(module)
    with pytest.raises(BadSpecError, match="attention: xformers does not train on cpu: use one of"):
        set_attention(module, "xformers", "cpu")
    assert available("cpu") == ["native", "native_math"]
    with pytest.raises(BadSpecError, match=r"flash is not there .*: use one of native, native_m"):
        set_attention(module, "flash", "cuda")


def chosen_code(module):
    """Diffusers' names of what computes attention in ``module``."""
    processors = (getattr(each, "processor", None) for each in module.modules())
    return {each._attention_backend for each in processors if hasattr(each, "_attention_backend")}


def test_the_code_of_attention_is_chosen(load_tiny):
    module = load_tiny("flux").module
    set_attention(module, "native_math", "cpu")
    assert chosen_code(module) == {"_native_math"}
    set_attention(module, "native", "cpu")  # the choice is the process's


BASE = {"model": {"family": "sd1", "base": "b"}, "datasets": [{"path": "x"}]}
BLOCK = {"level": "block"}


@pytest.mark.parametrize(
    ("changes", "device", "world", "said"),
    [
        ({"precision": "fp16"}, "cpu", 1, "precision: fp16 is not trained on a CPU"),
        ({"optimizer": {"offload": True}}, "cpu", 1, "optimizer.offload: the run is on a CPU"),
        ({"optimizer": {"name": "paged_adamw_8bit"}}, "cpu", 1, "name: .* use adamw_8bit"),
        ({"memory": {"offload": BLOCK}}, "cpu", 1, "offload.to: .* use disk"),
        ({"memory": {"offload": BLOCK | {"stream": True}}}, "mps", 1, "no streams on mps"),
        ({"memory": {"offload": BLOCK}}, "cuda", 2, "2 processes exchange all weights"),
        (
            {"optimizer": {"fused_backward": True, "max_grad_norm": None}},
            "cuda",
            2,
            "gradients of 2 processes",
        ),
        ({"memory": {"quantization": {"format": "nf4"}}}, "mps", 1, "nf4 runs on cpu, cuda"),
    ],
)
def test_what_the_device_cannot_do_is_said_before_anything_is_loaded(changes, device, world, said):
    changes = dict(changes)
    if "offload" in changes.get("memory", {}):
        changes["memory"] = changes["memory"] | {"gradient_checkpointing": 1}
    with pytest.raises(BadSpecError, match=said):
        must_suit(TrainingSpec.model_validate(BASE | changes), device, world)
