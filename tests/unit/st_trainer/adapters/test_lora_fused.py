"""Kohya's layout of ``flux`` and ``sd3``, against what Diffusers reads out of it."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from st_shared.spec import FAMILIES, AdapterSpec
from st_trainer.adapters.lora import Lora
from st_trainer.adapters.lora_file import LoraFile, read_lora, write_lora
from st_trainer.errors import BadSpecError
from st_trainer.families.flux import Flux
from st_trainer.families.registry import REGISTRY
from st_trainer.families.sd3 import Sd3

WIDTH = 4


class Sizes(nn.Module):
    """Linear layers of the real sizes, whose weights take no memory."""

    def __init__(self, rows):
        super().__init__()
        for name, size in rows.items():
            self.set_submodule_deep(name, nn.Linear(WIDTH, size, device="meta"))

    def set_submodule_deep(self, name, layer):
        place = self
        *parents, last = name.split(".")
        for part in parents:
            if part not in place._modules:
                place.add_module(part, nn.Module())
            place = place._modules[part]
        place.add_module(last, layer)


def modules_of(table, size):
    """Two blocks of everything that ``table`` names."""
    names = {each.format(block) for ours in table.values() for each in ours for block in range(2)}
    return Sizes({name: 4 * size if name.endswith("proj_mlp") else size for name in names})


def random_file(module, left_out=()):
    torch.manual_seed(0)
    tensors, alphas = {}, {}
    for place, (name, layer) in enumerate(module.named_modules()):
        if not isinstance(layer, nn.Linear) or name in left_out:
            continue
        rank = 2 + place % 2
        tensors[f"{name}.lora_A.weight"] = torch.randn(rank, WIDTH)
        tensors[f"{name}.lora_B.weight"] = torch.randn(layer.out_features, rank)
        alphas[name] = float(1 + place % 3)
    return LoraFile(tensors, alphas)


def products(file):
    return {name: second @ first for name, (first, second) in file.folded.pairs.items()}


def test_diffusers_reads_what_is_written_for_flux(tmp_path):
    from diffusers import FluxPipeline

    module = modules_of({n: o for n, o in Flux.kohya_modules.items() if "final" not in n}, 3072)
    file = random_file(module)
    path = tmp_path / "kohya.safetensors"
    write_lora(path, file, module, Flux(), "kohya")
    state = FluxPipeline.lora_state_dict(tmp_path, weight_name=path.name)
    expected = products(file)
    assert {key.split(".lora_")[0] for key in state} == {f"transformer.{name}" for name in expected}
    for name, product in expected.items():
        pair = (state[f"transformer.{name}.lora_{end}.weight"] for end in "BA")
        torch.testing.assert_close(torch.matmul(*pair), product, atol=1e-5, rtol=1e-5)


def test_diffusers_reads_the_text_encoder_of_flux(tmp_path):
    """Both ends of the stock loader: Kohya's keys to its own, and those to PEFT's."""
    from diffusers import FluxPipeline
    from diffusers.utils import convert_state_dict_to_diffusers, convert_state_dict_to_peft

    layer = "text_encoder.text_model.encoder.layers.3.self_attn"
    names = [f"{layer}.{end}" for end in ("q_proj", "k_proj", "v_proj", "out_proj")]
    module = Sizes(dict.fromkeys((*names, "transformer_blocks.0.attn.to_out.0"), 3072))
    file = random_file(module)
    path = tmp_path / "kohya.safetensors"
    write_lora(path, file, module, Flux(), "kohya")
    state = FluxPipeline.lora_state_dict(tmp_path, weight_name=path.name)
    text = {key: each for key, each in state.items() if key.startswith("text_encoder.")}
    found = convert_state_dict_to_peft(convert_state_dict_to_diffusers(text))
    assert {key.split(".lora_")[0] for key in found} == set(names)
    for name in names:
        pair = (found[f"{name}.lora_{end}.weight"] for end in "BA")
        expected = products(file)[name]
        torch.testing.assert_close(torch.matmul(*pair), expected, atol=1e-5, rtol=1e-5)


class Checkpoint(dict):
    """Weights of the first release: zeros, but for what a LoRA adds."""

    def pop(self, key):
        return super().pop(key, torch.zeros(6, WIDTH))


def test_diffusers_converts_the_sums_of_sd3_to_its_own_modules(tmp_path):
    from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers

    module = modules_of({n: o for n, o in Sd3.kohya_modules.items() if "final" not in n}, 6)
    last = ("transformer_blocks.1.attn.to_add_out", "transformer_blocks.1.ff_context.net.0.proj")
    left_out = (*last, "transformer_blocks.1.ff_context.net.2")  # the last block has none of these
    file = random_file(module, left_out)
    path = tmp_path / "kohya.safetensors"
    write_lora(path, file, module, Sd3(), "kohya")
    kohya = load_file(path)
    weights = Checkpoint({"context_embedder.weight": torch.zeros(6, WIDTH)})
    for theirs in Sd3.kohya_modules:
        for block in range(2):
            key = f"lora_unet_{theirs.format(block).replace('.', '_')}"
            if f"{key}.alpha" in kohya:
                first, second = kohya[f"{key}.lora_down.weight"], kohya[f"{key}.lora_up.weight"]
                scale = kohya[f"{key}.alpha"] / len(first)
                weights[f"{theirs.format(block)}.weight"] = scale * second @ first
    converted = convert_sd3_transformer_checkpoint_to_diffusers(weights)
    expected = products(file)
    for name, product in expected.items():
        torch.testing.assert_close(converted[f"{name}.weight"], product, atol=1e-5, rtol=1e-5)
    assert len(expected) == 2 * 16 - 3


@pytest.mark.parametrize("family", [Flux(), Sd3()], ids=lambda family: family.name)
def test_what_is_written_is_read_again_with_parts_left_out(family, tmp_path):
    module = modules_of(family.kohya_modules, 6)
    left_out = {"transformer_blocks.0.attn.to_k", "transformer_blocks.1.attn.add_v_proj"}
    file = random_file(module, left_out)
    path = tmp_path / "kohya.safetensors"
    write_lora(path, file, module, family, "kohya")
    again = read_lora(path, module, family)
    assert again.ranks == file.ranks
    expected = products(file)
    assert again.alphas.keys() == expected.keys()
    for name, product in products(again).items():
        torch.testing.assert_close(product, expected[name], atol=1e-5, rtol=1e-5)


def test_a_dense_fused_pair_is_read_too(tmp_path):
    """As Kohya trains by default: one pair beside the fused projection itself."""
    from safetensors.torch import save_file

    module = modules_of(Flux.kohya_modules, 6)
    first, second = torch.randn(3, WIDTH), torch.randn(6 * 3 + 24, 3)
    path = tmp_path / "dense.safetensors"
    name = "lora_unet_single_blocks_1_linear1"
    pair = {f"{name}.lora_down.weight": first, f"{name}.lora_up.weight": second}
    save_file({**pair, f"{name}.alpha": torch.tensor(1.5)}, path)
    found = products(read_lora(path, module, Flux()))
    block = "single_transformer_blocks.1"
    names = [f"{block}.attn.{end}" for end in ("to_q", "to_k", "to_v")] + [f"{block}.proj_mlp"]
    whole = torch.cat([found[each] for each in names])
    torch.testing.assert_close(whole, 0.5 * second @ first)
    save_file({f"{name}.lora_down.weight": first, f"{name}.lora_up.weight": second[1:]}, path)
    with pytest.raises(BadSpecError, match="linear1 has 41 rows, not 42"):
        read_lora(path, module, Flux())


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"dora": True}, "hold no magnitudes of dora"),
        ({"targets": ["context_embedder"]}, "kohya has no name for context_embedder"),
    ],
)
def test_what_cannot_be_written_is_told_before_training(spec, said):
    module = Sizes({"transformer_blocks.0.attn.to_q": 6, "context_embedder": 6})
    denoiser = SimpleNamespace(module=module, family=Flux(), assets={})
    with pytest.raises(BadSpecError, match=said):
        Lora(AdapterSpec(layout="kohya", **spec)).attach(denoiser)


def test_the_catalogue_says_which_families_have_the_layout():
    coded = {
        name
        for name, code in REGISTRY.items()
        if getattr(code, "kohya_modules", None) or getattr(code, "kohya_prefix", None)
    }
    assert coded == {name for name, family in FAMILIES.items() if family.kohya_lora}
