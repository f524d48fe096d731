"""Pictures that videos go on from: encoded once, found again, and anew where anything changed."""

import shutil
import weakref
from collections import Counter

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan
from fixtures.tiny.wan_i2v import picture
from transformers import CLIPImageProcessorPil, CLIPVisionModel
from whole_run import carry_out, final_state

from st_shared.protocol.journal import ExitCode
from st_trainer import run as run_module
from st_trainer.families.pretrained import Pretrained
from st_trainer.families.wan_i2v import WanI2V
from st_trainer.recordings import write_video

from .conftest import said

pytestmark = pytest.mark.families

OFF = {"latents": "off", "images": "off", "text": "off"}
BEFORE = {"latents": "before", "images": "before", "text": "before"}
DEMAND = {"latents": "on_demand", "images": "on_demand", "text": "on_demand"}


@pytest.fixture
def clips(tmp_path):
    folder, generator = tmp_path / "clips", np.random.default_rng(5)
    (folder / "begins").mkdir(parents=True)
    for index in range(3):
        frames = generator.integers(0, 256, (3, 9, 48, 64), np.uint8)
        write_video(folder / f"{index}.mp4", frames, 8)
        picture(index).save(folder / f"begins/{index}.png")
        (folder / f"{index}.txt").write_text("noise")
    picture(8).save(folder / "prompt.png")
    return folder


@pytest.fixture
def i2v(spec_of, clips):
    """A few steps of the tiny ``wan_i2v``; keywords replace keys of the document."""

    def make(cache, dataset=None, **changes):
        prompts = {"prompts": ["noise"], "conditioning": [str(clips / "prompt.png")]}
        validation = prompts | {"every": 3, "sampler_steps": 1}
        where = {"path": str(clips)} | (dataset or {})
        rest = {"batch_size": 1, "validation": validation} | changes
        return spec_of("wan_i2v", cache, where, **rest)

    return make


@pytest.fixture
def encoded(monkeypatch):
    """How many pictures and clips each encoder was given."""
    counts = Counter()

    def counted(kind, name, size):
        own = getattr(kind, name)

        def count(self, assets, given):
            counts[name] += size(given)
            return own(self, assets, given)

        monkeypatch.setattr(kind, name, count)

    counted(WanI2V, "embedded", len)
    counted(WanI2V, "begun", lambda given: len(given.pictures))
    counted(Pretrained, "encoded", len)
    return counts


@pytest.mark.parametrize("dataset", [{}, {"conditioning": "begins"}])
def test_the_same_weights_and_samples_whether_cached_or_not(i2v, tmp_path, cache, dataset):
    for name, caches in {"off": OFF, "before": BEFORE, "demand": DEMAND}.items():
        assert carry_out(i2v(caches, dataset), tmp_path / name) == ExitCode.SUCCEEDED
        shutil.rmtree(cache, ignore_errors=True)
    states = [final_state(tmp_path / name) for name in ("off", "before", "demand")]
    assert states[0] == states[1] == states[2]
    drawn = [tmp_path / n / "samples/step-000003-000.mp4" for n in ("off", "before", "demand")]
    assert len({path.read_bytes() for path in drawn}) == 1


def test_each_picture_is_encoded_once_and_then_found(i2v, tmp_path, cache, encoded):
    carry_out(i2v(BEFORE), tmp_path / "one")
    assert encoded == {"encoded": 3, "embedded": 4, "begun": 4}  # and that of the prompt
    [told] = [text for text in said(tmp_path / "one") if text.startswith("cached ")]
    assert "cached 3 latents, 2 captions, 3 first frames, 3 images in" in told
    carry_out(i2v(BEFORE, steps=4), tmp_path / "two")
    assert encoded == {"encoded": 3, "embedded": 4, "begun": 4}
    without = {"prompts": []}
    carry_out(i2v(OFF, steps=1, validation=without), tmp_path / "off")
    assert encoded == {"encoded": 4, "embedded": 5, "begun": 5}


