"""LoRA on text encoders, as the stock pipelines read it."""

import pytest
import torch
from fixtures.tiny import FAST, TINY
from PIL import Image
from safetensors.torch import load_file

from st_shared.spec import FAMILIES, AdapterSpec, TrainingSpec, ValidationSpec
from st_trainer.adapters.adapter import trained
from st_trainer.adapters.lora import Lora
from st_trainer.batch import draw_batch
from st_trainer.data.images import Images
from st_trainer.data.reading import read_datasets
from st_trainer.errors import BadSpecError
from st_trainer.families.components import class_named
from st_trainer.families.registry import REGISTRY
from st_trainer.loop import batch_loss, step
from st_trainer.sampling import denoise, starting_noise
from st_trainer.session import Session
from st_trainer.techniques.prior_regularisation import PriorRegularisation
from st_trainer.weights import open_denoiser

PROMPTS = ["a cat", "two red houses by the sea"]
PREFIXES = {
    ("sd1", "diffusers"): {"unet", "text_encoder"},
    ("sd1", "comfyui"): {"lora_unet", "lora_te"},
    ("sdxl", "diffusers"): {"unet", "text_encoder", "text_encoder_2"},
    ("sdxl", "comfyui"): {"lora_unet", "lora_te1", "lora_te2"},
    ("sd3", "diffusers"): {"transformer", "text_encoder", "text_encoder_2"},
    ("sd3", "comfyui"): {"transformer", "text_encoder", "text_encoder_2"},
    ("flux", "diffusers"): {"transformer", "text_encoder"},
    ("flux", "comfyui"): {"transformer", "text_encoder"},
    ("kontext", "diffusers"): {"transformer", "text_encoder"},
}
FUSED = {
    "sd3": {"lora_unet", "lora_te1", "lora_te2"},
    "flux": {"lora_unet", "lora_te1"},
    "kontext": {"lora_unet", "lora_te1"},
}
LAYOUTS = [
    (name, layout) if name in FAST else pytest.param(name, layout, marks=pytest.mark.families)
    for name, layout in PREFIXES
]


def woken(adapter, denoiser):
    """Attached, with random numbers in every matrix, so that it changes something."""
    adapter.attach(denoiser)
    torch.manual_seed(9)
    with torch.no_grad():
        for weight in trained(denoiser.module).values():
            weight.normal_(0, 0.3)
    denoiser.module.eval()
    return adapter


def ours(denoiser, noise):
    settings = ValidationSpec(sampler_steps=3, guidance=3)
    return denoise(denoiser, PROMPTS, noise, settings, TINY[denoiser.family.name].told(denoiser))


def prefix_of(key):
    if key.startswith("lora_"):
        return "_".join(key.split("_")[:2])
    return key.partition(".")[0]


@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
def test_the_stock_pipeline_reads_as_ours_does(name, layout, load_tiny, base_folder, tmp_path):
    denoiser = load_tiny(name)
    noise = starting_noise(2, denoiser.latent_shape, seed=5)
    before = denoiser.encode(PROMPTS)
    spec = AdapterSpec(rank=4, alpha=6, layout=layout, text_encoder=True)
    adapter = woken(Lora(spec), denoiser)
    after = denoiser.encode(PROMPTS)
    changed = {key for key in before if not torch.allclose(after[key], before[key], atol=1e-2)}
    assert changed == {"pooled"} if name in {"flux", "kontext"} else {"text", "pooled"} & set(after)
    path = adapter.write(tmp_path, denoiser, step=1)
    assert {prefix_of(key) for key in load_file(path)} == PREFIXES[name, layout]
    stock = class_named(REGISTRY[name].pipeline).from_pretrained(base_folder(name))
    stock.set_progress_bar_config(disable=True)
    stock.load_lora_weights(tmp_path)
    theirs = TINY[name].sample(stock, PROMPTS, noise, 3, 3.0)
    torch.testing.assert_close(ours(denoiser, noise), theirs, atol=1e-4, rtol=1e-4)
    again = load_tiny(name)
    Lora(AdapterSpec(continue_from=str(path), text_encoder=True)).attach(again)
    torch.testing.assert_close(ours(again, noise), ours(denoiser, noise))


@pytest.mark.parametrize(
    "name",
    [each if each in FAST else pytest.param(each, marks=pytest.mark.families) for each in FUSED],
)
def test_a_file_of_fused_projections_holds_the_encoders_too(name, load_tiny, tmp_path):
    """The stock pipelines know Kohya's files in the sizes of the published models alone."""
    denoiser = load_tiny(name)
    noise = starting_noise(2, denoiser.latent_shape, seed=5)
    spec = AdapterSpec(rank=4, alpha=6, layout="kohya", text_encoder=True)
    path = woken(Lora(spec), denoiser).write(tmp_path, denoiser, step=1)
    assert {prefix_of(key) for key in load_file(path)} == FUSED[name]
    again = load_tiny(name)
    Lora(AdapterSpec(continue_from=str(path), text_encoder=True)).attach(again)
    torch.testing.assert_close(ours(again, noise), ours(denoiser, noise), atol=1e-4, rtol=1e-4)


