"""Bases in fewer bits: what they weigh, and that small matrices beside them still learn."""

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from st_shared.spec import TrainingSpec
from st_shared.spec.memory import QUANTIZATION_BACKENDS
from st_trainer.adapters.adapter import trained
from st_trainer.adapters.registry import make_adapter
from st_trainer.errors import BadSpecError
from st_trainer.execution.prepare import prepared
from st_trainer.quantization import registry
from st_trainer.quantization.layers import ForgetfulLinear
from st_trainer.quantization.model import frozen_linears, quantised
from st_trainer.quantization.registry import QUANTIZERS, quantizer_for, quantizers

CPU = torch.device("cpu")
WIDTH = 128


class Network(nn.Module):
    """A block of attention's names, of a size at which single bytes do not count."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.attn = nn.ModuleDict({name: nn.Linear(WIDTH, WIDTH) for name in ("to_q", "to_k")})
        self.attn["to_v"] = nn.Linear(WIDTH, WIDTH, bias=False)
        self.attn["to_out"] = nn.ModuleList([nn.Linear(WIDTH, WIDTH)])
        self.norm = nn.LayerNorm(WIDTH)
        self.ff = nn.Linear(WIDTH, 4 * WIDTH)
        self.back = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        attn = self.attn
        mixed = torch.tanh(attn["to_q"](x)) * attn["to_k"](x) + attn["to_v"](x)
        x = self.norm(x + attn["to_out"][0](mixed))
        return x + self.back(torch.relu(self.ff(x)))


def spec_of(**changes):
    model = {"family": "sd1", "base": "b"}
    document = {"model": model, "datasets": [{"path": "x"}], "adapter": {"rank": 4}}
    return TrainingSpec.model_validate(document | changes)


def made(load_tiny, dtype=torch.float32, **changes):
    spec = spec_of(**changes)
    denoiser = replace(load_tiny("sd1"), module=Network().to(dtype))
    return prepared(denoiser, make_adapter(spec), spec, CPU)


def quantization(row):
    return {"memory": {"quantization": {"format": row.format, "backend": row.backend}}}


def learn(module, dtype, steps=6):
    """Losses of a few steps."""
    generator = torch.Generator().manual_seed(2)
    inputs, target = (torch.randn(4, WIDTH, generator=generator).to(dtype) for _ in range(2))
    optimizer = torch.optim.AdamW(trained(module).values(), lr=0.02)
    losses = []
    for _ in range(steps):
        loss = (module(inputs) - target).float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.fixture
def only_new():
    """``gc`` knows of what is made from now on alone, which makes looking at all of it quick."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def storages():
    """Bytes of all storages made since ``only_new``, each once, whoever holds it."""
    gc.collect()
    found = {}
    for each in gc.get_objects():
        if issubclass(type(each), torch.Tensor) and not hasattr(each, "__tensor_flatten__"):
            storage = each.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


COMPILED = ("int4", "quanto")
"""It compiles a library first, for a minute."""
ROWS = [
    pytest.param(
        row,
        id=f"{row.format}-{row.backend}",
        marks=pytest.mark.families if (row.format, row.backend) == COMPILED else (),
    )
    for row in QUANTIZERS
]


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.usefixtures("only_new")
def test_a_small_part_learns_on_a_base_that_weighs_what_is_foretold(load_tiny, row):
    plain = learn(made(load_tiny).module, torch.float32)
    network = Network()
    denoiser = replace(load_tiny("sd1"), module=network)
    spec = spec_of(**quantization(row))
    adapter = make_adapter(spec)
    adapter.attach(denoiser)
    names = frozen_linears(network)
    assert len(names) == 6
    layers = [network.get_submodule(name) for name in names]
    foretold = sum(row.held(each.out_features, each.in_features, 4) for each in layers)
    lost = sum(each.weight.numel() * 4 for each in layers)
    del layers
    row.quantise(nn.Linear(128, 8), CPU)  # what the library keeps whatever is rounded
    before = storages()
    changed = quantised(denoiser, spec.memory.quantization, CPU)
    found = lost - (before - storages())
    assert found == pytest.approx(foretold, rel=0.1)
    assert changed.dtype == torch.float32
    losses = learn(network, torch.float32)
    assert losses[-1] < 0.9 * losses[0]
    assert losses == pytest.approx(plain, rel=0.1)
    assert losses != plain
    with_gradients = [name for name, each in network.named_parameters() if each.requires_grad]
    assert with_gradients
    assert all("lora_" in name for name in with_gradients)


@pytest.mark.parametrize("row", ROWS)
def test_answers_without_gradients_change_no_weight_whatever_its_width(row):
    torch.manual_seed(0)
    layer = row.quantise(nn.Linear(24, 48).requires_grad_(requires_grad=False), CPU).eval()
    inputs = torch.randn(3, 24)
    expected = layer(inputs.clone().requires_grad_()).detach()  # as in training
    with torch.no_grad():
        layer(inputs)
    after = layer(inputs.clone().requires_grad_()).detach()
    assert torch.equal(after, expected)


