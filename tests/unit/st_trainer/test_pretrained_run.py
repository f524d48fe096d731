"""Runs that start from pretrained weights: what is trained, kept, resumed and written."""

import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.media import BEFORE, dataset_of, write_samples
from fixtures.tiny import FAST as FAST_FAMILIES
from fixtures.tiny import TINY
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file
from whole_run import carry_out, final_state

from st_shared.protocol.journal import ExitCode, journal_event
from st_shared.spec import FAMILIES, TrainingSpec
from st_trainer.data.content import Content
from st_trainer.errors import BadSpecError
from st_trainer.families.registry import REGISTRY
from st_trainer.recordings import write_sound, write_video
from st_trainer.run_folder import RunFolder


@pytest.fixture
def pictures(tmp_path):
    """Four RGB images with captions, a mask each."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(4):
        Image.new("RGB", (16, 16), (60 * index, 90, 200)).save(folder / f"{index}.png")
        Image.new("L", (16, 16), 255 if index else 0).save(folder / f"{index}.mask.png")
        (folder / f"{index}.txt").write_text("a red square" if index % 2 else "a blue square")
    return folder


@pytest.fixture
def sd1_spec(base_folder, pictures):
    """A few steps of the tiny ``sd1``; keywords replace its keys."""

    def make(**changes):
        document = {
            "model": {
                "family": "sd1",
                "base": str(base_folder("sd1")),
                "config": {"resolution": 16},
            },
            "datasets": [{"path": str(pictures), "mask_suffix": ".mask.png"}],
            "steps": 4,
            "batch_size": 2,
            "log_every": 1,
            "adapter": {"rank": 2},
            "optimizer": {"learning_rate": 0.01},
            "checkpoint": {"every": 2},
            "validation": VALIDATION,
        }
        return TrainingSpec.model_validate(document | changes)

    return make


VALIDATION = {"prompts": ["a red square"], "every": 2, "sampler_steps": 2}


def with_pictures(validation, folder):
    """``validation`` with a picture for each prompt."""
    picture = folder / "begins.png"
    Image.linear_gradient("L").convert("RGB").save(picture)
    return validation | {"conditioning": [str(picture)] * len(validation.get("prompts", []))}


@pytest.fixture
def spec_of(sd1_spec, base_folder, tmp_path):
    """The same of any family, with samples of its kind."""

    def make(family, **changes):
        code, options = REGISTRY[family], TINY[family].config
        config = FAMILIES[family].config.model_validate(options)
        folder = tmp_path / f"samples of {family}"
        write_samples(folder, code.medium(config), code.sample_shape(config))
        model = {"family": family, "base": str(base_folder(family)), "config": options}
        document = {"model": model, "datasets": [dataset_of(family, folder)]} | changes
        if FAMILIES[family].edits and "validation" not in changes:
            document["validation"] = VALIDATION | {"conditioning": [str(folder / f"1{BEFORE}")]}
        if FAMILIES[family].from_picture:
            document["validation"] = with_pictures(changes.get("validation", VALIDATION), tmp_path)
        return sd1_spec(**document)

    return make


def events(root):
    lines = RunFolder(root).journal.read_bytes().splitlines()
    return [journal_event.validate_json(line) for line in lines]


def losses(root):
    return [event.values["loss"] for event in events(root) if event.kind == "metric"]


KINDS = {
    "lora": {"adapter": {"rank": 2, "dropout": 0.2}},
    "lora without average": {"ema": {"enabled": False}},
    "dora": {"adapter": {"rank": 2, "dora": True}},
    "pissa": {"adapter": {"rank": 2, "init": "pissa"}},
    "lycoris": {"adapter": {"kind": "lycoris", "rank": 2, "lycoris": {"algorithm": "loha"}}},
    "text encoder": {
        "adapter": {"rank": 2, "text_encoder": True, "text_encoder_learning_rate": 0.002}
    },
    "full": {"adapter": {"kind": "full"}, "optimizer": {"learning_rate": 1e-4}},
    "schedule-free": {"optimizer": {"name": "adamw_schedulefree", "learning_rate": 0.01}},
    "prodigy": {"optimizer": {"name": "prodigy"}},
    "everything of the noise": {
        "objective": {
            "noise": {"offset": 0.1, "input_perturbation": 0.1, "input_perturbation_steps": 3},
            "loss": {"name": "huber", "huber_schedule": "snr", "snr_gamma": 5},
        }
    },
}


FAST = ("lora", "full", "schedule-free")
"""Kinds that every run of the tests checks."""


@pytest.mark.parametrize(
    "kind", [k if k in FAST else pytest.param(k, marks=pytest.mark.families) for k in KINDS]
)
def test_a_resumed_run_ends_bit_for_bit_like_one_that_was_never_stopped(sd1_spec, tmp_path, kind):
    spec = sd1_spec(**KINDS[kind])
    assert carry_out(spec, tmp_path / "whole") == ExitCode.SUCCEEDED
    assert carry_out(spec, tmp_path / "parts", 3) == ExitCode.PREEMPTED
    torch.manual_seed(999)  # a new process starts with other random numbers
    assert carry_out(spec, tmp_path / "parts", resume="latest") == ExitCode.SUCCEEDED
    assert final_state(tmp_path / "parts") == final_state(tmp_path / "whole")
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    for path in (tmp_path / "whole/output").rglob("*"):
        if path.is_file() and path.name != "report.html":  # which tells when it was written
            other = tmp_path / "parts" / path.relative_to(tmp_path / "whole")
            assert path.read_bytes() == other.read_bytes()


@pytest.fixture
def aspects(tmp_path):
    """Square, wide and tall pictures, masks as large."""
    folder = tmp_path / "aspects"
    folder.mkdir()
    sizes = [(16, 16), (30, 10), (10, 30), (16, 16), (24, 8), (64, 64), (90, 10)]
    for index, size in enumerate(sizes):
        Image.new("RGB", size, (30 * index, 90, 200)).save(folder / f"{index}.png")
        Image.new("L", size, 255).save(folder / f"{index}.mask.png")
        (folder / f"{index}.txt").write_text("a red square")
    return folder


BUCKETS = {"max_aspect": 4, "step": 8}


def logged(root):
    lines = RunFolder(root).journal.read_bytes().splitlines()
    found = [journal_event.validate_json(line) for line in lines]
    return [event.message for event in found if event.kind == "log"]


def test_images_of_other_aspects_come_in_buckets_and_a_resumed_run_is_exact(
    sd1_spec, tmp_path, aspects
):
    datasets = [{"path": str(aspects), "mask_suffix": ".mask.png"}]
    spec = sd1_spec(datasets=datasets, buckets=BUCKETS, steps=9)
    carry_out(spec, tmp_path / "whole")
    told = logged(tmp_path / "whole")
    assert "4 buckets, width x height: images; 16x16: 3, 24x8: 2, 8x24: 1, 32x8: 1" in told
    assert any(text.startswith("2 buckets hold fewer images than a batch of 2") for text in told)
    assert not any("will not be seen" in text for text in told)
    for stop, resume in ((3, "none"), (4, "latest"), (None, "latest")):
        carry_out(spec, tmp_path / "parts", stop, resume)
    assert final_state(tmp_path / "parts") == final_state(tmp_path / "whole")
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_without_buckets_every_image_is_a_square(sd1_spec, tmp_path, aspects):
    spec = sd1_spec(datasets=[{"path": str(aspects)}], buckets={"enabled": False})
    assert carry_out(spec, tmp_path / "run") == ExitCode.SUCCEEDED
    assert not any("buckets" in text for text in logged(tmp_path / "run"))


@pytest.mark.families
@pytest.mark.parametrize(
    "family",
    [name for name in TINY if FAMILIES[name].alignment and FAMILIES[name].media == "image"],
)
def test_every_family_of_any_aspect_trains_on_buckets(
    sd1_spec, tmp_path, aspects, base_folder, family
):
    model = {"family": family, "base": str(base_folder(family)), "config": TINY[family].config}
    buckets = {"max_aspect": 4, "step": FAMILIES[family].alignment}
    config = model["config"] | {"resolution": 32}
    spec = sd1_spec(
        model=model | {"config": config},
        datasets=[{"path": str(aspects)} | with_themselves(family, aspects)],
        buckets=buckets,
        steps=6,
        validation={},
    )
    assert carry_out(spec, tmp_path / "run") == ExitCode.SUCCEEDED
    assert any("buckets, width x height" in text for text in logged(tmp_path / "run"))


def with_themselves(family, folder):
    """Where the family edits, pictures are references as they are."""
    if not FAMILIES[family].edits:
        return {}
    shutil.copytree(folder, folder.parent / "before")
    return {"conditioning": str(folder.parent / "before")}


@pytest.mark.families
def test_videos_of_other_sizes_and_lengths_are_trained_on(spec_of, tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name, shape in {"a": (9, 16, 32), "b": (9, 32, 16), "c": (7, 16, 32)}.items():
        write_video(folder / f"{name}.mp4", generator.integers(0, 256, (3, *shape), np.uint8), 8)
        (folder / f"{name}.txt").write_text("noise")
    model = spec_of("wan").model.model_dump()
    model["config"] = model["config"] | {"frames": 9}
    spec = spec_of(
        "wan", model=model, datasets=[{"path": str(folder)}], batch_size=1, steps=3,
        buckets={"step": 16, "max_aspect": 2, "frames": "shorter"}, validation={},
    )  # fmt: skip
    assert carry_out(spec, tmp_path / "run") == ExitCode.SUCCEEDED
    told = next(text for text in logged(tmp_path / "run") if "buckets" in text)
    assert all(bucket in told for bucket in ("32x16, 9: 1", "16x32, 9: 1", "32x16, 5: 1"))


@pytest.mark.families
def test_sounds_of_other_lengths_are_trained_on(spec_of, tmp_path):
    folder = tmp_path / "sounds"
    folder.mkdir()
    config = TINY["ace_step"].config
    seconds, rate = config["seconds"], config["sample_rate"]
    for name, length in {"a": seconds, "b": seconds - 1}.items():
        values = np.random.default_rng(0).uniform(-0.5, 0.5, (2, length * rate))
        write_sound(folder / f"{name}.wav", values.astype(np.float32), rate)
        (folder / f"{name}.txt").write_text("noise")
    spec = spec_of(
        "ace_step", datasets=[{"path": str(folder)}], batch_size=1, steps=2,
        buckets={"seconds": 1}, validation={},
    )  # fmt: skip
    assert carry_out(spec, tmp_path / "run") == ExitCode.SUCCEEDED
    told = next(text for text in logged(tmp_path / "run") if "buckets" in text)
    assert f"{seconds}: 1" in told
    assert f"{seconds - 1}: 1" in told


def test_a_checkpoint_of_an_adapter_holds_the_adapter_alone(sd1_spec, tmp_path):
    carry_out(sd1_spec(), tmp_path / "run")
    last = tmp_path / "run/checkpoints/step-000004"
    weights, average = (load_file(last / f"{name}.safetensors") for name in ("weights", "ema"))
    assert weights.keys() == average.keys()
    assert all("lora_" in name for name in weights)
    assert any(not torch.equal(weights[name], average[name]) for name in weights)


def test_a_full_training_leaves_a_part_that_diffusers_loads(sd1_spec, tmp_path):
    from diffusers import UNet2DConditionModel

    carry_out(sd1_spec(**KINDS["full"]), tmp_path / "run")
    part = UNet2DConditionModel.from_pretrained(tmp_path / "run/output/unet")
    average = load_file(tmp_path / "run/checkpoints/step-000004/ema.safetensors")
    state = part.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in average.items())


def test_the_best_the_last_and_every_so_many_checkpoints_are_kept(sd1_spec, tmp_path):
    rules = {"every": 1, "keep_last": 1, "keep_best": 1, "keep_every": 5}
    spec = sd1_spec(steps=8, checkpoint=rules, validation={"prompts": []})
    carry_out(spec, tmp_path / "run")
    best = min(range(8), key=losses(tmp_path / "run").__getitem__) + 1
    kept = {path.name for path in (tmp_path / "run/checkpoints").iterdir()}
    assert kept == {f"step-00000{step}" for step in (5, 8, best)}


def test_writing_in_the_background_and_at_once_give_the_same(sd1_spec, tmp_path):
    for name, background in (("a", True), ("b", False)):
        carry_out(sd1_spec(checkpoint={"every": 2, "background": background}), tmp_path / name)
    assert final_state(tmp_path / "a") == final_state(tmp_path / "b")


def test_where_the_mask_is_black_nothing_is_learned(sd1_spec, tmp_path, pictures):
    for index in range(1, 4):
        Image.new("L", (16, 16), 0).save(pictures / f"{index}.mask.png")
    carry_out(sd1_spec(), tmp_path / "run")
    assert losses(tmp_path / "run") == [0, 0, 0, 0]


def test_a_missing_mask_leaves_the_sample_out(sd1_spec, tmp_path, pictures):
    (pictures / "2.mask.png").unlink()
    carry_out(sd1_spec(), tmp_path / "run")
    assert b"skipped 2.png: no mask: 2.mask.png is missing" in (
        RunFolder(tmp_path / "run").journal.read_bytes()
    )


def test_prior_regularisation_alone_has_nothing_to_learn_from_a_fresh_adapter(
    sd1_spec, tmp_path, pictures
):
    datasets = [{"path": str(pictures), "regularisation": True, "mask_suffix": ".mask.png"}]
    carry_out(sd1_spec(datasets=datasets), tmp_path / "run")
    assert losses(tmp_path / "run") == [0, 0, 0, 0]


def test_prior_regularisation_needs_the_model_as_it_was(sd1_spec, tmp_path, pictures):
    datasets = [{"path": str(pictures), "regularisation": True}]
    with pytest.raises(BadSpecError, match="use lora or lycoris"):
        carry_out(sd1_spec(datasets=datasets, adapter={"kind": "full"}), tmp_path / "run")


def test_a_base_of_another_layout_is_refused(sd1_spec, tmp_path):
    model = {"family": "flux", "base": sd1_spec().model.base, "config": {"resolution": 16}}
    with pytest.raises(BadSpecError, match="has no folder transformer, text_encoder_2"):
        carry_out(sd1_spec(model=model), tmp_path / "run")


@pytest.mark.parametrize("base", ["nowhere", "./nowhere", "/no/where"])
def test_a_base_that_is_not_there_is_refused(sd1_spec, tmp_path, base):
    model = {"family": "sd1", "base": base}
    with pytest.raises(BadSpecError, match=r"training\.model\.base: no folder"):
        carry_out(sd1_spec(model=model), tmp_path / "run")


@pytest.mark.filterwarnings("ignore:The `local_dir_use_symlinks`:UserWarning:huggingface_hub")
def test_a_repository_that_cannot_be_reached_is_told(sd1_spec, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    model = {"family": "sd1", "base": "someone/some-model"}
    with pytest.raises(BadSpecError, match="unet of someone/some-model cannot be loaded"):
        carry_out(sd1_spec(model=model), tmp_path / "run")


def test_a_damaged_part_is_named(sd1_spec, tmp_path, base_folder):
    base = tmp_path / "base"
    shutil.copytree(base_folder("sd1"), base)
    (base / "vae/diffusion_pytorch_model.safetensors").write_bytes(b"broken")
    model = {"family": "sd1", "base": str(base), "config": {"resolution": 16}}
    with pytest.raises(BadSpecError, match=r"vae of .* cannot be loaded as diffusers\.Autoencoder"):
        carry_out(sd1_spec(model=model), tmp_path / "run")


def test_zero_steps_draw_the_prompts_with_the_base(sd1_spec, tmp_path):
    assert carry_out(sd1_spec(steps=0, datasets=[]), tmp_path / "run") == ExitCode.SUCCEEDED
    assert (tmp_path / "run/output/sample_grid.png").is_file()


def test_a_video_model_leaves_a_video_of_each_prompt(spec_of, tmp_path):
    prompts = ["a red square", "a blue square"]
    validation = {"prompts": prompts, "every": 2, "sampler_steps": 1, "baseline": False}
    spec = spec_of("wan", steps=2, validation=validation)
    folder = Path(spec.datasets[0].path)
    (folder / "0.mp4").write_bytes(b"broken")
    carry_out(spec, tmp_path / "run")
    samples = [event for event in events(tmp_path / "run") if event.kind == "sample"]
    assert [(each.step, each.path, each.prompts) for each in samples] == [
        (2, f"samples/step-000002-00{index}.mp4", [prompt]) for index, prompt in enumerate(prompts)
    ]
    medium = REGISTRY["wan"].medium(config_of(spec))
    drawn = [medium.read(Content.of_file(tmp_path / "run" / each.path)) for each in samples]
    assert all(each.changes == () for each in drawn)
    assert (drawn[0].values != drawn[1].values).any()
    logs = [event.message for event in events(tmp_path / "run") if event.kind == "log"]
    assert "skipped 0.mp4: damaged video: Invalid data found when processing input" in logs
    assert not (tmp_path / "run/output/sample_grid.png").exists()


def test_a_music_model_reads_lyrics_and_leaves_a_sound_of_each_prompt(spec_of, tmp_path):
    prompts = ["a song\n[verse]\nla la la", "a song"]
    validation = {"prompts": prompts, "every": 2, "sampler_steps": 1, "baseline": False}
    spec = spec_of("ace_step", steps=2, batch_size=4, log_every=1, validation=validation)
    folder = Path(spec.datasets[0].path)
    (folder / "1.wav").write_bytes(b"broken")
    carry_out(spec, tmp_path / "without")
    (folder / "0.lyrics.txt").write_text("[verse]\nla la la\n")
    carry_out(spec, tmp_path / "run")
    samples = [event for event in events(tmp_path / "run") if event.kind == "sample"]
    assert [(each.path, each.prompts) for each in samples] == [
        (f"samples/step-000002-00{index}.wav", [prompt]) for index, prompt in enumerate(prompts)
    ]
    medium = REGISTRY["ace_step"].medium(config_of(spec))
    drawn = [medium.read(Content.of_file(tmp_path / "run" / each.path)) for each in samples]
    assert (drawn[0].values != drawn[1].values).any()
    assert losses(tmp_path / "run") != losses(tmp_path / "without")
    logs = [event.message for event in events(tmp_path / "run") if event.kind == "log"]
    assert "skipped 1.wav: damaged sound: Format not recognised." in logs


@pytest.mark.families
def test_masks_count_in_videos_too(spec_of, tmp_path):
    folder = tmp_path / "samples of wan"
    datasets = [{"path": str(folder), "mask_suffix": ".mask.png"}]
    spec = spec_of("wan", steps=2, datasets=datasets, validation={"prompts": []})
    for index in range(4):
        Image.new("L", (32, 16), 0).save(folder / f"{index}.mask.png")
    carry_out(spec, tmp_path / "run")
    assert losses(tmp_path / "run") == [0, 0]


@pytest.mark.families
def test_pictures_are_videos_of_one_frame(spec_of, tmp_path, pictures):
    config = TINY["wan"].config | {"frames": 1}
    model = spec_of("wan").model.model_dump() | {"config": config}
    datasets = [{"path": str(pictures), "mask_suffix": ".mask.png"}]
    spec = spec_of("wan", model=model, datasets=datasets, steps=2)
    assert carry_out(spec, tmp_path / "run") == ExitCode.SUCCEEDED
    assert (tmp_path / "run/samples/step-000002-000.mp4").is_file()


def config_of(spec):
    return FAMILIES[spec.model.family].config.model_validate(spec.model.config)


def test_zero_steps_draw_videos_with_the_base(spec_of, tmp_path):
    carry_out(spec_of("wan", steps=0, datasets=[]), tmp_path / "run")
    assert [event.path for event in events(tmp_path / "run") if event.kind == "sample"] == [
        "samples/step-000000-000.mp4"
    ]


BY_SPEED = [
    name if name in FAST_FAMILIES else pytest.param(name, marks=pytest.mark.families)
    for name in TINY
]


@pytest.mark.parametrize("family", BY_SPEED)
@pytest.mark.parametrize("kind", ["lora", pytest.param("lycoris", marks=pytest.mark.families)])
def test_bf16_holds_the_base_in_bf16_and_what_is_trained_in_fp32(spec_of, tmp_path, family, kind):
    for name, precision in (("half", "bf16"), ("whole", "fp32")):
        changes = {"precision": precision, "steps": 2} | KINDS[kind]
        carry_out(spec_of(family, **changes), tmp_path / name)
    kept = load_file(tmp_path / "half/checkpoints/step-000002/weights.safetensors")
    assert {tensor.dtype for tensor in kept.values()} == {torch.float32}
    assert losses(tmp_path / "half") == pytest.approx(losses(tmp_path / "whole"), rel=0.1)
    assert losses(tmp_path / "half") != losses(tmp_path / "whole")


@pytest.mark.families
@pytest.mark.parametrize(
    ("family", "lora"),
    [("sd1", False), ("sd1", True), ("sdxl", False), ("sd3", False), ("flux", True)],
)
@pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")
def test_a_controlnet_resumes_exactly(sd1_spec, tmp_path, base_folder, pictures, family, lora):
    (pictures / "edges").mkdir()
    for index in range(4):
        Image.new("RGB", (16, 16), (9, 60 * index, 9)).save(pictures / f"edges/{index}.png")
    prompts = {"prompts": ["a red square"], "conditioning": [str(pictures / "edges/1.png")]}
    spec = sd1_spec(
        model={
            "family": family,
            "base": str(base_folder(family)),
            "config": TINY[family].config | {"resolution": 16},
        },
        datasets=[{"path": str(pictures), "mask_suffix": ".mask.png", "conditioning": "edges"}],
        adapter={"kind": "controlnet", "controlnet": {"lora": lora}},
        validation=prompts | {"every": 2, "sampler_steps": 2},
    )
    assert carry_out(spec, tmp_path / "whole") == ExitCode.SUCCEEDED
    assert carry_out(spec, tmp_path / "parts", 3) == ExitCode.PREEMPTED
    torch.manual_seed(999)  # a new process starts with other random numbers
    assert carry_out(spec, tmp_path / "parts", resume="latest") == ExitCode.SUCCEEDED
    assert final_state(tmp_path / "parts") == final_state(tmp_path / "whole")
    for file in ("controlnet/diffusion_pytorch_model.safetensors", "sample_grid.png"):
        found, expected = (tmp_path / name / "output" / file for name in ("parts", "whole"))
        assert found.read_bytes() == expected.read_bytes()


@pytest.mark.families
@pytest.mark.parametrize(
    ("family", "kind"),
    [*product(TINY, ("lora", "full", "lycoris")), ("sdxl", "text encoder")],
)
def test_every_family_trains_and_resumes_exactly(spec_of, tmp_path, family, kind):
    spec = spec_of(family, **KINDS[kind])
    carry_out(spec, tmp_path / "whole")
    carry_out(spec, tmp_path / "parts", 3)
    carry_out(spec, tmp_path / "parts", resume="latest")
    assert final_state(tmp_path / "parts") == final_state(tmp_path / "whole")