def test_ranks_of_single_modules_reach_the_stock_pipeline(load_tiny, base_folder, tmp_path):
    denoiser = load_tiny("sd1")
    noise = starting_noise(2, denoiser.latent_shape, seed=5)
    spec = AdapterSpec(rank=4, text_encoder=True, rank_pattern={"q_proj": 2, "to_k": 3})
    woken(Lora(spec), denoiser).write(tmp_path, denoiser, step=1)
    stock = class_named(REGISTRY["sd1"].pipeline).from_pretrained(base_folder("sd1"))
    stock.set_progress_bar_config(disable=True)
    stock.load_lora_weights(tmp_path)
    theirs = TINY["sd1"].sample(stock, PROMPTS, noise, 3, 3.0)
    torch.testing.assert_close(ours(denoiser, noise), theirs, atol=1e-4, rtol=1e-4)


@pytest.fixture
def session_of(base_folder, tmp_path):
    for index in range(2):
        Image.new("RGB", (16, 16), (200 * index, 90, 200)).save(tmp_path / f"{index}.png")
        (tmp_path / f"{index}.txt").write_text(f"colour {index}")

    def make(adapter, **changes):
        model = {"family": "sd1", "base": str(base_folder("sd1")), "config": {"resolution": 16}}
        document = {
            "model": model,
            "datasets": [{"path": str(tmp_path)}],
            "adapter": {"rank": 2, "text_encoder": True, **adapter},
        }
        spec = TrainingSpec.model_validate(document | changes)
        samples = read_datasets(spec.datasets, [tmp_path], Images(3, 16, 16)).samples
        return Session(spec, samples, open_denoiser(spec, list))

    return make


def test_the_encoder_learns_with_a_rate_of_its_own(session_of):
    session = session_of({"text_encoder_learning_rate": 2e-5}, ema={"enabled": False})
    before = {name: each.detach().clone() for name, each in trained(session.module).items()}
    step(session, [0, 1], 1e-4)
    assert [group["lr"] for group in session.optimizer.param_groups] == [1e-4, pytest.approx(2e-5)]
    moved = {
        name: (each - before[name]).abs().max().item()
        for name, each in trained(session.module).items()
        if "lora_B" in name  # the others have no gradient while these are zero
    }
    encoders = {name for name in moved if name.startswith("text_encoder.")}
    assert len(encoders) == 8
    for name, distance in moved.items():  # the first step of Adam is the rate
        assert distance == pytest.approx(2e-5 if name in encoders else 1e-4, rel=0.02)


def test_gradients_reach_every_matrix_of_the_encoder_and_nothing_else_of_it(session_of):
    session = session_of({})
    with torch.no_grad():
        for weight in trained(session.module).values():
            weight.normal_(0, 0.1)
    batch_loss(session, [0, 1]).backward()
    encoder = session.denoiser.assets["text_encoder"]
    learned = {name for name, each in encoder.named_parameters() if each.grad is not None}
    assert learned == {name for name, _ in encoder.named_parameters() if "lora_" in name}
    assert all(each.grad.any() for each in trained(encoder).values())


def test_prior_regularisation_asks_the_encoder_as_it_was(session_of, tmp_path):
    datasets = [{"path": str(tmp_path), "regularisation": True}]
    session = session_of({}, datasets=datasets)
    batch = draw_batch(session, [0, 1])
    with torch.no_grad():
        before = session.denoiser.predict(batch.noisy, batch.times, batch.condition)
        for weight in trained(session.module).values():
            weight.normal_(0, 0.3)
    batch.condition = session.encode(batch.captions, batch.indexes)
    PriorRegularisation().prepare(session, batch)
    torch.testing.assert_close(batch.target, before, atol=1e-5, rtol=1e-5)


def test_a_file_without_encoders_cannot_be_gone_on_from_with_them(load_tiny, tmp_path):
    denoiser = load_tiny("sd1")
    path = woken(Lora(AdapterSpec(rank=2)), denoiser).write(tmp_path, denoiser, step=1)
    spec = AdapterSpec(text_encoder=True, continue_from=str(path))
    with pytest.raises(BadSpecError, match=r"nothing of text_encoder: drop adapter\.text_encoder"):
        Lora(spec).attach(load_tiny("sd1"))


def test_an_optimiser_that_finds_its_rate_takes_no_second_one(session_of):
    with pytest.raises(BadSpecError, match="prodigy finds its rate by itself: drop it"):
        session_of({"text_encoder_learning_rate": 1e-4}, optimizer={"name": "prodigy"})


@pytest.mark.parametrize(
    ("family", "adapter", "said"),
    [
        ("pixart", {"text_encoder": True}, "the text encoders of pixart are not trained"),
        ("sd1", {"text_encoder_learning_rate": 1e-4}, "nothing without adapter.text_encoder"),
        ("sd1", {"kind": "full", "text_encoder": True}, "means nothing for adapter.kind full"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_loaded(family, adapter, said):
    document = {
        "model": {"family": family, "base": "models/base"},
        "datasets": [{"path": "pictures"}],
        "adapter": adapter,
    }
    with pytest.raises(ValueError, match=said):
        TrainingSpec.model_validate(document)


def test_the_catalogue_says_whose_encoders_are_trained():
    coded = {name for name, code in REGISTRY.items() if getattr(code, "text_encoders", {})}
    assert coded == {name for name, family in FAMILIES.items() if family.text_encoder_lora}
