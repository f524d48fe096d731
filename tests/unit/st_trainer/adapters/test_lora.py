"""LoRA by PEFT on a small attention block; how it looks to Diffusers is in the family contracts."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from st_shared.spec import AdapterSpec
from st_trainer.adapters.adapter import trained
from st_trainer.adapters.lora import Lora, lora_layers
from st_trainer.adapters.lora_file import read_lora
from st_trainer.errors import BadSpecError
from st_trainer.families.sd1 import Sd1

INPUT = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.attn = nn.ModuleDict({name: nn.Linear(8, 8) for name in ("to_q", "to_k", "to_v")})
        self.attn["to_out"] = nn.ModuleList([nn.Linear(8, 8), nn.Dropout(0)])
        self.other = nn.Linear(8, 8)

    def forward(self, x):
        attn = self.attn
        mixed = torch.tanh(attn["to_q"](x)) * attn["to_k"](x) + attn["to_v"](x)
        return self.other(attn["to_out"][0](mixed))


@pytest.fixture
def block(load_tiny):
    """A denoiser of ``sd1`` whose network is the block."""
    return replace(load_tiny("sd1"), module=Block())


def learn(denoiser, steps=3):
    """A few steps of the optimiser on a target that the block cannot give by itself."""
    optimizer = torch.optim.Adam(trained(denoiser.module).values(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        (denoiser.module(INPUT) - 3).square().mean().backward()
        optimizer.step()


VARIANTS = [
    {},
    {"alpha": 2},
    {"dora": True},
    {"rslora": True, "alpha": 3},
    {"init": "gaussian"},
    {"init": "olora"},
    {"init": "pissa", "alpha": 6},
    {"init": "olora", "rslora": True},
    {"rank_pattern": {"to_k": 2}, "alpha_pattern": {"to_k": 5.0}},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("layout", ["diffusers", "comfyui"])
def test_a_file_gives_the_base_what_was_learned(block, variant, layout, tmp_path):
    before = block.module(INPUT).detach()
    adapter = Lora(AdapterSpec(rank=3, layout=layout, **variant))
    adapter.attach(block)
    torch.testing.assert_close(block.module(INPUT), before, atol=1e-5, rtol=1e-5)
    learn(block)
    after = block.module(INPUT).detach()
    assert (after - before).abs().max() > 0.05
    path = adapter.write(tmp_path, block, step=3)
    again = replace(block, module=Block())
    Lora(AdapterSpec(continue_from=str(path))).attach(again)
    torch.testing.assert_close(again.module(INPUT), after, atol=1e-4, rtol=1e-4)


def test_a_file_that_is_gone_on_from_is_not_taken_out_again(block, tmp_path):
    """`init` says how new matrices start; those of a file are added to the base as it was."""
    first = Lora(AdapterSpec(rank=3))
    first.attach(block)
    learn(block)
    path = first.write(tmp_path, block, step=3)
    again = replace(block, module=Block())
    second = Lora(AdapterSpec(continue_from=str(path), init="pissa"))
    second.attach(again)
    learn(again)
    after = again.module(INPUT).detach()
    path = second.write(tmp_path, again, step=3)
    last = replace(block, module=Block())
    Lora(AdapterSpec(continue_from=str(path))).attach(last)
    torch.testing.assert_close(last.module(INPUT), after, atol=1e-4, rtol=1e-4)


def test_ranks_and_alphas_follow_their_patterns(block):
    spec = AdapterSpec(rank=4, alpha=2, rank_pattern={"to_k": 2}, alpha_pattern={"to_v": 8})
    Lora(spec).attach(block)
    found = {
        n: (layer.r["default"], layer.scaling["default"]) for n, layer in lora_layers(block.module)
    }
    assert found == {
        "attn.to_q": (4, 0.5),
        "attn.to_k": (2, 1.0),
        "attn.to_v": (4, 2.0),
        "attn.to_out.0": (4, 0.5),
    }


def test_without_an_alpha_every_rank_has_scale_one(block):
    Lora(AdapterSpec(rank=4, rank_pattern={"to_k": 2})).attach(block)
    assert {layer.scaling["default"] for _, layer in lora_layers(block.module)} == {1.0}


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ({"targets": ["to_q"]}, ["attn.to_q"]),
        ({"preset": "default", "exclude": ["to_q", "to_out.0"]}, ["attn.to_k", "attn.to_v"]),
        ({"targets": ["other", "attn.to_v"]}, ["attn.to_v", "other"]),
    ],
)
def test_targets_are_ends_of_names(block, spec, names):
    Lora(AdapterSpec(rank=2, **spec)).attach(block)
    assert [name for name, _ in lora_layers(block.module)] == names
    assert all("lora_" in name for name in trained(block.module))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"preset": "everything"}, "has no 'everything'; it has all, default"),
        ({"targets": ["to_x"]}, "no module of sd1 ends with to_x"),
        ({"continue_from": "absent.safetensors"}, "continue_from"),
    ],
)
def test_what_does_not_fit_is_refused(block, spec, said):
    with pytest.raises(BadSpecError, match=said):
        Lora(AdapterSpec(**spec)).attach(block)


def test_a_file_of_another_model_is_refused(block, tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"unet.elsewhere.lora_A.weight": torch.zeros(2, 8)}, path)
    with pytest.raises(BadSpecError, match="it adapts elsewhere"):
        read_lora(path, block.module, block.family)


class Renamed(Sd1):
    """A family whose modules have other names in ComfyUI."""

    comfy_prefix = "diffusion_model"
    kohya_prefix = None
    comfy_renames = ((r"^attn\.to_(\w)$", r"attention.\1_proj"), (r"to_out\.0$", "o_proj"))


def test_comfyui_gets_its_own_names_of_modules_and_they_are_read_again(block, tmp_path):
    block = replace(block, family=Renamed())
    adapter = Lora(AdapterSpec(rank=2, layout="comfyui"))
    adapter.attach(block)
    learn(block)
    path = adapter.write(tmp_path, block, step=3)
    modules = {key.split(".lora_")[0].removesuffix(".alpha") for key in load_file(path)}
    names = ("attention.q_proj", "attention.k_proj", "attention.v_proj", "attn.o_proj")
    assert modules == {f"diffusion_model.{name}" for name in names}
    found = read_lora(path, block.module, block.family)
    assert found.tensors.keys() == adapter.file(block.module).tensors.keys()


@pytest.mark.parametrize("old", [("lora.down", "lora.up"), ("lora_down", "lora_up")])
def test_older_names_of_the_matrices_are_read(block, old, tmp_path):
    path, pair = tmp_path / "old.safetensors", (torch.randn(2, 8), torch.randn(8, 2))
    save_file({f"unet.attn.to_q.{each}.weight": t for each, t in zip(old, pair, strict=True)}, path)
    file = read_lora(path, block.module, block.family)
    assert file.alphas == {"attn.to_q": 2.0}
    assert torch.equal(file.tensors["attn.to_q.lora_A.weight"], pair[0])


def test_off_gives_the_base_and_the_adapter_comes_back(block):
    before = block.module(INPUT).detach()
    adapter = Lora(AdapterSpec(rank=3))
    adapter.attach(block)
    learn(block)
    after = block.module(INPUT).detach()
    with adapter.off(block.module):
        torch.testing.assert_close(block.module(INPUT), before)
    assert torch.equal(block.module(INPUT), after)
    assert len(trained(block.module)) == 8


@pytest.mark.parametrize("init", ["pissa", "loftq"])
def test_off_is_refused_where_the_base_was_changed(block, init):
    adapter = Lora(AdapterSpec(rank=3, init=init))
    adapter.attach(block)
    with (
        pytest.raises(BadSpecError, match="use init default or gaussian"),
        adapter.off(block.module),
    ):
        pass


def test_a_checkpoint_of_another_rank_is_refused(block):
    adapter = Lora(AdapterSpec(rank=3))
    adapter.attach(block)
    wrong = {name: torch.zeros(1, 1) for name in trained(block.module)}
    with pytest.raises(ValueError, match="has another shape"):
        adapter.load(block.module, wrong)
