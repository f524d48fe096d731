"""What the contract does not say of ``wan_i2v``: which picture counts, and which bases do."""

import json
import shutil

import numpy as np
import pytest
import torch
from fixtures.tiny import TINY
from fixtures.tiny.wan_i2v import picture
from PIL import Image

from st_shared.spec import ModelSpec, PromptSpec, TrainingSpec, ValidationSpec
from st_trainer.batch import draw_batch
from st_trainer.caching.encodings import Kind, every_key, key_of
from st_trainer.data import videos
from st_trainer.data.content import Content
from st_trainer.data.images import Images
from st_trainer.data.medium import UnreadableSampleError
from st_trainer.data.reading import read_datasets
from st_trainer.data.videos import Videos
from st_trainer.errors import BadDataError, BadSpecError
from st_trainer.families.first_frame import FIRST_FRAME, IMAGE, Beginning, from_picture, told_of
from st_trainer.families.registry import REGISTRY
from st_trainer.recordings import write_video
from st_trainer.sampling import draw_prompts
from st_trainer.session import Session
from st_trainer.weights import load_base, open_denoiser

MEDIUM = Videos(5, 16, 32, 8.0)


@pytest.fixture
def clips(tmp_path):
    """Three noisy clips with captions, and a picture that each might begin with."""
    folder, generator = tmp_path / "clips", np.random.default_rng(3)
    (folder / "begins").mkdir(parents=True)
    for index in range(3):
        frames = generator.integers(0, 256, (3, 5, 16, 32), np.uint8)
        write_video(folder / f"{index}.mp4", frames, 8)
        picture(index).save(folder / f"begins/{index}.png")
        (folder / f"{index}.txt").write_text("noise")
    return folder


def read(clips, medium=MEDIUM, kept_bytes=2**20, **dataset):
    model = {"family": "wan_i2v", "base": "b", "config": TINY["wan_i2v"].config}
    document = {"model": model, "datasets": [{"path": str(clips)} | dataset]}
    spec = TrainingSpec.model_validate(document)
    return read_datasets(spec.datasets, [clips], medium, kept_bytes).samples


def test_a_clip_begins_with_its_first_frame(clips):
    samples = read(clips)
    first = (samples.values([0, 2])[:, :, 0] + 1) / 2
    torch.testing.assert_close(samples.first_frames([0, 2]), first, atol=1e-6, rtol=0)


def test_no_other_frame_is_made_for_it(clips, monkeypatch):
    """Where nothing was kept of what was read for the index."""
    whole, samples = read(clips).first_frames([0, 1]), read(clips, kept_bytes=0)
    made, own = [], videos._pixels
    monkeypatch.setattr(videos, "_pixels", lambda *given: made.append(given) or own(*given))
    assert torch.equal(samples.first_frames([0, 1]), whole)
    assert len(made) == 2
    (clips / "1.mp4").write_bytes(b"torn")
    with pytest.raises(BadDataError, match=r"1\.mp4 changed during the run: damaged video"):
        samples.first_frames([0, 1])


def test_samples_of_other_kinds_have_no_frames(clips):
    with pytest.raises(UnreadableSampleError, match="images have no frames"):
        Images(3, 16, 16).first_frame(Content.of_file(clips / "begins/0.png"))


def test_or_with_the_picture_of_a_conditioning_set(clips):
    found = read(clips, conditioning="begins").first_frames([1, 0])
    expected = [torch.from_numpy(np.array(picture(n))).permute(2, 0, 1) for n in (1, 0)]
    assert torch.equal(found, torch.stack(expected).float() / 255)


@pytest.mark.parametrize("dataset", [{}, {"conditioning": "begins"}])
def test_keys_are_those_of_the_picture_and_of_the_length(clips, dataset):
    samples = read(clips, **dataset)
    every = {kind: list(every_key(kind, samples)) for kind in Kind if kind is not Kind.TEXT}
    for kind, keys in every.items():
        assert key_of(kind, samples, [2, 0]) == [keys[2], keys[0]]
    assert not set(every[Kind.IMAGES]) & set(every[Kind.FIRST_FRAMES])
    assert every[Kind.IMAGES] == every[Kind.CONTROL if dataset else Kind.LATENTS]
    shorter = read(clips, Videos(1, 16, 32, 8.0), **dataset)
    assert list(every_key(Kind.FIRST_FRAMES, shorter)) != every[Kind.FIRST_FRAMES]
    assert (list(every_key(Kind.IMAGES, shorter)) == every[Kind.IMAGES]) is bool(dataset)
    picture(9).save(clips / "begins/1.png")
    after = list(every_key(Kind.IMAGES, read(clips, **dataset)))
    changed = [old != new for old, new in zip(every[Kind.IMAGES], after, strict=True)]
    assert changed == [False, bool(dataset), False]


