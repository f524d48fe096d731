"""Runs with and without caches learn the same, and encoders work once."""

import shutil
import weakref
from collections import Counter
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from transformers import CLIPTextModel
from whole_run import carry_out, final_state

from st_shared.protocol.journal import ExitCode
from st_trainer import run as run_module
from st_trainer.families.kontext import Kontext
from st_trainer.families.parts import module_bytes
from st_trainer.families.pretrained import Pretrained
from st_trainer.families.sd1 import Sd1
from st_trainer.journal import Journal
from st_trainer.run import run_training
from st_trainer.run_folder import RunFolder

from .conftest import events, said

OFF = {"latents": "off", "text": "off"}
DEMAND = {"latents": "on_demand", "text": "on_demand"}
BEFORE = {"latents": "before", "text": "before"}


@pytest.fixture
def encoded(monkeypatch):
    """How many samples and captions encoders were given."""
    counts = Counter()
    latents, text = Pretrained.encoded, Sd1.encode

    def count_latents(self, assets, samples):
        counts["latents"] += len(samples)
        return latents(self, assets, samples)

    def count_text(self, config, assets, captions):
        counts["text"] += len(captions)
        return text(self, config, assets, captions)

    monkeypatch.setattr(Pretrained, "encoded", count_latents)
    monkeypatch.setattr(Sd1, "encode", count_text)
    return counts


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": {"captions": {"lines": "each", "dropout": 0.5}, "mask_suffix": ".mask.png",
                     "slider_strength": -1.0}},
        {"dataset": {"captions": {"lines": "each", "shuffle": True, "separator": " "},
                     "regularisation": True}},
        {"memory": {"quantization": {"text_encoders": "int8"}},
         "validation": {"prompts": ["a", "b"], "every": 3, "sampler_steps": 1}},
        {"family": "flux", "adapter": {"kind": "controlnet"},
         "dataset": {"conditioning": "edges", "captions": {"source": "name"}}},
        pytest.param({"family": "sdxl"}, marks=pytest.mark.families),
        pytest.param({"family": "kontext"}, marks=pytest.mark.families),
    ],
    ids=["captions, dropout, masks and slider", "shuffled captions and regularisation",
         "text encoders in fewer bits",
         "ControlNet on latents", "sdxl", "references"],
)  # fmt: skip
def test_the_same_weights_whether_cached_or_not(spec_of, tmp_path, cache, changes):
    is_shuffled = "shuffle" in changes.get("dataset", {}).get("captions", {})
    cached = {"latents": "before", "text": "on_demand"} if is_shuffled else BEFORE
    for name, caches in {"off": OFF, "cached": cached}.items():
        code = carry_out(spec_of(cache=caches, **changes), tmp_path / name)
        assert code == ExitCode.SUCCEEDED
        assert cache.exists() is (name == "cached")
    assert final_state(tmp_path / "cached") == final_state(tmp_path / "off")


def test_on_demand_the_weights_and_samples_are_the_same(spec_of, tmp_path, cache, encoded):
    validation = {"prompts": ["red noise", "blue"], "every": 3, "sampler_steps": 2}
    for name, caches in {"off": OFF, "on demand": DEMAND, "found": DEMAND}.items():
        encoded.clear()
        carry_out(spec_of(cache=caches, validation=validation), tmp_path / name)
    assert not encoded
    states = [final_state(tmp_path / name) for name in ("off", "on demand", "found")]
    assert states[0] == states[1] == states[2]
    drawn = [Path(tmp_path, n, "samples", "step-000003.png") for n in ("off", "on demand", "found")]
    assert len({path.read_bytes() for path in drawn}) == 1