def test_only_what_changed_is_encoded_again(i2v, tmp_path, cache, encoded, clips, base_folder):
    none = {"validation": {"prompts": []}, "steps": 1}
    here = {"conditioning": "begins"}
    carry_out(i2v(BEFORE, here, **none), tmp_path / "one")
    assert encoded == {"encoded": 3, "embedded": 3, "begun": 3}
    encoded.clear()
    moved = clips.rename(tmp_path / "elsewhere")
    there = here | {"path": str(moved)}
    spec = i2v(BEFORE, there, **none)
    carry_out(spec, tmp_path / "moved")
    assert not encoded
    picture(7).save(moved / "begins/1.png")
    carry_out(spec, tmp_path / "picture")
    assert encoded == {"embedded": 1, "begun": 1}
    encoded.clear()
    longer = spec.model.model_copy(update={"config": spec.model.config | {"frames": 9}})
    carry_out(spec.model_copy(update={"model": longer}), tmp_path / "length")
    assert encoded == {"encoded": 3, "begun": 3}  # CLIP sees no length
    encoded.clear()
    carry_out(i2v(BEFORE, there, buckets={"crop": "corner"}, **none), tmp_path / "crop")
    assert encoded == {"encoded": 3, "embedded": 3, "begun": 3}
    encoded.clear()
    for part, expected in {
        "vae": {"encoded": 3, "begun": 3},
        "image_encoder": {"embedded": 3},
        "image_processor": {"embedded": 3},
    }.items():
        base = with_another(part, base_folder("wan_i2v"), tmp_path)
        other = spec.model.model_copy(update={"base": str(base)})
        carry_out(spec.model_copy(update={"model": other}), tmp_path / part)
        assert encoded == expected
        encoded.clear()


def with_another(part, model, tmp_path):
    base = tmp_path / f"other {part}"
    shutil.copytree(model, base)
    if part == "image_processor":
        processor = CLIPImageProcessorPil.from_pretrained(base / part)
        processor.image_mean = [0.5, 0.5, 0.5]
        processor.save_pretrained(base / part)
        return base
    kind = {"vae": AutoencoderKLWan, "image_encoder": CLIPVisionModel}[part]
    module = kind.from_pretrained(base / part)
    with torch.no_grad():
        next(module.parameters()).view(-1)[0] += 2**-20
    module.save_pretrained(base / part)
    return base


@pytest.mark.parametrize(
    ("kept", "stays"), [("latents", {"vae"}), ("images", {"image_encoder"}), (None, set())]
)
def test_encoders_are_out_of_memory_before_the_first_step(
    i2v, tmp_path, cache, monkeypatch, kept, stays
):
    alive, seen = {}, []
    open_denoiser, train = run_module.open_denoiser, run_module.train

    def opened(*arguments):
        denoiser = open_denoiser(*arguments)
        for name, module in denoiser.assets.modules().items():
            alive[name] = [weakref.ref(module), *map(weakref.ref, module.parameters())]
        return denoiser

    def watched(session, *rest, **named):
        seen.append({name for name, each in alive.items() if any(one() for one in each)})
        assert session.denoiser.assets.modules().keys() == stays
        return train(session, *rest, **named)

    monkeypatch.setattr(run_module, "open_denoiser", opened)
    monkeypatch.setattr(run_module, "train", watched)
    caches = BEFORE | ({kept: "off"} if kept else {})
    assert carry_out(i2v(caches, steps=1), tmp_path / "run") == ExitCode.SUCCEEDED
    assert alive.keys() == {"vae", "text_encoder", "image_encoder"}
    assert seen == [stays]


def test_another_picture_is_another_video(i2v, tmp_path, cache, clips):
    spec = i2v(BEFORE, steps=1)
    carry_out(spec, tmp_path / "one")
    picture(9).save(clips / "prompt.png")
    carry_out(spec, tmp_path / "two")
    carry_out(spec, tmp_path / "three")
    files = [tmp_path / name / "samples/step-000001-000.mp4" for name in ("one", "two", "three")]
    first, second, third = (path.read_bytes() for path in files)
    assert first != second == third
