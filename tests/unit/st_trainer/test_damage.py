"""Damage that shows when a sample is first decoded: another is learned in its place."""

import pytest
import torch
from fixtures.remote import take_for_remote, tear
from fixtures.tiny import TINY
from PIL import Image
from whole_run import carry_out, final_state

from st_shared.protocol.journal import ExitCode, journal_event
from st_shared.spec import TrainingSpec
from st_trainer.batch import draw_batch
from st_trainer.caching import prepare
from st_trainer.data.images import Images
from st_trainer.data.reading import read_datasets
from st_trainer.errors import DamagedBucketError, DamagedLaterError
from st_trainer.evaluation import held_out_loss
from st_trainer.session import Session
from st_trainer.share import Share
from st_trainer.weights import open_denoiser

WIDE = (8, 32)
OFF = {"latents": "off", "text": "off"}


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Five squares and two wide ones, each with its picture of edges."""
    take_for_remote(monkeypatch)
    folder = tmp_path / "pictures"
    (folder / "edges").mkdir(parents=True)
    for number in range(7):
        size = (16, 16) if number < 5 else WIDE[::-1]
        Image.effect_noise(size, 60 + number).convert("RGB").save(folder / f"{number}.png")
        Image.effect_noise(size, 90).convert("RGB").save(folder / "edges" / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"noise {number}")
    return folder


@pytest.fixture
def samples_of(pictures):
    def make(**dataset):
        document = {"datasets": [{"path": str(pictures), **dataset}], **MODEL}
        spec = TrainingSpec.model_validate(document)
        medium = Images(3, 16, 16, buckets=((16, 16), WIDE))
        return spec, read_datasets(spec.datasets, [pictures], medium).samples

    return make


MODEL = {
    "model": {
        "family": "pixel_dit",
        "config": {"image_size": 16, "channels": 3, "width": 16, "depth": 1, "heads": 2,
                   "patch_size": 8},
    }
}  # fmt: skip


def test_the_next_sound_one_of_its_bucket_stands_in_whatever_was_found_first(samples_of, pictures):
    for number in (1, 2, 4):
        tear(pictures / f"{number}.png")
    found = []
    for order in ([1, 2, 4], [4, 2, 1]):
        _, samples = samples_of()
        for index in order:
            with pytest.raises(DamagedLaterError) as raised:
                samples.values([0, index])
            assert raised.value.position == 1
        found.append(samples.sound([0, 1, 2, 3, 4, 5]))
        told = samples.newly_damaged()
        assert [text.partition(":")[0] for text in told] == [f"{index}.png" for index in order]
        assert samples.newly_damaged() == []
    assert found == [[0, 3, 3, 3, 0, 5]] * 2  # behind the last comes the first


def test_where_a_bucket_is_damaged_as_a_whole_that_is_said(samples_of, pictures):
    for number in (5, 6):
        tear(pictures / f"{number}.png")
    _, samples = samples_of()
    for index in (5, 6):
        with pytest.raises(DamagedLaterError):
            samples.values([index])
    assert samples.has_sound
    with pytest.raises(DamagedBucketError, match=r"all 2 samples .*of 6\.png are damaged"):
        samples.sound([0, 6])


@pytest.mark.parametrize("torn", [[1], [1, 3], [0, 1, 2]])
def test_ranks_stay_in_step_though_one_alone_finds_the_damage(samples_of, pictures, torn):
    for number in torn:
        tear(pictures / f"{number}.png")
    states, rows = set(), []
    for rank in range(2):
        spec, samples = samples_of()
        session = Session(spec, samples, open_denoiser(spec, lambda: iter(["noise"])))
        batch = draw_batch(session, [0, 4, 1, 3], Share(rank, 2))
        states.add(session.generator.get_state().numpy().tobytes())
        rows.append((list(batch.indexes), list(batch.captions)))
        session.accelerator.free_memory()
    assert len(states) == 1
    sound = [next(i for i in (*range(at, 5), *range(at)) if i not in torn) for at in (0, 4, 1, 3)]
    assert [index for indexes, _ in rows for index in indexes] == sound


@pytest.mark.parametrize("share", [Share(), Share(1, 2)])
def test_the_same_numbers_are_drawn_where_a_conditioning_picture_is_damaged(
    base_folder, pictures, share
):
    """It is read after the noise was drawn."""
    config = TINY["sd1"].config | {"resolution": 16}
    document = {
        "model": {"family": "sd1", "base": str(base_folder("sd1")), "config": config},
        "datasets": [{"path": str(pictures), "conditioning": "edges"}],
        "adapter": {"kind": "controlnet"},
    }
    spec = TrainingSpec.model_validate(document)
    drawn = []
    for is_torn in (False, True):
        if is_torn:
            tear(pictures / "edges/3.png")
        samples = read_datasets(spec.datasets, [pictures], Images(3, 16, 16)).samples
        session = Session(spec, samples, open_denoiser(spec, list))
        drawn.append(draw_batch(session, [1, 3], share))
    assert list(drawn[0].indexes)[-1] == 3
    assert list(drawn[1].indexes)[-1] == 4
    for name in ("seen", "target"):
        assert torch.equal(getattr(drawn[0].noise, name), getattr(drawn[1].noise, name))
    assert torch.equal(drawn[0].times, drawn[1].times)


def test_what_is_held_out_has_stand_ins_too(samples_of, pictures):
    spec, whole = samples_of()
    session = Session(spec, whole, open_denoiser(spec, lambda: iter(["noise"])))
    expected = held_out_loss(session, whole).mean
    tear(pictures / "2.png")
    _, torn = samples_of()
    found = held_out_loss(session, torn).mean
    assert found != expected
    assert held_out_loss(session, torn).mean == found
    for number in (5, 6):  # a size of which none is left is left out
        tear(pictures / f"{number}.png")
    _, fewer = samples_of()
    assert held_out_loss(session, fewer).mean not in {found, expected}
    for number in range(7):
        if number not in (2, 5, 6):
            tear(pictures / f"{number}.png")
    _, none = samples_of()
    with pytest.raises(DamagedBucketError, match="held out are damaged"):
        held_out_loss(session, none)


def left_out(root):
    events = map(journal_event.validate_json, (root / "journal.ndjson").read_text().splitlines())
    return [e.message for e in events if e.kind == "log" and e.message.startswith("left out")]


@pytest.mark.parametrize("caches", ["before", "on_demand"])
def test_cached_or_not_the_same_is_learned_and_each_is_told_once(
    base_folder, pictures, tmp_path, monkeypatch, caches
):
    """Encoders leave memory, though nothing can be kept of what is damaged."""
    monkeypatch.setenv("ST_CACHE_DIR", str(tmp_path / "cache"))
    set_down, real = [], prepare.unneeded
    monkeypatch.setattr(
        prepare, "unneeded", lambda *given: set_down.extend(real(*given)) or set_down
    )
    for number in (1, 5, 6):  # all of one size
        tear(pictures / f"{number}.png")

    def spec(cache):
        return TrainingSpec.model_validate({
            "model": {"family": "sd1", "base": str(base_folder("sd1")),
                      "config": TINY["sd1"].config},
            "datasets": [{"path": str(pictures)}],
            "steps": 6, "batch_size": 2, "adapter": {"rank": 2}, "checkpoint": {"every": 3},
            "buckets": {"max_aspect": 4, "step": 8}, "cache": cache,
        })  # fmt: skip

    for name, cache in {"off": OFF, "cached": {"latents": caches, "text": caches}}.items():
        assert carry_out(spec(cache), tmp_path / name) == ExitCode.SUCCEEDED
        told = left_out(tmp_path / name)
        assert len(told) == len(set(told))
        assert {text.split()[2] for text in told} >= {"1.png:"}
    assert final_state(tmp_path / "cached") == final_state(tmp_path / "off")
    assert set_down == (["vae", "text_encoder"] if caches == "before" else [])
