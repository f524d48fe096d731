"""What is particular to ``kontext``; the contract compares it with the stock pipeline."""

import pytest
import torch
from fixtures.tiny import TINY
from PIL import Image

from st_shared.spec import TrainingSpec, ValidationSpec
from st_shared.spec.validation import PromptSpec
from st_trainer.batch import draw_batch
from st_trainer.data.buckets import nearest
from st_trainer.data.reading import read_datasets
from st_trainer.errors import BadDataError
from st_trainer.families.family import REFERENCE
from st_trainer.families.kontext import reference_sizes
from st_trainer.sampling import draw_prompts, picture_size, starting_noise
from st_trainer.session import Session
from st_trainer.weights import open_denoiser

SETTINGS = ValidationSpec(sampler_steps=2, seed=3)
CONFIG = TINY["kontext"].config


@pytest.fixture
def denoiser(load_tiny):
    return load_tiny("kontext")


@pytest.fixture
def picture(tmp_path):
    """Writes a picture of a size (width, height), other ones for other numbers; gives its path."""

    def make(size, number=0):
        path = tmp_path / f"{size}{number}.png"
        grey = Image.linear_gradient("L").rotate(90 * number).resize(size)
        grey.convert("RGB").save(path)
        return str(path)

    return make


def prompt(picture, **more):
    return PromptSpec(prompt="a cat", seed=7, conditioning=picture, **more)


@pytest.mark.families
def test_without_a_reference_it_is_flux(load_tiny, denoiser):
    flux = load_tiny("flux")
    noise, times = starting_noise(2, flux.latent_shape, seed=1), torch.tensor([0.2, 0.9])
    answers = [each.predict(noise, times, each.encode(["a", "b"])) for each in (flux, denoiser)]
    assert torch.equal(*answers)


@pytest.mark.families
def test_each_prompt_edits_its_own_picture_at_that_ones_aspect(denoiser, picture):
    """Drawn together or alone; prompts whose references have one size go through together."""
    told = [picture((64, 32)), picture((32, 64)), picture((64, 32), 1), picture((40, 40))]
    prompts = [prompt(each) for each in told] + [PromptSpec(prompt="a cat", seed=7)]
    seen, predict = [], denoiser.family.predict

    def spied(module, noisy, times, condition):
        seen.append(tuple(condition[REFERENCE].shape[2:]) if REFERENCE in condition else None)
        return predict(module, noisy, times, condition)

    denoiser.family.predict = spied
    try:
        found = draw_prompts(denoiser, prompts, SETTINGS)
    finally:
        del denoiser.family.predict
    assert seen == [each for each in [(16, 24), (24, 16), (16, 16), None] for _ in range(2)]
    for each, drawn in zip(prompts, found, strict=True):
        [alone] = draw_prompts(denoiser, [each], SETTINGS)
        assert (alone.int() - drawn.int()).abs().max() <= 1
    assert len({each.numpy().tobytes() for each in found}) == len(found)


@pytest.mark.families
def test_the_size_of_the_reference_does_not_follow_that_of_the_sample(denoiser, picture):
    told = prompt(picture((64, 32)))
    sizes = {picture_size(told, denoiser, size) for size in (None, (16, 16), (48, 16))}
    assert sizes == {(32, 48)}


@pytest.mark.families
def test_a_picture_that_is_not_there_is_told(denoiser):
    with pytest.raises(BadDataError, match=r"absent\.png cannot be read"):
        picture_size(prompt("absent.png"), denoiser, None)


@pytest.mark.families
def test_where_tokens_lie_and_what_they_are_counts(denoiser):
    """Two references of as many tokens, of other values, or with rows for columns, differ."""
    torch.manual_seed(0)
    noise, times = starting_noise(1, denoiser.latent_shape, seed=1), torch.tensor([0.5])
    text, latents = denoiser.encode(["a"]), torch.randn(1, 4, 4, 8)
    shown = [latents, latents.view(1, 4, 8, 4), latents + 1]
    answers = [denoiser.predict(noise, times, text | {REFERENCE: each}) for each in shown]
    assert all((answers[0] - each).abs().max() > 1e-3 for each in answers[1:])


