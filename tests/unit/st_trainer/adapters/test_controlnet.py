"""ControlNets of ``sd1`` and ``sdxl``, against the stock pipelines that users run them in."""

from dataclasses import replace

import pytest
import torch
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionXLControlNetPipeline,
)
from PIL import Image

from st_shared.spec import FAMILIES as CATALOGUE
from st_shared.spec import AdapterSpec, TrainingSpec
from st_trainer.adapters.adapter import trained
from st_trainer.adapters.controlnet import ControlNet
from st_trainer.batch import draw_batch
from st_trainer.data.folder import read_folders
from st_trainer.data.images import Images
from st_trainer.errors import BadDataError, BadSpecError
from st_trainer.families.registry import REGISTRY
from st_trainer.loop import batch_loss
from st_trainer.run import run_training
from st_trainer.sampling import denoise, pictures, starting_noise
from st_trainer.session import Session
from st_trainer.weights import open_denoiser

PIPELINES = {
    "sd1": StableDiffusionControlNetPipeline,
    "sdxl": StableDiffusionXLControlNetPipeline,
}
FAMILIES = ["sd1", pytest.param("sdxl", marks=pytest.mark.families)]
PROMPTS = ["a cat", "two red houses by the sea"]


@pytest.fixture
def edges(tmp_path):
    """Two pictures with captions, and what a ControlNet reads, in a folder among them."""
    (tmp_path / "pictures/edges").mkdir(parents=True)
    for index in range(2):
        name = f"{index}.png"
        Image.new("RGB", (24, 16), (200 * index, 90, 200)).save(tmp_path / "pictures" / name)
        edge = Image.linear_gradient("L").resize((24, 16)).rotate(90 * index)
        edge.convert("RGB").save(tmp_path / "pictures/edges" / name)
        (tmp_path / f"pictures/{index}.txt").write_text(f"colour {index}")
    return tmp_path / "pictures/edges"


@pytest.fixture
def control_spec(base_folder, edges):
    def make(family="sd1", **changes):
        model = {"family": family, "base": str(base_folder(family)), "config": {"resolution": 16}}
        conditioning = [str(edges / f"{index}.png") for index in range(2)]
        validation = {"sampler_steps": 3, "guidance": 3}
        document = {
            "model": model,
            "datasets": [{"path": str(edges.parent), "conditioning": "edges"}],
            "adapter": {"kind": "controlnet"},
            "steps": 2,
            "batch_size": 2,
            "validation": validation | {"prompts": PROMPTS, "conditioning": conditioning},
        }
        return TrainingSpec.model_validate(document | changes)

    return make


@pytest.fixture
def session_of(control_spec, edges):
    def make(family="sd1", **changes):
        spec = control_spec(family, **changes)
        samples = read_folders(spec.datasets, [edges.parent], Images(3, 16, 16)).samples
        return Session(spec, samples, open_denoiser(spec, list))

    return make


def woken(session):
    """With random numbers in every weight, so that each changes something."""
    torch.manual_seed(9)
    with torch.no_grad():
        for weight in trained(session.module).values():
            weight.add_(torch.randn_like(weight), alpha=0.1)


def ours(denoiser, noise, settings):
    told = pictures(settings, denoiser.sample_shape)
    return denoise(denoiser, PROMPTS, noise, settings, told)


@pytest.mark.parametrize("family", FAMILIES)
def test_at_first_it_changes_nothing_and_only_its_own_weights_learn(session_of, family, load_tiny):
    session = session_of(family)
    batch = draw_batch(session, [0, 1])
    without = {name: each for name, each in batch.condition.items() if name != "control"}
    with torch.no_grad():
        expected = load_tiny(family).predict(batch.noisy, batch.times, without)
        found = session.denoiser.predict(batch.noisy, batch.times, batch.condition)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    woken(session)
    batch_loss(session, [0, 1]).backward()
    learned = {name for name, each in session.module.named_parameters() if each.grad is not None}
    own = {name for name, _ in session.module.named_parameters() if name.startswith("controlnet.")}
    assert learned == own == trained(session.module).keys()
    assert all(each.grad.any() for each in trained(session.module).values())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_stock_pipeline_draws_what_our_validation_draws(
    session_of, family, base_folder, edges, tmp_path
):
    session = session_of(family)
    settings = session.spec.validation
    noise = starting_noise(2, session.denoiser.latent_shape, seed=5)
    with session.evaluating() as denoiser:
        before = ours(denoiser, noise, settings)
    woken(session)
    session.module.eval()
    found = ours(session.denoiser.with_module(session.module), noise, settings)
    path = session.adapter.write(tmp_path / "output", session.denoiser, step=1)
    assert path.is_file()
    stock = PIPELINES[family].from_pretrained(
        base_folder(family), controlnet=ControlNetModel.from_pretrained(path.parent)
    )
    stock.set_progress_bar_config(disable=True)
    stock.scheduler = DDIMScheduler.from_config(
        stock.scheduler.config, clip_sample=False, set_alpha_to_one=True
    )
    pixels = [Image.open(edges / f"{index}.png").crop((4, 0, 20, 16)) for index in range(2)]
    theirs = stock(
        PROMPTS, image=pixels, latents=noise, num_inference_steps=3, guidance_scale=3.0,
        height=16, width=16, output_type="latent",
    ).images  # fmt: skip
    assert (found - before).abs().max() > 1e-2
    torch.testing.assert_close(found, theirs, atol=1e-4, rtol=1e-4)


