"""Damaged files are left where they are, or deleted where a dataset says so; others never are."""

import numpy as np
import pytest
from PIL import Image

from st_shared.spec import DatasetSpec
from st_trainer.data.damaged import by_all
from st_trainer.data.files import LocalFiles
from st_trainer.data.images import Images
from st_trainer.data.medium import UnreadableSampleError
from st_trainer.data.reading import read_datasets
from st_trainer.data.sounds import Sounds
from st_trainer.data.videos import Videos
from st_trainer.recordings import write_sound, write_video

REASONS = {
    "empty.png": "not a PNG, JPEG or WebP image; deleted",
    "half.png": "damaged image; deleted",
    "large.png": "64x64 is larger than only.max_side 32",
    "mask.png": "mask.m.png: damaged image",
    "page.png": "not a PNG, JPEG or WebP image",
    "silent.png": "no caption: silent.txt is missing",
}
"""Of files that cannot be used; the texts of libraries are cut off."""


@pytest.fixture
def folder(tmp_path):
    """Files that are fine, damaged, of another kind, and not wanted."""
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("fine", "large", "half", "silent", "mask"):
        side = 64 if name == "large" else 16
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side), np.uint8)).save(
            folder / f"{name}.png"
        )
    for name in ("fine", "large", "half", "empty", "page", "mask"):
        (folder / f"{name}.txt").write_text("noise")
    whole = (folder / "half.png").read_bytes()
    (folder / "half.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").touch()
    (folder / "page.png").write_text("<html>not found</html>")
    for path in list(folder.glob("*.png")):
        path.with_suffix(".m.png").write_bytes(whole[:99] if path.stem == "mask" else whole)
    return folder


def read(folder, damaged="delete"):
    spec = DatasetSpec(
        path=str(folder), mask_suffix=".m.png", only={"max_side": 32}, damaged=damaged
    )
    return read_datasets([spec], [folder], Images(1, 16, 16), root=folder.parent / "index")


def listed(folder):
    return {path.name for path in folder.iterdir()}


def told(reading):
    return {each.name: each.text for each in reading.skipped}


def test_files_stay_unless_told(folder):
    before = listed(folder)
    reading = read(folder, "keep")
    assert listed(folder) == before
    assert set(told(reading)) == set(REASONS)
    assert not any("deleted" in text for text in told(reading).values())


def test_what_is_damaged_goes_and_nothing_else(folder):
    before = listed(folder)
    reading = read(folder)
    assert before - listed(folder) == {"empty.png", "half.png"}
    assert len(reading.samples) == 1
    texts = told(reading)
    assert set(texts) == set(REASONS)
    for name, reason in REASONS.items():
        beginning, _, end = reason.partition("; ")
        assert texts[name].startswith(beginning)
        assert texts[name].endswith("; deleted") == (end == "deleted")
    again = read(folder)
    assert set(told(again)) == set(REASONS) - {"empty.png", "half.png"}
    assert again.samples.sha256 == reading.samples.sha256


def test_what_an_earlier_run_found_goes_once_told(folder):
    read(folder, "keep")
    read(folder)
    assert not (folder / "half.png").exists()


def test_a_file_that_cannot_be_removed_is_told(folder, monkeypatch):
    def refuse(_self, _name):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(LocalFiles, "delete", refuse)
    reading = read(folder)
    assert told(reading)["half.png"].endswith("; not deleted: Permission denied")
    assert (folder / "half.png").exists()


@pytest.mark.parametrize("changed", [True, False])
def test_a_file_that_changes_meanwhile_stays(folder, monkeypatch, changed):
    """Whoever copies it there may not be done."""
    real = LocalFiles.mark

    def later(self, name):
        grown = name == "half.png" and later.asked > 0
        later.asked += name == "half.png"
        return real(self, name) + (b"grown" if changed and grown else b"")

    later.asked = 0
    monkeypatch.setattr(LocalFiles, "mark", later)
    read(folder)
    assert (folder / "half.png").exists() == changed


def test_one_that_is_fine_when_it_is_looked_at_again_stays(folder, monkeypatch):
    """Such as one on a disk that did not answer."""
    real, asked = Images.read, []

    def once(self, content):
        asked.append(content.name)
        if content.name == "half.png" and asked.count("half.png") > 1:
            raise UnreadableSampleError("no answer")
        return real(self, content)

    monkeypatch.setattr(Images, "read", once)
    read(folder)
    assert (folder / "half.png").exists()
    assert not (folder / "empty.png").exists()


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_torn_videos_and_sounds_go_too_but_short_ones_stay(kind, tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    if kind == "video":
        medium, suffix = Videos(5, 16, 16, 8), ".mp4"
        write_video(folder / "a.mp4", np.zeros((3, 9, 16, 16), np.uint8), 8)
        write_video(folder / "short.mp4", np.zeros((3, 2, 16, 16), np.uint8), 8)
        kept = 200
    else:
        medium, suffix = Sounds(800, 8000), ".flac"
        write_sound(folder / "a.flac", np.zeros((2, 1600)), 8000)
        write_sound(folder / "short.flac", np.zeros((2, 80)), 8000)
        kept = 20
    whole = (folder / f"a{suffix}").read_bytes()
    (folder / f"torn{suffix}").write_bytes(whole[:kept])
    for name in ("a", "short", "torn"):
        (folder / f"{name}.txt").write_text(name)
    spec = DatasetSpec(path=str(folder), damaged="delete")
    reading = read_datasets([spec], [folder], medium, root=tmp_path / "index")
    assert sorted(told(reading)) == [f"short{suffix}", f"torn{suffix}"]
    assert not (folder / f"torn{suffix}").exists()
    assert (folder / f"short{suffix}").exists()


def test_what_one_of_several_processes_deleted_is_told_so():
    one, other = {"a": "deleted", "b": "not deleted: x"}, {"a": "not deleted: gone", "b": "deleted"}
    assert by_all([one, other]) == {"a": "deleted", "b": "deleted"}


@pytest.mark.parametrize("where", [{"path": "x", "format": "webdataset"}, {"name": "set"}])
def test_nothing_is_deleted_of_what_is_no_folder(where):
    with pytest.raises(ValueError, match="damaged delete is for files in a folder or bucket"):
        DatasetSpec.model_validate({**where, "damaged": "delete"})