@pytest.mark.families
def test_the_sizes_are_those_of_the_stock_pipeline():
    from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS

    found = reference_sizes(1024)
    assert sorted((width, height) for height, width in found) == sorted(
        PREFERRED_KONTEXT_RESOLUTIONS
    )


@pytest.mark.parametrize("resolution", [16, 48, 512, 768, 1024, 4096])
def test_in_another_resolution_sizes_have_its_area_and_fit_the_network(resolution):
    sizes = reference_sizes(resolution)
    assert sizes[0] == (resolution, resolution)
    assert {(width, height) for height, width in sizes} == set(sizes)
    assert all(side % 16 == 0 and side >= 16 for size in sizes for side in size)
    if resolution >= 512:
        areas = [height * width / resolution**2 for height, width in sizes]
        assert 0.95 < min(areas) <= max(areas) < 1.05
        assert nearest(sizes, 100, 225)[1] > 2 * nearest(sizes, 100, 225)[0]


@pytest.mark.families
def test_each_sample_comes_with_its_own_reference_held_out_ones_too(base_folder, tmp_path):
    document = {
        "model": {"family": "kontext", "base": str(base_folder("kontext")), "config": CONFIG},
        "datasets": [{"path": str(tmp_path), "conditioning": ".before.png"}],
        "cache": {"latents": "off", "text": "off"},
    }
    spec = TrainingSpec.model_validate(document)
    denoiser, read = open_denoiser(spec, list), []
    for folder in (tmp_path / "trained on", tmp_path / "held out"):
        folder.mkdir()
        for index in range(2):
            shade = (100 * len(read), 200 * index, 9)
            Image.new("RGB", (16, 16), shade).save(folder / f"{index}.png")
            Image.new("RGB", (32, 32), shade[::-1]).save(folder / f"{index}.before.png")
            (folder / f"{index}.txt").write_text("a")
        read.append(read_datasets(spec.datasets, [folder], denoiser.medium).samples)
    session = Session(spec, read[0], denoiser, held_out=read[1])
    shown = [denoiser.control(each.conditioning([0, 1])) for each in read]
    found = draw_batch(session, [1, 0]).condition[REFERENCE]
    torch.testing.assert_close(found, shown[0].flip(0))
    found = session.encode(["a", "a"], [0, 1], read[1])[REFERENCE]
    torch.testing.assert_close(found, shown[1])
    every = torch.cat(shown).flatten(1)
    assert torch.pdist(every).min() > 1e-2


DATASET = {"path": "a", "conditioning": "before"}
DRAWN = {"prompts": ["a", "b"], "conditioning": ["1.png"]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"datasets": [{"path": "a"}]}, r"datasets\.0\.conditioning is missing: .* kontext reads"),
        ({"validation": DRAWN}, "validation.conditioning has 1 pictures for 2 prompts"),
        ({"adapter": {"kind": "controlnet"}}, "adapter.kind is controlnet, but kontext has none"),
        ({"steps": 0, "datasets": [], "validation": {"prompts": ["a"]}}, "has 0 pictures for 1"),
        (
            {"config": {"reference_resolution": 40}},
            r"reference_resolution\s+Input should be a multiple of 16",
        ),
        ({"distributed": {"context_parallel": 2}}, "does not cut the tokens of references"),
        ({"family": "flux"}, "by a family that edits pictures, and"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_loaded(changes, said):
    names = {"family": "kontext", "config": {}}
    model = {"base": "b"} | {name: changes.pop(name, usual) for name, usual in names.items()}
    document = {"model": model, "datasets": [DATASET]} | changes
    with pytest.raises(ValueError, match=said):
        TrainingSpec.model_validate(document)


def test_tiny_references_have_another_aspect_than_what_is_drawn():
    """Else the contract would not see rows and columns mixed up."""
    shape = TINY["kontext"].references.shape
    assert shape[2] != shape[3]