def test_each_sample_and_caption_is_encoded_once(spec_of, tmp_path, cache, encoded):
    captions = {"captions": {"lines": "each"}}
    carry_out(spec_of(cache=BEFORE, dataset=captions), tmp_path / "one")
    assert encoded == {"latents": 6, "text": 2 * 6 + 1}  # and the empty text
    told = [each for each in events(tmp_path / "one", "progress") if each.phase == "caching"]
    assert [(each.step, each.steps) for each in (told[0], told[-1])] == [(0, 19), (19, 19)]
    assert told[-1].eta_seconds == 0
    assert any(text.startswith("cached 6 latents, 13 captions") for text in said(tmp_path / "one"))
    carry_out(spec_of(cache=BEFORE, dataset=captions, steps=4), tmp_path / "two")
    assert encoded == {"latents": 6, "text": 13}


def test_only_what_changed_is_encoded_again(
    spec_of, tmp_path, cache, encoded, pictures, base_folder
):
    carry_out(spec_of(cache=BEFORE, steps=1), tmp_path / "one")
    encoded.clear()
    moved = pictures.rename(tmp_path / "elsewhere")
    (moved / "0.png").rename(moved / "new name.png")
    (moved / "0.txt").rename(moved / "new name.txt")
    spec = spec_of(cache=BEFORE, dataset={"path": str(moved)}, steps=1)
    carry_out(spec, tmp_path / "moved and renamed")
    assert not encoded
    (moved / "1.txt").write_text("another caption")
    carry_out(spec, tmp_path / "caption")
    assert encoded == {"text": 1}
    encoded.clear()
    larger = spec.model.model_copy(update={"config": {"resolution": 32}})
    carry_out(spec.model_copy(update={"model": larger}), tmp_path / "size")
    assert encoded == {"latents": 6}
    encoded.clear()
    carry_out(spec.model_copy(update={"precision": "bf16"}), tmp_path / "bf16")
    assert encoded == {"latents": 6, "text": 7}
    encoded.clear()
    other = spec.model.model_copy(update={"base": str(with_another_vae(base_folder, tmp_path))})
    carry_out(spec.model_copy(update={"model": other}), tmp_path / "vae")
    assert encoded == {"latents": 6}


@pytest.mark.families
def test_a_reference_that_changed_is_encoded_again_and_it_alone(
    spec_of, tmp_path, cache, monkeypatch, pictures
):
    counts, control = Counter(), Kontext.control

    def count(self, assets, shown):
        counts[shown.shape[2:]] += len(shown)
        return control(self, assets, shown)

    monkeypatch.setattr(Kontext, "control", count)
    Image.new("RGB", (48, 32), (9, 9, 200)).save(pictures / "edges/5.png")
    carry_out(spec_of("kontext", cache=BEFORE, steps=1), tmp_path / "one")
    assert counts == {(32, 32): 5, (32, 48): 1}
    counts.clear()
    carry_out(spec_of("kontext", cache=BEFORE, steps=1), tmp_path / "again")
    assert not counts
    Image.new("RGB", (16, 16), (1, 2, 3)).save(pictures / "edges/2.png")
    Image.new("RGB", (16, 16), (3, 2, 1)).save(pictures / "3.png")
    carry_out(spec_of("kontext", cache=BEFORE, steps=1), tmp_path / "changed")
    assert counts == {(32, 32): 1}
    counts.clear()
    strict = {"conditioning_fit": "strict"}
    carry_out(spec_of("kontext", cache=BEFORE, steps=1, dataset=strict), tmp_path / "strict")
    assert counts == {(16, 16): 5}  # the sixth has another aspect


def with_another_vae(base_folder, tmp_path):
    base = tmp_path / "other base"
    shutil.copytree(base_folder("sd1"), base)
    vae = AutoencoderKL.from_pretrained(base / "vae")
    with torch.no_grad():
        vae.encoder.conv_in.bias[0] += 2**-20
    vae.save_pretrained(base / "vae")
    return base


