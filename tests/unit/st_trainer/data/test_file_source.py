import os
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from st_shared.spec import DatasetSpec
from st_trainer.data.file_source import FileSource
from st_trainer.data.files import LocalFiles
from st_trainer.data.images import Images
from st_trainer.data.index import Peers
from st_trainer.data.reading import MOST_REMARKS, read_datasets
from st_trainer.data.sounds import Sounds
from st_trainer.errors import BadDataError


@dataclass(frozen=True)
class Counted(Images):
    """Images that note what is decoded."""

    decoded: tuple[list[str]] = ([],)

    def read(self, content):
        self.decoded[0].append(content.name)
        return super().read(content)

    def __repr__(self):
        return "Counted"


def picture(folder, name, shade=0):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), shade).save(path)
    path.with_suffix(".txt").write_text("a square")
    return path


def dataset_of(folder, **options):
    return DatasetSpec(path=str(folder), **options)


def source_of(folder, medium=None, **options):
    dataset = dataset_of(folder, **options)
    conditions = folder / dataset.conditioning if dataset.conditioning else None
    return FileSource(
        LocalFiles(folder, conditions),
        dataset,
        medium or Images(1, 4, 4),
        conditions and LocalFiles(conditions),
    )


def test_names_are_in_the_order_of_whole_paths(tmp_path):
    names = ["a-b/1.png", "a.png", "a/1.png", "a/b/2.png", "a0.png", "a/b.png", "Z.PNG"]
    for name in [*names, ".hidden.png", ".hid/1.png", "edges/1.png", "a/1.mask.png", "x.gif"]:
        picture(tmp_path, name)
    (tmp_path / "loop").symlink_to(tmp_path)
    source = source_of(tmp_path, conditioning="edges", mask_suffix=".mask.png")
    assert list(source.names()) == sorted(names)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path):
    with pytest.raises(BadDataError, match=r"the folder .*/lost cannot be listed: No such file"):
        list(source_of(tmp_path / "lost").names())


@pytest.mark.parametrize("beside", ["a.png", "a.txt", "a.mask.png", "edges/a.png"])
def test_the_stamp_follows_everything_that_belongs_to_a_sample(tmp_path, beside):
    for name in ("a.png", "a.mask.png", "edges/a.png"):
        picture(tmp_path, name)
    source = source_of(tmp_path, conditioning="edges", mask_suffix=".mask.png")
    stamps = [source.stamp("a.png")]
    file = tmp_path / beside
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    stamps.append(source.stamp("a.png"))
    file.unlink()
    stamps.append(source.stamp("a.png"))
    assert len(set(stamps)) == 3
    assert {len(stamp) for stamp in stamps} == {16}


def test_the_stamp_of_a_sound_follows_its_lyrics(tmp_path):
    source = source_of(tmp_path, Sounds(8, 8))
    before = source.stamp("a.flac")
    (tmp_path / "a.lyrics.txt").write_text("la")
    assert source.stamp("a.flac") != before


def read(folder, root, medium):
    return read_datasets([dataset_of(folder)], [folder], medium, root=root)


def test_files_are_decoded_once_however_often_the_folder_is_read(tmp_path):
    folder, medium = tmp_path / "pictures", Counted(1, 4, 4, decoded=([],))
    for index in range(20):
        picture(folder, f"{index:02d}.png", index)
    (folder / "07.png").write_bytes(b"not an image")
    first = read(folder, tmp_path / "index", medium)
    assert sorted(medium.decoded[0]) == sorted(path.name for path in folder.glob("*.png"))
    medium.decoded[0].clear()
    again = read(folder, tmp_path / "index", medium)
    assert medium.decoded[0] == []
    assert again.samples.sha256 == first.samples.sha256
    assert [(each.name, each.text) for each in again.skipped] == [
        ("07.png", "not a PNG, JPEG or WebP image")
    ]
    assert (folder / "07.png").exists()
    picture(folder, "07.png")
    picture(folder, "99.png")
    (folder / "03.txt").write_text("another")
    (folder / "04.png").unlink()
    changed = read(folder, tmp_path / "index", medium)
    assert sorted(medium.decoded[0]) == ["03.png", "07.png", "99.png"]
    assert len(changed.samples) == 20
    assert changed.samples.sha256 == read(folder, tmp_path / "anew", medium).samples.sha256


def test_another_medium_reads_anew(tmp_path):
    picture(tmp_path / "pictures", "a.png")
    found = [
        read(tmp_path / "pictures", tmp_path / "index", Images(1, side, side)).samples.shapes([0])
        for side in (4, 8, 4)
    ]
    assert found == [[(1, 4, 4)], [(1, 8, 8)], [(1, 4, 4)]]


def test_the_first_of_many_that_cannot_be_used_are_named_and_all_are_counted(tmp_path):
    picture(tmp_path, "good.png")
    for index in range(MOST_REMARKS + 5):
        (tmp_path / f"{index:03d}.png").touch()
    reading = read(tmp_path, None, Images(1, 4, 4))
    assert (len(reading.skipped), reading.skipped_count) == (MOST_REMARKS, MOST_REMARKS + 5)
    assert reading.skipped[0].name == "000.png"


@pytest.mark.parametrize("name", [b"caf\xe9", "día".encode()])
@pytest.mark.parametrize("caption", [True, False])
def test_names_need_not_be_text(tmp_path, name, caption):
    picture(tmp_path, "a.png")
    for suffix in (".png", ".txt")[: 1 + caption]:
        (tmp_path / f"a{suffix}").rename(tmp_path / (os.fsdecode(name) + suffix))
    picture(tmp_path, "b.png")
    reading = read(tmp_path, None, Images(1, 4, 4))
    assert len(reading.samples) == 1 + caption
    assert len(reading.skipped) == 1 - caption
    assert reading.samples.values(range(1 + caption)).shape[1:] == (1, 4, 4)


def test_what_the_index_decoded_is_not_decoded_again_as_far_as_it_fits(tmp_path):
    for index in range(9):
        picture(tmp_path / "pictures", f"{index}.png", index)
    medium = Counted(1, 4, 4, decoded=([],))
    datasets, folders, root = [dataset_of(tmp_path)], [tmp_path / "pictures"], tmp_path / "index"
    one = Peers(threads=1)
    samples = read_datasets(datasets, folders, medium, 3 * 16, root, one).samples
    medium.decoded[0].clear()
    first = samples.values([8, 2, 3, 0])
    assert medium.decoded[0] == ["8.png", "3.png"]
    again = read_datasets(datasets, folders, medium, 3 * 16, root, one).samples
    medium.decoded[0].clear()
    for _ in range(2):
        np.testing.assert_array_equal(again.values([8, 2, 3, 0]), first)
    assert medium.decoded[0] == ["8.png", "2.png", "3.png", "0.png", "0.png"]
