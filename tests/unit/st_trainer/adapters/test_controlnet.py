"""ControlNets of every family that has them, against the stock pipelines that users run them in."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fixtures.tiny import TINY
from PIL import Image
from safetensors.torch import load_file

from st_shared.spec import FAMILIES as CATALOGUE
from st_shared.spec import AdapterSpec, TrainingSpec
from st_trainer.adapters.adapter import trained
from st_trainer.adapters.controlnet import ControlNet
from st_trainer.adapters.lora import LORA_NAME
from st_trainer.batch import draw_batch
from st_trainer.data.images import Images
from st_trainer.data.reading import read_datasets
from st_trainer.errors import BadDataError, BadSpecError
from st_trainer.families.components import class_named
from st_trainer.families.registry import REGISTRY
from st_trainer.journal import Journal
from st_trainer.loop import batch_loss
from st_trainer.run import run_training
from st_trainer.sampling import denoise, pictures, starting_noise
from st_trainer.session import Session
from st_trainer.validation.prompts import placed
from st_trainer.weights import open_denoiser

PIPELINES = {
    "sd1": ("StableDiffusionControlNetPipeline", "image"),
    "sdxl": ("StableDiffusionXLControlNetPipeline", "image"),
    "sd3": ("StableDiffusion3ControlNetPipeline", "control_image"),
    "flux": ("FluxControlNetPipeline", "control_image"),
}
FAMILIES = [
    name if name == "sd1" else pytest.param(name, marks=pytest.mark.families) for name in PIPELINES
]
pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")

NEW_LAYERS = ("controlnet.controlnet_", "controlnet.pos_embed_input")
_LAST = "controlnet.transformer_blocks.0"
IDLE = {
    "sd3": {
        f"{_LAST}.{name}.{end}"
        for name in (
            "attn.add_q_proj", "attn.to_add_out", "ff_context.net.0.proj", "ff_context.net.2",
        )
        for end in ("weight", "bias")
    } | {f"{_LAST}.attn.norm_added_q.weight"}
}  # fmt: skip
"""What the last block makes of the text, which nothing reads."""
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
        config = TINY[family].config | {"resolution": 16}
        model = {"family": family, "base": str(base_folder(family)), "config": config}
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
        samples = read_datasets(spec.datasets, [edges.parent], Images(3, 16, 16)).samples
        return Session(spec, samples, open_denoiser(spec, list))

    return make


def woken(session):
    """With random numbers in every weight, so that each changes something."""
    torch.manual_seed(9)
    with torch.no_grad():
        for weight in trained(session.module).values():
            weight.add_(torch.randn_like(weight), alpha=0.1)


def ours(denoiser, noise, settings):
    told = pictures(placed(settings, Path()).prompts, denoiser, denoiser.sample_shape[-2:])
    return denoise(denoiser, PROMPTS, noise, settings, told)


class WithPictures:
    """A stock pipeline that is always told the same pictures."""

    def __init__(self, pipeline, name, pixels):
        vars(self).update(_pipeline=pipeline, _told={name: pixels})

    def __call__(self, *args, **told):
        return self._pipeline(*args, **told, **self._told)

    def __getattr__(self, name):
        return getattr(self._pipeline, name)

    def __setattr__(self, name, value):
        setattr(self._pipeline, name, value)


def stock(family, base_folder, controlnet, edges, noise):
    """Latents that the stock pipeline draws with the ControlNet in a folder."""
    name, argument = PIPELINES[family]
    loaded = class_named(REGISTRY[family].controlnet).from_pretrained(controlnet)
    pipeline = class_named(f"diffusers.{name}").from_pretrained(
        base_folder(family), controlnet=loaded
    )
    pipeline.set_progress_bar_config(disable=True)
    certain(pipeline.vae)
    pixels = [Image.open(edges / f"{index}.png").crop((4, 0, 20, 16)) for index in range(2)]
    return TINY[family].sample(WithPictures(pipeline, argument, pixels), PROMPTS, noise, 3, 3.0)


@torch.no_grad()
def certain(vae):
    """Without spread: stock pipelines draw the latents of a picture, we take the likeliest."""
    if not vae.config.use_quant_conv:
        half = vae.config.latent_channels
        vae.encoder.conv_out.weight[half:] = 0
        vae.encoder.conv_out.bias[half:] = -30


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
    assert learned == trained(session.module).keys()
    assert own - learned == IDLE.get(family, set())
    assert not [name for name, each in trained(session.module).items() if not each.grad.any()]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("adapter", [{}, {"controlnet": {"lora": True}, "rank": 3}], ids=str)
def test_the_stock_pipeline_draws_what_our_validation_draws(
    session_of, family, adapter, base_folder, edges, tmp_path
):
    session = session_of(family, adapter={"kind": "controlnet", **adapter})
    settings = session.spec.validation
    noise = starting_noise(2, session.denoiser.latent_shape, seed=5)
    with session.evaluating() as denoiser:
        before = ours(denoiser, noise, settings)
    woken(session)
    session.module.eval()
    found = ours(session.denoiser.with_module(session.module), noise, settings)
    path = session.adapter.write(tmp_path / "output", session.denoiser, step=1)
    assert path.is_file()
    theirs = stock(family, base_folder, path.parent, edges, noise)
    assert (found - before).abs().max() > 1e-2
    torch.testing.assert_close(found, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_matrices_learn_beside_frozen_copies_of_weights(session_of, family):
    session = session_of(family, adapter={"kind": "controlnet", "controlnet": {"lora": True}})
    woken(session)
    batch_loss(session, [0, 1]).backward()
    learned = {name for name, each in session.module.named_parameters() if each.grad is not None}
    assert learned == trained(session.module).keys()
    kinds = {"lora_" in name or name.startswith(NEW_LAYERS) for name in learned}
    assert kinds == {True}
    assert any("lora_A" in name for name in learned)
    assert any("controlnet.controlnet_" in name for name in learned)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("based", [False, True], ids=["new", "based"])
def test_what_was_trained_alone_makes_a_stock_copy_the_same(session_of, family, based, tmp_path):
    """A small file: matrices, and what a new copy has no original of."""
    controlnet = {"lora": True}
    if based:
        whole = session_of(family)
        controlnet["base"] = str(whole.adapter.write(tmp_path / "base", whole.denoiser, 1).parent)
    adapter = {"kind": "controlnet", "controlnet": controlnet, "rank": 3, "alpha": 5}
    session = session_of(family, adapter=adapter)
    untouched = session.adapter.write(tmp_path / "untouched", session.denoiser, step=0).parent
    woken(session)
    folder = session.adapter.write(tmp_path / "output", session.denoiser, step=1).parent
    small = load_file(folder / LORA_NAME)
    grown = trained(session.module.controlnet)
    assert sum(each.numel() for each in small.values()) == sum(map(torch.numel, grown.values()))
    kind = class_named(REGISTRY[family].controlnet)
    copy, expected = kind.from_pretrained(untouched), kind.from_pretrained(folder)
    copy.load_lora_adapter(folder, weight_name=LORA_NAME, prefix=None)
    copy.fuse_lora()
    copy.unload_lora()
    found = dict(copy.named_parameters())
    for name, weight in expected.named_parameters():
        torch.testing.assert_close(found[name], weight, atol=1e-5, rtol=1e-5)


def test_all_that_from_pretrained_needs_is_announced(control_spec, edges, run_folder):
    told = []
    spec = control_spec(adapter={"kind": "controlnet", "controlnet": {"lora": True}}, steps=1)
    with Journal(run_folder.journal, listener=told.append) as journal:
        run_training(spec, [edges.parent], run_folder, journal, resume="none", stop=lambda: False)
    outputs = [(event.name, event.path) for event in told if event.kind == "output"]
    place = "output/controlnet"
    assert outputs[:3] == [
        ("file", f"{place}/config.json"),
        ("file", f"{place}/{LORA_NAME}"),
        ("weights", f"{place}/diffusion_pytorch_model.safetensors"),
    ]
    assert all((run_folder.root / path).is_file() for _, path in outputs)


def test_one_is_gone_on_from_in_full_or_by_matrices_alone(session_of, tmp_path):
    first = session_of()
    woken(first)
    folder = first.adapter.write(tmp_path / "first", first.denoiser, step=1).parent
    noise = starting_noise(2, first.denoiser.latent_shape, seed=5)
    first.module.eval()
    expected = ours(first.denoiser, noise, first.spec.validation)
    for lora in (False, True):
        controlnet = {"base": str(folder), "lora": lora}
        session = session_of(adapter={"kind": "controlnet", "controlnet": controlnet})
        with session.evaluating() as denoiser:
            found = ours(denoiser, noise, session.spec.validation)
        torch.testing.assert_close(found, expected)
        assert all(("lora_" in name) is lora for name in trained(session.module))


def test_a_base_that_is_none_is_refused(session_of, tmp_path):
    adapter = {"kind": "controlnet", "controlnet": {"base": str(tmp_path)}}
    with pytest.raises(BadSpecError, match=r"adapter\.controlnet\.base: .* cannot be loaded"):
        session_of(adapter=adapter)


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
    samples = read_datasets(spec.datasets, [edges.parent], medium).samples
    session = Session(spec, samples, open_denoiser(spec, list))
    batch = draw_batch(session, [0, 1])
    read = (2, 3, 16, 24) if family in {"sd1", "sdxl"} else batch.clean.shape
    assert batch.condition["control"].shape == read
    assert batch.clean.shape[2:] == (8, 12)
    woken(session)
    batch_loss(session, [0, 1]).backward()
    assert all(each.grad.any() for each in trained(session.module).values())


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight:UserWarning")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lora", [False, True])
def test_half_precision_trains_the_copy_in_fp32_and_draws(session_of, family, lora):
    adapter = {"kind": "controlnet", "controlnet": {"lora": lora}}
    session = session_of(family, precision="bf16", adapter=adapter)
    batch_loss(session, [0, 1]).backward()
    assert {each.dtype for each in trained(session.module).values()} == {torch.float32}
    assert session.denoiser.dtype == torch.bfloat16
    noise = starting_noise(2, session.denoiser.latent_shape, seed=5)
    with session.evaluating() as denoiser:
        assert ours(denoiser, noise, session.spec.validation).isfinite().all()


def test_a_missing_picture_leaves_the_sample_out(control_spec, edges):
    (edges / "0.png").unlink()
    reading = read_datasets(control_spec().datasets, [edges.parent], Images(3, 16, 16))
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


def test_pictures_of_a_registered_dataset_are_found_wherever_it_lies(
    control_spec, edges, run_folder, trainer_journal, tmp_path
):
    """Both kinds come with the folder that was pushed; a resumed run may find it elsewhere."""
    settings = {"prompts": ["a cat"], "conditioning": ["edges/0.png"], "sampler_steps": 1}
    spec = control_spec(
        datasets=[{"name": "houses", "conditioning": "edges"}],
        validation=settings,
        checkpoint={"every": 1},
    )

    def after_one_step():
        return run_folder.checkpoints.joinpath("step-000001").exists()

    def train(place, resume, stop):
        run_training(spec, [place], run_folder, trainer_journal, resume=resume, stop=stop)

    train(edges.parent, "none", after_one_step)
    elsewhere = edges.parent.rename(tmp_path / "elsewhere")
    train(elsewhere, "latest", lambda: False)
    assert run_folder.sample(2).exists()


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
        ({"datasets": [WITH], "model": {"family": "pixart", "base": "b"}}, "pixart has none"),
        ({"datasets": [WITH], "adapter": {**KIND, "rank": 4}}, "rank means nothing"),
        ({"datasets": [WITH], "steps": 0}, "steps is 0, which draws with the base alone"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_loaded(changes, said):
    document = {"model": {"family": "sd1", "base": "b"}, "adapter": KIND} | changes
    with pytest.raises(ValueError, match=said):
        TrainingSpec.model_validate(document)


def test_a_family_without_one_is_refused(load_tiny):
    denoiser = replace(load_tiny("sd1"), family=REGISTRY["pixart"])
    with pytest.raises(BadSpecError, match="pixart has no ControlNet"):
        ControlNet(AdapterSpec(kind="controlnet")).attach(denoiser)


def test_the_catalogue_says_which_families_have_one():
    coded = {name for name, code in REGISTRY.items() if getattr(code, "controlnet", None)}
    assert coded == {name for name, family in CATALOGUE.items() if family.has_controlnet}
