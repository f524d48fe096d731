import hashlib
import io
import os
import tarfile

import pytest

from st_client.errors import BadInputError, ConflictError
from st_client.packing import pack, read_folder


def fill(root, files):
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


PAIR = {"a.png": b"image", "a.txt": b"a caption"}


def unpacked(archives):
    found = {}
    for archive in archives:
        data = b"".join(archive.pieces())
        assert len(data) == archive.size
        assert hashlib.sha256(data).hexdigest() == archive.sha256
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            found |= {item.name: tar.extractfile(item).read() for item in tar.getmembers()}
    return found


def test_an_archive_holds_the_folder(tmp_path):
    files = PAIR | {"sub/ü b.JPG": os.urandom(2_000_000), "sub/ü b.txt": b"", "x" * 150: b"long"}
    folder = read_folder(fill(tmp_path, files))
    assert (folder.samples, folder.size) == (2, sum(map(len, files.values())))
    assert unpacked(pack(folder)) == files


@pytest.mark.parametrize("name", ["a.webp", "a.MP4", "a.flac"])
def test_pictures_videos_and_sounds_with_captions_are_samples(tmp_path, name):
    assert read_folder(fill(tmp_path, {name: b"x", "a.txt": b"", "b.wav": b"x"})).samples == 1


@pytest.mark.parametrize("name", ["shard-0.tar", "table.parquet", "data.CSV", "part.arrow"])
def test_archives_and_tables_are_counted_where_nothing_else_is(tmp_path, name):
    assert read_folder(fill(tmp_path, {name: b"x", "state.json": b"{}"})).samples == 1
    assert read_folder(fill(tmp_path, {"a.png": b"x", "a.txt": b"", "b.png": b""})).samples == 1


def test_the_same_files_give_the_same_bytes_anywhere(tmp_path):
    one = fill(tmp_path / "one", PAIR)
    two = fill(tmp_path / "two", dict(reversed(PAIR.items())))
    os.utime(two / "a.png", (0, 0))
    (two / "a.txt").chmod(0o600)
    first, second = read_folder(one), read_folder(two)
    assert first.digest == second.digest
    assert [item.sha256 for item in pack(first)] == [item.sha256 for item in pack(second)]


@pytest.mark.parametrize("change", [{"a.png": b"imagE"}, {"b.txt": b""}])
def test_other_files_give_another_digest(tmp_path, change):
    before = read_folder(fill(tmp_path, PAIR)).digest
    assert read_folder(fill(tmp_path, change)).digest != before


def test_the_digest_is_the_documented_one(tmp_path):
    lines = [
        f"{name}\0{len(data)}\0{hashlib.sha256(data).hexdigest()}\n"
        for name, data in sorted(PAIR.items())
    ]
    expected = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert read_folder(fill(tmp_path, PAIR)).digest == expected


def test_archives_stay_below_their_limit(tmp_path):
    files = {f"{index}.png": os.urandom(3000) for index in range(10)} | {"0.txt": b"x"}
    folder = read_folder(fill(tmp_path, files))
    archives = pack(folder, limit=10_000)
    assert len(archives) > 2
    assert all(archive.size <= 10_000 for archive in archives)
    assert unpacked(archives) == files
    assert len(pack(folder, limit=1)) == len(files)


def test_hidden_files_are_left_out(tmp_path):
    fill(tmp_path, PAIR | {".complete": b"", ".git/x.png": b"", "sub/.hidden": b""})
    assert [file.path for file in read_folder(tmp_path).files] == ["a.png", "a.txt"]


@pytest.mark.parametrize(
    "files", [{}, {"a.png": b""}, {"a.txt": b""}, {"a.png": b"", "b.txt": b""}]
)
def test_a_folder_without_captioned_images_is_refused(tmp_path, files):
    with pytest.raises(BadInputError, match="no image, video or sound with a caption"):
        read_folder(fill(tmp_path, files))


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(BadInputError, match="not a folder"):
        read_folder(tmp_path / "none")
    fill(tmp_path, PAIR)
    (tmp_path / "broken.png").symlink_to("nowhere")
    with pytest.raises(BadInputError, match=r"broken\.png"):
        read_folder(tmp_path)


@pytest.mark.parametrize("changed", [b"IMAGE", b"imag", b"image more"])
def test_a_file_that_changes_meanwhile_is_noticed(tmp_path, changed):
    [archive] = pack(read_folder(fill(tmp_path, PAIR)))
    fill(tmp_path, {"a.png": changed})
    with pytest.raises(ConflictError, match=r"a\.png changed"):
        list(archive.pieces())
