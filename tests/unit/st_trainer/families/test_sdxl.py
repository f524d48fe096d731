"""What is particular to ``sdxl``: sizes as a condition, the empty text, names of blocks."""

import json
import shutil

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from fixtures.tiny import TINY
from PIL import Image
from safetensors.torch import load_file

from st_shared.spec import AdapterSpec, ModelSpec, TrainingSpec, ValidationSpec
from st_trainer.adapters.lora import Lora, lora_layers
from st_trainer.batch import draw_batch
from st_trainer.data.facts import SampleFacts
from st_trainer.data.images import Images
from st_trainer.data.reading import read_datasets
from st_trainer.sampling import denoise, starting_noise
from st_trainer.session import Session
from st_trainer.weights import load_base, open_denoiser

pytestmark = pytest.mark.families
PROMPTS = ["a cat", "two red houses by the sea"]
SIZES = {(16, 16): (0, 0), (64, 32): (0, 8), (32, 80): (12, 0), (24, 48): (8, 0)}
"""Width and height of pictures; rows and columns cut once the short side is 16."""


@pytest.fixture
def session(base_folder, tmp_path):
    for index, size in enumerate(SIZES):
        Image.new("RGB", size, (40 * index, 90, 200)).save(tmp_path / f"{index}.png")
        (tmp_path / f"{index}.txt").write_text("a picture")
    document = {
        "model": {"family": "sdxl", "base": str(base_folder("sdxl")), "config": {"resolution": 16}},
        "datasets": [{"path": str(tmp_path)}],
    }
    spec = TrainingSpec.model_validate(document)
    samples = read_datasets(spec.datasets, [tmp_path], Images(3, 16, 16)).samples
    return Session(spec, samples, open_denoiser(spec, list))


@pytest.fixture
def stock(base_folder):
    pipeline = StableDiffusionXLPipeline.from_pretrained(base_folder("sdxl"))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_the_sizes_of_each_sample_arrive_in_the_condition(session, stock):
    order = [2, 0, 3, 1]
    found = draw_batch(session, order).condition["sizes"]
    pictures = list(SIZES.items())
    for row, index in zip(found, order, strict=True):
        (width, height), crop = pictures[index]
        expected = stock._get_add_time_ids((height, width), crop, (16, 16), torch.float32, 8)
        assert torch.equal(row.float(), expected[0])


def test_in_buckets_the_size_is_that_of_the_bucket(base_folder, tmp_path, stock):
    Image.new("RGB", (100, 32)).save(tmp_path / "0.png")
    (tmp_path / "0.txt").write_text("a picture")
    model = {"family": "sdxl", "base": str(base_folder("sdxl")), "config": {"resolution": 16}}
    spec = TrainingSpec.model_validate({"model": model, "datasets": [{"path": str(tmp_path)}]})
    medium = Images(3, 16, 16, buckets=((16, 16), (16, 32)))
    samples = read_datasets(spec.datasets, [tmp_path], medium).samples
    found = draw_batch(Session(spec, samples, open_denoiser(spec, list)), [0])
    expected = stock._get_add_time_ids((32, 100), (0, 9), (16, 32), torch.float32, 8)
    assert torch.equal(found.condition["sizes"].float(), expected)
    assert found.clean.shape[-2:] == (8, 16)


def test_the_network_is_told_the_sizes_in_full_precision(load_tiny):
    denoiser = load_tiny("sdxl")
    denoiser.module.to(torch.bfloat16)
    seen = {}
    denoiser.module.add_time_proj.register_forward_hook(
        lambda _module, inputs, _output: seen.update(sizes=inputs[0])
    )
    facts = [SampleFacts((1023, 1535), (0, 257), (1024, 1024))]  # not whole in bf16
    noise = torch.randn(1, *denoiser.latent_shape)
    denoiser.predict(noise, torch.tensor([500]), denoiser.encode(["a cat"], facts))
    assert seen["sizes"].tolist() == [1023, 1535, 0, 257, 1024, 1024]


def test_samples_are_drawn_as_whole_pictures(load_tiny):
    sizes = load_tiny("sdxl").encode(PROMPTS)["sizes"]
    assert sizes.tolist() == [[16, 16, 0, 0, 16, 16]] * 2


def test_the_pipelines_file_says_what_the_empty_text_is(base_folder, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(base_folder("sdxl"), folder)
    file = folder / "model_index.json"
    options = json.loads(file.read_text())
    assert options["force_zeros_for_empty_prompt"]
    file.write_text(json.dumps(options | {"force_zeros_for_empty_prompt": False}))
    denoiser = load_base(ModelSpec(family="sdxl", base=str(folder), config=TINY["sdxl"].config))
    assert denoiser.encode([""])["text"].any()
    noise = starting_noise(2, denoiser.latent_shape, seed=2)
    found = denoise(denoiser, PROMPTS, noise, ValidationSpec(sampler_steps=2, guidance=4))
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    expected = TINY["sdxl"].sample(pipeline, PROMPTS, noise, 2, 4.0)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


NAMES = {
    "down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q": (
        "input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    ),
    "mid_block_attentions_0_proj_in": "middle_block_1_proj_in",
    "mid_block_resnets_1_conv1": "middle_block_2_in_layers_2",
    "up_blocks_0_attentions_2_transformer_blocks_1_attn2_to_out_0": (
        "output_blocks_2_1_transformer_blocks_1_attn2_to_out_0"
    ),
    "down_blocks_0_downsamplers_0_conv": "input_blocks_3_0_op",
    "up_blocks_1_upsamplers_0_conv": "output_blocks_5_2_conv",
    "up_blocks_2_resnets_0_conv2": "output_blocks_6_0_out_layers_3",
    "up_blocks_2_resnets_0_conv_shortcut": "output_blocks_6_0_skip_connection",
    "down_blocks_1_resnets_1_time_emb_proj": "input_blocks_5_0_emb_layers_1",
}
"""Of sd-scripts' published SDXL files, by what Diffusers calls the module."""


def test_every_block_has_its_kohya_name_which_the_stock_pipeline_knows(load_tiny, stock, tmp_path):
    denoiser = load_tiny("sdxl")
    kinds = ["conv1", "conv2", "time_emb_proj", "conv_shortcut", "conv", "proj_in", "to_q"]
    spec = AdapterSpec(rank=2, alpha=3, layout="comfyui", targets=[*kinds, "to_out.0"])
    adapter = Lora(spec)
    adapter.attach(denoiser)
    torch.manual_seed(9)
    with torch.no_grad():
        for weight in denoiser.module.parameters():
            if weight.requires_grad:
                weight.normal_(0, 0.1)
    path = adapter.write(tmp_path, denoiser, step=1)
    found = {key.split(".")[0] for key in load_file(path)}
    ours = {name.replace(".", "_") for name, _ in lora_layers(denoiser.module)}
    assert ours >= NAMES.keys()
    assert len(found) == len(ours)
    assert found >= {f"lora_unet_{name}" for name in NAMES.values()}
    assert not any("resnets" in name or "attentions" in name for name in found)
    noise = starting_noise(2, denoiser.latent_shape, seed=5)
    ours = denoise(denoiser, PROMPTS, noise, ValidationSpec(sampler_steps=2, guidance=3))
    stock.load_lora_weights(tmp_path)
    theirs = TINY["sdxl"].sample(stock, PROMPTS, noise, 2, 3.0)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