@pytest.mark.parametrize("row", ROWS)
def test_under_autocast_answers_are_of_its_type_like_those_of_plain_layers(row):
    layer = row.quantise(nn.Linear(64, 128).bfloat16().requires_grad_(requires_grad=False), CPU)
    inputs = torch.randn(3, 64, requires_grad=True)  # as layer norms answer on GPUs
    with torch.autocast("cpu", torch.bfloat16):
        answer = layer(inputs)
    assert answer.dtype == torch.bfloat16
    answer.sum().backward()
    assert inputs.grad.isfinite().all()


@pytest.mark.parametrize("row", ROWS)
def test_no_layer_keeps_its_input_which_only_a_gradient_of_its_weight_would_need(row):
    torch.manual_seed(0)
    layer = row.quantise(nn.Linear(24, 48).requires_grad_(requires_grad=False), CPU)
    inputs, change = torch.randn(3, 24, requires_grad=True), torch.randn(3, 24)
    seen = inputs * 1
    kept = weakref.ref(seen.untyped_storage())
    answer = layer(seen)
    del seen
    assert kept() is None
    answer.sum().backward()
    with torch.no_grad():  # of what is linear, to the rounding of inputs
        moved = (layer(inputs + change) - layer(inputs)).sum()
    assert (inputs.grad * change).sum() == pytest.approx(moved.item(), rel=0.05, abs=0.1)


def test_the_file_holds_plain_matrices(load_tiny, tmp_path):
    written = {}
    for name, changes in {"plain": {}, "fewer": quantization(QUANTIZERS[0])}.items():
        spec = spec_of(**changes)
        adapter = make_adapter(spec)
        denoiser = prepared(replace(load_tiny("sd1"), module=Network()), adapter, spec, CPU)
        (tmp_path / name).mkdir()
        written[name] = load_file(adapter.write(tmp_path / name, denoiser, 0))
    assert written["plain"].keys() == written["fewer"].keys()
    shapes = [{n: (t.shape, t.dtype) for n, t in each.items()} for each in written.values()]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("init", ["pissa", "loftq"])
def test_matrices_that_are_taken_out_of_the_weights_are_exact(load_tiny, init):
    """The base is rounded after they were: base and matrices together lose less than it alone."""
    adapter = {"rank": 16, "init": init}
    nf4 = {"memory": {"quantization": {"format": "nf4"}}}
    inputs = torch.randn(16, WIDTH, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        wanted = Network()(inputs)
        errors = [
            (made(load_tiny, adapter=each, **nf4).module(inputs) - wanted).square().mean().item()
            for each in (adapter, {"rank": 16})
        ]
    assert errors[0] < 0.95 * errors[1]


@pytest.mark.parametrize("algorithm", ["lokr", "loha"])
@pytest.mark.parametrize("format_", ["int8", "nf4"])
def test_lycoris_learns_beside_fewer_bits(load_tiny, algorithm, format_):
    adapter = {"kind": "lycoris", "rank": 4, "lycoris": {"algorithm": algorithm}}
    memory = {"quantization": {"format": format_}}
    module = made(load_tiny, adapter=adapter, memory=memory).module
    losses = learn(module, torch.float32)
    assert losses[-1] < losses[0]
    assert all(name.startswith("lycoris") for name in trained(module))


def test_excluded_layers_and_those_of_no_format_stay(load_tiny):
    memory = {"quantization": {"format": "int8", "exclude": ["ff", "to_out.0"]}}
    module = made(load_tiny, memory=memory).module
    assert type(module.ff.weight) is nn.Parameter
    assert type(module.attn["to_out"][0].base_layer.weight) is nn.Parameter
    assert type(module.back.weight) is not nn.Parameter


def test_text_encoders_are_held_in_fewer_bits_too(load_tiny):
    denoiser = made(load_tiny, memory={"quantization": {"text_encoders": "int8"}})
    encoder = denoiser.assets["text_encoder"]
    assert not frozen_linears(encoder)
    assert any(isinstance(each, ForgetfulLinear) for each in encoder.modules())
    assert torch.isfinite(denoiser.encode(["a"])["text"]).all()


def test_the_registry_holds_what_the_specification_promises():
    found = {}
    for row in QUANTIZERS:
        found.setdefault(row.format, []).append(row.backend)
    assert {name: set(rows) for name, rows in found.items()} == {
        name: set(rows) for name, rows in QUANTIZATION_BACKENDS.items()
    }
    assert [each.backend for each in quantizers("int8", None)] == list(
        QUANTIZATION_BACKENDS["int8"]
    )


def test_what_does_not_run_or_is_not_installed_is_refused_with_the_mend(monkeypatch):
    with pytest.raises(BadSpecError, match=r"x: nf4 runs on cpu, cuda, xpu, not on mps"):
        quantizer_for("nf4", None, "mps", "x")
    monkeypatch.setattr(registry, "is_installed", lambda name: name == "optimum.quanto")
    assert quantizer_for("int8", None, "cpu", "x").backend == "quanto"
    with pytest.raises(BadSpecError, match=r"nf4 needs bitsandbytes: pip install 'st-fleet\[quant"):
        quantizer_for("nf4", None, "cpu", "x")