def test_pictures_are_for_families_that_go_on_from_them():
    document = {"model": {"family": "wan_i2v", "base": "b"}, "datasets": [{"path": "x"}]}
    own = {"prompts": [{"prompt": "a", "conditioning": "a.png"}, "b"], "conditioning": ["b.png"]}
    TrainingSpec.model_validate(document | {"validation": own})
    for prompts in (["a"], [{"prompt": "a", "conditioning": "a.png"}, "b"]):
        with pytest.raises(ValueError, match="has 0 pictures for 1 prompts: give one each"):
            TrainingSpec.model_validate(document | {"validation": {"prompts": prompts}})
    text = document | {"model": {"family": "wan", "base": "b"}, "validation": own}
    with pytest.raises(ValueError, match="by one whose videos go on from them, alone"):
        TrainingSpec.model_validate(text)
    with pytest.raises(ValueError, match="wan_i2v has none: choose another"):
        TrainingSpec.model_validate(document | {"adapter": {"kind": "controlnet"}})


def test_other_families_go_on_from_none():
    with pytest.raises(TypeError, match="wan goes on from no picture"):
        from_picture(REGISTRY["wan"])


@pytest.fixture
def session_of(base_folder, clips):
    def make(**dataset):
        model = {
            "family": "wan_i2v",
            "base": str(base_folder("wan_i2v")),
            "config": TINY["wan_i2v"].config,
        }
        document = {"model": model, "datasets": [{"path": str(clips)} | dataset]}
        spec = TrainingSpec.model_validate(document)
        samples = read_datasets(spec.datasets, [clips], MEDIUM).samples
        return Session(spec, samples, open_denoiser(spec, list))

    return make


@pytest.mark.families
@pytest.mark.parametrize("dataset", [{}, {"conditioning": "begins"}])
def test_a_batch_is_told_of_the_pictures_of_its_samples(session_of, dataset, load_tiny):
    session = session_of(**dataset)
    found = draw_batch(session, [2, 0]).condition
    given = Beginning(session.samples.first_frames([2, 0]), 5)
    expected = told_of(load_tiny("wan_i2v"), given)
    assert found.keys() == {"text", IMAGE, FIRST_FRAME}
    for name in (IMAGE, FIRST_FRAME):
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(found[name][0], found[name][1])


@pytest.mark.families
def test_a_prompt_is_drawn_from_its_picture_at_the_size_of_the_video(load_tiny, tmp_path):
    """The picture counts, not how large it is; one prompt's is not another's."""
    denoiser, paths = load_tiny("wan_i2v"), []
    for index in range(2):
        paths.append(tmp_path / f"{index}.png")
        picture(index).resize((64, 32), Image.Resampling.NEAREST).save(paths[-1])
    prompts = [PromptSpec(prompt="a", seed=1, conditioning=str(path)) for path in paths]
    settings = ValidationSpec(sampler_steps=2)
    first, second = draw_prompts(denoiser, prompts, settings)
    [alone] = draw_prompts(denoiser, prompts[1:], settings)
    assert torch.equal(second, alone)
    assert not torch.equal(first, second)
    [wide] = draw_prompts(denoiser, prompts[:1], settings, (32, 32))
    assert wide.shape == (3, 5, 32, 32)


def changed_base(base_folder, tmp_path, **options):
    from diffusers import WanTransformer3DModel

    folder = tmp_path / "other"
    shutil.copytree(base_folder("wan_i2v"), folder)
    config = json.loads((folder / "transformer/config.json").read_text())
    WanTransformer3DModel.from_config(config | options).save_pretrained(folder / "transformer")
    return ModelSpec(family="wan_i2v", base=str(folder), config=TINY["wan_i2v"].config)


@pytest.mark.families
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"in_channels": 4}, "takes 4 channels and an image, but .* takes 12 and an image: give"),
        ({"image_dim": None, "added_kv_proj_dim": None}, "takes 12 channels and no image, but"),
        ({"pos_embed_seq_len": 20}, "also wants the last frame, which is not supported"),
    ],
)  # fmt: skip
def test_a_base_that_is_told_of_other_things_is_refused(base_folder, tmp_path, options, said):
    with pytest.raises(BadSpecError, match=said):
        load_base(changed_base(base_folder, tmp_path, **options))


@pytest.mark.families
def test_text_to_video_takes_no_such_base(base_folder):
    config = TINY["wan"].config
    with pytest.raises(BadSpecError, match=r"its VAE gives 4: .* or use family wan_i2v"):
        load_base(ModelSpec(family="wan", base=str(base_folder("wan_i2v")), config=config))