def test_each_sample_comes_with_its_own_picture(session_of, edges):
    control = draw_batch(session_of(), [1, 0]).condition["control"]
    for row, index in zip(control, (1, 0), strict=True):
        grey = Image.open(edges / f"{index}.png").crop((4, 0, 20, 16)).convert("L")
        expected = torch.tensor(list(grey.tobytes())).view(16, 16) / 255
        torch.testing.assert_close(row, expected.expand(3, 16, 16))
    assert not torch.equal(control[0], control[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_in_buckets_pictures_and_images_have_one_aspect(control_spec, edges, family):
    spec = control_spec(family)
    medium = Images(3, 16, 16, buckets=((16, 16), (16, 24)))
    samples = read_folders(spec.datasets, [edges.parent], medium).samples
    session = Session(spec, samples, open_denoiser(spec, list))
    batch = draw_batch(session, [0, 1])
    assert (batch.condition["control"].shape, batch.clean.shape) == ((2, 3, 16, 24), (2, 4, 8, 12))
    woken(session)
    batch_loss(session, [0, 1]).backward()
    assert all(each.grad.any() for each in trained(session.module).values())


def test_half_precision_trains_the_copy_in_fp32_and_draws(session_of):
    session = session_of(precision="bf16")
    batch_loss(session, [0, 1]).backward()
    assert {each.dtype for each in trained(session.module).values()} == {torch.float32}
    assert session.module.conv_in.weight.dtype == torch.bfloat16
    noise = starting_noise(2, session.denoiser.latent_shape, seed=5)
    with session.evaluating() as denoiser:
        assert ours(denoiser, noise, session.spec.validation).isfinite().all()


def test_a_missing_picture_leaves_the_sample_out(control_spec, edges):
    (edges / "0.png").unlink()
    reading = read_folders(control_spec().datasets, [edges.parent], Images(3, 16, 16))
    assert [remark.name for remark in reading.skipped] == ["0.png"]
    assert "no conditioning picture" in reading.skipped[0].text


def test_a_picture_to_draw_with_that_is_missing_is_told_before_training(
    control_spec, edges, run_folder, trainer_journal
):
    spec = control_spec(
        validation={"prompts": ["a cat"], "conditioning": ["absent.png"], "sampler_steps": 1}
    )
    with pytest.raises(BadDataError, match=r"absent\.png cannot be read"):
        run_training(
            spec, [edges.parent], run_folder, trainer_journal, resume="none", stop=lambda: False
        )


def test_prior_regularisation_is_refused(session_of, edges):
    datasets = [{"path": str(edges.parent), "conditioning": "edges", "regularisation": True}]
    with pytest.raises(BadSpecError, match=r"drop datasets\.regularisation"):
        session_of(datasets=datasets)


WITH = {"path": "pictures", "conditioning": "edges"}
WITHOUT = {"path": "pictures"}
KIND = {"kind": "controlnet"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"datasets": [WITH], "adapter": {}}, "give adapter.kind controlnet, or drop"),
        ({"datasets": [WITH, WITHOUT]}, r"datasets\.1\.conditioning is missing"),
        ({"datasets": [WITH], "validation": {"prompts": ["a"]}}, "has 0 pictures for 1 prompts"),
        ({"datasets": [WITH], "model": {"family": "flux", "base": "b"}}, "but flux has none"),
        ({"datasets": [WITH], "adapter": {**KIND, "rank": 4}}, "rank means nothing"),
        ({"datasets": [WITH], "steps": 0}, "steps is 0, which draws with the base alone"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_loaded(changes, said):
    document = {"model": {"family": "sd1", "base": "b"}, "adapter": KIND} | changes
    with pytest.raises(ValueError, match=said):
        TrainingSpec.model_validate(document)


def test_a_family_without_one_is_refused(load_tiny):
    denoiser = replace(load_tiny("sd1"), family=REGISTRY["flux"])
    with pytest.raises(BadSpecError, match="flux has no ControlNet"):
        ControlNet(AdapterSpec(kind="controlnet")).attach(denoiser)


def test_the_catalogue_says_which_families_have_one():
    coded = {name for name, code in REGISTRY.items() if getattr(code, "controlnet", None)}
    assert coded == {name for name, family in CATALOGUE.items() if family.has_controlnet}