def test_encoders_are_out_of_memory_before_the_first_step(spec_of, tmp_path, cache, monkeypatch):
    kinds, alive, sizes = (AutoencoderKL, CLIPTextModel), [], []
    open_denoiser, train = run_module.open_denoiser, run_module.train

    def opened(*arguments):
        denoiser = open_denoiser(*arguments)
        modules = denoiser.assets.modules()
        sizes.append(sum(map(module_bytes, modules.values())))
        for module in modules.values():
            assert isinstance(module, kinds)
            alive.append(weakref.ref(module))
            alive.extend(weakref.ref(each) for each in module.parameters())
        return denoiser

    def watched(session, *rest, **named):
        assert [each for each in alive if each() is not None] == []
        assert session.denoiser.assets.modules() == {}
        return train(session, *rest, **named)

    monkeypatch.setattr(run_module, "open_denoiser", opened)
    monkeypatch.setattr(run_module, "train", watched)
    validation = {"prompts": ["red noise"], "every": 3, "sampler_steps": 2}
    code = carry_out(spec_of(cache=BEFORE, validation=validation), tmp_path / "run")
    assert code == ExitCode.SUCCEEDED
    assert alive
    freed = f"encoders left memory before the first step: {sizes[0] / 2**20:,.1f} MiB"
    assert freed in said(tmp_path / "run")


def test_held_out_samples_are_cached_as_well(spec_of, tmp_path, cache, encoded, pictures):
    held_out = tmp_path / "held out"
    shutil.copytree(pictures, held_out)
    spec = spec_of(cache=BEFORE, validation={"every": 3, "evaluation_times": 1})
    more = spec.datasets[0].model_copy(update={"path": str(held_out), "evaluation": True})
    spec = spec.model_copy(update={"datasets": [*spec.datasets, more]})
    carry_out(spec, tmp_path / "cached")
    assert encoded["latents"] == 6  # they have the same content
    off = spec.model_copy(update={"cache": spec_of(cache=OFF).cache})
    carry_out(off, tmp_path / "off")
    losses = [[e.values for e in events(tmp_path / name, "metric")] for name in ("cached", "off")]
    assert losses[0] == losses[1]


def test_resumes_exactly(spec_of, tmp_path, cache):
    spec = spec_of(cache=BEFORE, checkpoint={"every": 1})
    carry_out(spec, tmp_path / "whole")
    assert carry_out(spec, tmp_path / "cut", stop_after=1) == ExitCode.PREEMPTED
    other = spec.model_copy(update={"cache": spec_of(cache=OFF).cache})
    carry_out(other, tmp_path / "cut", resume="latest")
    assert final_state(tmp_path / "cut") == final_state(tmp_path / "whole")


def test_a_short_run_encodes_on_demand_alone(spec_of, tmp_path, cache, encoded):
    carry_out(spec_of(steps=1), tmp_path / "run")
    assert encoded == {"latents": 2, "text": 2}
    carry_out(spec_of(steps=1), tmp_path / "again")
    assert encoded == {"latents": 2, "text": 2}


def test_damage_that_a_step_meets_is_mended_and_said(spec_of, tmp_path, cache, encoded):
    """The encoder, which had left memory, comes back for it."""
    carry_out(spec_of(cache=BEFORE), tmp_path / "one")
    (path,) = cache.glob("latents/*/*.safetensors")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    encoded.clear()
    assert carry_out(spec_of(cache=BEFORE), tmp_path / "two") == ExitCode.SUCCEEDED
    assert final_state(tmp_path / "two") == final_state(tmp_path / "one")
    assert 0 < encoded["latents"] <= 6
    damaged = [text for text in said(tmp_path / "two") if "damaged and made anew" in text]
    assert len(damaged) == 1
    assert path.name in damaged[0]


def test_a_run_that_is_told_to_stop_while_it_caches_goes_on_from_there(
    spec_of, tmp_path, cache, encoded
):
    spec = spec_of(cache=BEFORE)

    def stop():
        return encoded["latents"] >= 2

    folder = RunFolder(tmp_path / "run")
    folder.create()
    with Journal(folder.journal) as journal:
        places = [Path(spec.datasets[0].path)]
        ended = run_training(spec, places, folder, journal, resume="none", stop=stop)
    assert ended == ExitCode.PREEMPTED
    assert encoded == {"latents": 2}
    carry_out(spec, tmp_path / "again")
    assert encoded == {"latents": 6, "text": 7}
