"""Datasets in a bucket of a real S3 server, against the contract of all sources."""

import io
import shutil
import tarfile
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from bucket_server import connect, serve_buckets, use_buckets
from PIL import Image
from source_contract import (
    DAMAGED,
    Counted,
    Held,
    Picture,
    check_batches,
    check_changes,
    check_damage,
    pictures,
    read,
)

from st_shared.objectstore import S3Store
from st_shared.protocol.journal import ExitCode
from st_shared.spec import DatasetSpec, TrainingSpec
from st_trainer.command import run_command
from st_trainer.data.images import Images
from st_trainer.data.picture_header import TAIL_BYTES
from st_trainer.data.ranged_file import BLOCK_BYTES, FIRST_BYTES
from st_trainer.data.reading import read_datasets
from st_trainer.data.sounds import Sounds
from st_trainer.data.videos import Videos
from st_trainer.errors import BadDataError
from st_trainer.recordings import write_sound, write_video

BUCKET = "datasets"


@pytest.fixture(scope="module")
def nanio_url(tmp_path_factory):
    with serve_buckets(tmp_path_factory.mktemp("nanio")) as url:
        yield url


@pytest.fixture
def store(nanio_url, tmp_path, monkeypatch):
    """Below a prefix of its own; the environment names server and keys, as for AWS."""
    use_buckets(monkeypatch, tmp_path, AWS_ENDPOINT_URL=nanio_url)
    store = connect(nanio_url, BUCKET, f"{tmp_path.name}/set")
    yield store
    store._client.close()


@pytest.fixture
def hold(store, tmp_path):
    def hold(made):
        for each in made:
            store.put(each.name, io.BytesIO(each.content))
            stem = each.name.removesuffix(".png")
            store.put(f"{stem}.txt", io.BytesIO(each.caption.encode()))
        return Held(f"s3://{BUCKET}/{tmp_path.name}/set")

    return hold


@pytest.fixture
def folder(tmp_path):
    def hold(made):
        shutil.rmtree(tmp_path / "folder", ignore_errors=True)
        (tmp_path / "folder").mkdir()
        for each in made:
            (tmp_path / "folder" / each.name).write_bytes(each.content)
            (tmp_path / "folder" / each.name).with_suffix(".txt").write_text(each.caption)
        return Held(tmp_path / "folder")

    return hold


def test_batches_and_resume_are_those_of_a_folder(hold, folder, tmp_path):
    check_batches(hold, folder, tmp_path)


def archive_of(made):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for each in made:
            stem = each.name.removesuffix(".png")
            for name, content in (
                (each.name, each.content),
                (f"{stem}.txt", each.caption.encode()),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return "shard-0.tar", file.getvalue()


def parquet_of(made):
    file = io.BytesIO()
    columns = {"image": [each.content for each in made], "text": [each.caption for each in made]}
    pq.write_table(pa.table(columns), file, row_group_size=4)
    return "table.parquet", file.getvalue()


def csv_of(made):
    """Its pictures are objects of their own, which ``hold`` has put there."""
    lines = ["image,caption", *(f"{each.name},{each.caption}" for each in made)]
    return "table.csv", "\n".join(lines).encode()


@pytest.mark.parametrize(
    ("format_", "make", "is_named"),
    [("webdataset", archive_of, False), ("parquet", parquet_of, True), ("csv", csv_of, True)],
)
def test_archives_and_tables_lie_in_buckets_too(
    hold, folder, store, tmp_path, format_, make, is_named
):
    name, content = make(pictures())

    def held(made):
        place = hold(made).place if format_ == "csv" else f"s3://{BUCKET}/{tmp_path.name}/set"
        store.put(name, io.BytesIO(content))
        return Held(f"{place}/{name}" if is_named else place, {"format": format_})

    check_batches(held, folder, tmp_path)


def test_what_is_damaged_is_told_and_left_out(hold, tmp_path):
    check_damage(hold, tmp_path)


def test_changes_are_noticed(hold, tmp_path):
    check_changes(hold, tmp_path)


@pytest.mark.parametrize("grows", [False, True])
def test_damaged_objects_go_once_told_unless_they_were_written_anew(hold, store, tmp_path, grows):
    made = pictures()
    torn = [replace(made[0], content=made[0].content[:60]), *made[1:]]
    held = hold(torn)
    spec = DatasetSpec(path=held.place, damaged="delete")
    medium = Counted(3, 8, 8)
    if grows:

        class Growing(Counted):
            def read(self, content):
                try:
                    return super().read(content)
                finally:
                    if content.name == torn[0].name:
                        store.put(content.name, io.BytesIO(made[0].content))

        medium = Growing(3, 8, 8)
    reading = read_datasets([spec], [held.place], medium, root=tmp_path / "index")
    told = {each.name: each.text for each in reading.skipped}
    end = "; not deleted: it was written anew meanwhile" if grows else "; deleted"
    assert told[torn[0].name].endswith(end)
    assert "deleted" not in told[DAMAGED]  # which is no picture at all
    left = {each.key for each in store.list("")}
    assert (torn[0].name in left) == grows
    assert len(left) == 2 * len(made) - (not grows)


def test_what_was_fetched_is_not_fetched_again(hold, tmp_path, monkeypatch):
    held, asked, real = hold(pictures()), [], S3Store.open
    monkeypatch.setattr(S3Store, "open", lambda self, key: asked.append(key) or real(self, key))
    reading, _ = read(held, tmp_path / "index")
    assert len(asked) == len(set(asked)) == 22
    reading.samples.values([1, 2])
    read(held, tmp_path / "index")
    assert len(asked) == 22


def test_pictures_for_a_controlnet_lie_below_the_same_prefix(hold, store, tmp_path):
    held = hold(pictures())
    store.put("edges/01.png", io.BytesIO(pictures()[2].content))
    spec = held.spec.model_copy(update={"conditioning": "edges"})
    reading = read_datasets([spec], [held.place], Images(3, 8, 8))
    assert reading.samples.names([0]) == ["01.png"]
    assert reading.samples.conditioning([0]).shape == (1, 3, 8, 8)
    told = {remark.name: remark.text for remark in reading.skipped}
    assert told["02.png"] == "no conditioning picture: 02.png is missing"
    assert not any(name.startswith("edges/") for name in told)


def test_a_bucket_that_is_not_there_says_what_to_look_at(store):
    spec = DatasetSpec(path="s3://no-such-bucket/x")
    with pytest.raises(BadDataError, match=r"cannot be listed.*name of the bucket"):
        read_datasets([spec], [spec.path], Images(3, 8, 8))


def test_a_run_trains_on_a_bucket_and_goes_on_from_its_cache(hold, store, tmp_path, monkeypatch):
    monkeypatch.setenv("ST_DATA_CACHE_DIR", str(tmp_path / "cache"))
    held = hold(pictures())
    config = {"image_size": 8, "channels": 3, "width": 16, "depth": 1, "heads": 2}
    spec = TrainingSpec.model_validate(
        {
            "model": {"family": "pixel_dit", "config": config},
            "datasets": [{"path": str(held.place)}],
            "steps": 4,
            "batch_size": 2,
            "checkpoint": {"every": 2},
        }
    )

    def run(name, resume="none", steps=99):
        asked = iter(range(100))
        result = run_command(
            spec, tmp_path / name, {}, environment={}, resume=resume,
            stop=lambda: next(asked) >= steps,
        )  # fmt: skip
        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()  # the next process would not have them
        return result.exit_code

    assert run("whole") == ExitCode.SUCCEEDED
    asked, real = [], S3Store.open
    monkeypatch.setattr(S3Store, "open", lambda self, key: asked.append(key) or real(self, key))
    assert run("parts", steps=2) == ExitCode.PREEMPTED
    assert run("parts", "latest") == ExitCode.SUCCEEDED
    assert asked == []
    whole, parts = (tmp_path / name / "output/weights.safetensors" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()


def large(number, side=200):
    """A picture of noise that is larger than what is fetched of it first."""
    noise = np.random.default_rng(number).integers(0, 256, (side, side + 40 * (number % 2), 3))
    file = io.BytesIO()
    Image.fromarray(noise.astype(np.uint8)).save(file, "PNG")
    return Picture(f"{number:02d}.png", file.getvalue(), f"noise {number}")


@pytest.fixture
def fetched(monkeypatch):
    """Bytes that came out of the bucket, by object."""
    found = Counter()
    whole, part = S3Store.open, S3Store.read

    def open_(self, key):
        for piece in whole(self, key):
            found[key] += len(piece)
            yield piece

    def read(self, key, start, count, *, version=None):
        piece = part(self, key, start, count, version=version)
        found[key] += len(piece)
        return piece

    monkeypatch.setattr(S3Store, "open", open_)
    monkeypatch.setattr(S3Store, "read", read)
    return found


@dataclass(frozen=True)
class Seen(Images):
    """Images that note what is decoded."""

    decoded: list = field(default_factory=list, compare=False, repr=False)

    def read(self, content):
        self.decoded.append(content.name)
        return super().read(content)


def test_an_index_is_made_of_headers_and_says_what_decoding_would(hold, folder, tmp_path, fetched):
    made = [large(number) for number in range(6)]
    held, medium = hold(made), Seen(3, 16, 16, ((16, 16), (16, 20)))
    headers = read_datasets([held.spec], [held.place], medium, root=tmp_path / "a")
    small = sum(len(each.caption) for each in made)
    assert sum(fetched.values()) == small + sum(
        FIRST_BYTES + tail_of(len(each.content)) for each in made
    )
    assert medium.decoded == []
    fetched.clear()
    again = read_datasets([held.spec], [held.place], medium, root=tmp_path / "a")
    assert not fetched
    assert again.samples.sha256 == headers.samples.sha256
    local = folder(made)
    whole = read_datasets([local.spec], [local.place], medium, root=tmp_path / "b")
    every = range(6)
    for told in ("names", "shapes", "facts", "captions_at"):
        assert getattr(headers.samples, told)(every) == getattr(whole.samples, told)(every)
    assert headers.samples.buckets.tolist() == whole.samples.buckets.tolist()
    assert headers.changed == whole.changed
    assert torch.equal(headers.samples.values([0, 2]), whole.samples.values([0, 2]))


def tail_of(size):
    """Bytes of the blocks that hold the end of a PNG."""
    return size - (size - TAIL_BYTES) // BLOCK_BYTES * BLOCK_BYTES


def test_contents_tell_pictures_apart_and_follow_them_wherever_they_go(store, hold, tmp_path):
    def contents(names, crop="center", size=16):
        for each in store.list(""):
            store.delete(each.key)
        held = hold([replace(large(number), name=name) for name, number in names.items()])
        medium = Images(3, size, size, crop=crop)
        samples = read_datasets([held.spec], [held.place], medium).samples
        return dict(zip(samples.names(range(len(names))), samples.contents(range(len(names))),
                        strict=True))  # fmt: skip

    first = contents({"a.png": 0, "b.png": 1, "c.png": 0})
    assert first["a.png"] == first["c.png"] != first["b.png"]
    moved = contents({"x/d.png": 1, "y/e.png": 0})
    assert [moved["x/d.png"], moved["y/e.png"]] == [first["b.png"], first["a.png"]]
    assert contents({"a.png": 2})["a.png"] not in first.values()
    begins_alike = replace(large(0), name="b.png", content=large(0).content + bytes(9))
    held = hold([replace(large(0), name="a.png"), begins_alike])
    one, other = read_datasets([held.spec], [held.place], Images(3, 16, 16)).samples.contents(
        [0, 1]
    )
    assert first["a.png"] == one != other
    assert contents({"a.png": 0}, "corner")["a.png"] not in first.values()
    assert contents({"a.png": 0}, size=24)["a.png"] not in first.values()
    drawn = contents({"a.png": 0, "c.png": 0}, "random")
    assert drawn["a.png"] != drawn["c.png"]  # each is cut at a place of its own


def test_whole_objects_are_read_where_that_is_asked_for(hold, folder, tmp_path, fetched):
    made = [large(number) for number in range(3)]
    held, local = hold(made), folder(made)
    spec = DatasetSpec(path=held.place, discovery="whole")
    whole = read_datasets([spec], [held.place], Images(3, 16, 16), root=tmp_path / "a")
    assert fetched["00.png"] == len(made[0].content)
    theirs = read_datasets([local.spec], [local.place], Images(3, 16, 16), root=tmp_path / "b")
    assert whole.samples.sha256 == theirs.samples.sha256
    assert whole.samples.contents([0, 1, 2]) == theirs.samples.contents([0, 1, 2])


def test_conditioning_pictures_and_tables_are_read_by_their_headers_too(
    hold, store, tmp_path, fetched
):
    made = [large(number) for number in range(2)]
    held = hold(made)
    for each in made:
        store.put(f"edges/{each.name}", io.BytesIO(each.content))
    spec = DatasetSpec(path=held.place, conditioning="edges", conditioning_fit="strict")
    samples = read_datasets([spec], [held.place], Images(3, 16, 16), root=tmp_path / "a").samples
    assert fetched["00.png"] == 2 * (FIRST_BYTES + tail_of(len(made[0].content)))
    one, other = samples.conditioning_contents([0, 1])
    assert one != other
    fetched.clear()
    name, content = csv_of(made)
    store.put(name, io.BytesIO(content))
    place = f"{held.place}/{name}"
    spec = DatasetSpec(path=place, format="csv")
    rows = read_datasets([spec], [place], Images(3, 16, 16), root=tmp_path / "b").samples
    assert fetched["00.png"] == FIRST_BYTES + tail_of(len(made[0].content))
    assert rows.contents([0, 1]) == samples.contents([0, 1])


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_of_long_recordings_only_the_wanted_part_is_fetched(store, tmp_path, fetched, kind):
    folder = tmp_path / "set"
    folder.mkdir()
    if kind == "video":
        noise = np.random.default_rng(0).integers(0, 256, (3, 60, 64, 64), np.uint8)
        write_video(folder / "a.mp4", noise, 8)
        medium = Videos(frames=5, height=32, width=32, rate=8)
    else:
        noise = np.random.default_rng(0).uniform(-1, 1, (2, 8_000 * 60))
        write_sound(folder / "a.flac", noise, 8_000)
        medium = Sounds(length=8_000, rate=8_000, part="random")
    (path,) = folder.iterdir()
    store.put(path.name, io.BytesIO(path.read_bytes()))
    for place in (folder / "a.txt",):
        place.write_text("noise")
        store.put("a.txt", io.BytesIO(b"noise"))
    held = f"s3://{BUCKET}/{tmp_path.name}/set"
    reading = read_datasets([DatasetSpec(path=held)], [held], medium)
    assert fetched[path.name] < path.stat().st_size / 2
    local = read_datasets([DatasetSpec(path=str(folder))], [folder], medium)
    assert reading.samples.contents([0]) == local.samples.contents([0])
    assert reading.samples.facts([0]) == local.samples.facts([0])


def test_boxes_beside_large_pictures_are_kept_as_in_a_folder(store, hold, folder, tmp_path):
    held, local = hold([large(1)]), folder([large(1)])
    store.put("01.box.json", io.BytesIO(b"[200, 5, 230, 60]"))
    (local.place / "01.box.json").write_text("[200, 5, 230, 60]")
    crops = []
    for place in (held.place, local.place):
        spec = DatasetSpec(path=str(place), box_suffix=".box.json")
        reading = read_datasets([spec], [place], Images(3, 16, 16, crop="face"))
        crops.append(reading.samples.facts([0]))
    assert crops[0] == crops[1]
    assert crops[0][0].crop == (0, 3)


def test_headers_that_are_damaged_are_told_and_objects_that_change_too(hold, store, tmp_path):
    made = [large(number) for number in range(3)]
    broken = replace(made[1], content=b"no picture" + made[1].content)
    held = hold([made[0], broken, made[2]])

    class Late(Images):
        def found(self, content):
            if content.name == "02.png":
                store.put("02.png", io.BytesIO(large(4).content))
            return super().found(content)

    reading = read_datasets([held.spec], [held.place], Late(3, 16, 16))
    told = {each.name: each.text for each in reading.skipped}
    assert told == {
        "01.png": "not a PNG, JPEG or WebP image",
        "02.png": "it cannot be read: it was written anew meanwhile",
    }


def torn(picture):
    """Its header is fine, its pixels are not."""
    half = len(picture.content) // 2
    return replace(picture, content=picture.content[:half] + bytes(len(picture.content) - half))


def training(place, **changes):
    config = {"image_size": 16, "channels": 3, "width": 16, "depth": 1, "heads": 2, "patch_size": 8}
    document = {
        "model": {"family": "pixel_dit", "config": config},
        "datasets": [{"path": str(place)}],
        "steps": 4,
        "batch_size": 2,
        "checkpoint": {"every": 2},
        "ema": {"enabled": False},
    }
    return TrainingSpec.model_validate(document | changes)


def trained(spec, folder, resume="none", steps=99):
    asked = iter(range(100))
    result = run_command(
        spec, folder, {}, environment={}, resume=resume, stop=lambda: next(asked) >= steps
    )
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()  # the next process would not have them
    return result.exit_code, (folder / "output/weights.safetensors")


def test_damage_behind_a_header_is_told_and_another_is_learned_in_its_place(hold, tmp_path):
    """As if the next one stood there twice; what is learned does not depend on when it is found."""
    made = [
        replace(large(number * 2), name=f"{number}.png", caption="noise") for number in range(4)
    ]
    spec = training(hold([made[0], torn(made[1]), *made[2:]]).place)
    code, weights = trained(spec, tmp_path / "whole")
    assert code == ExitCode.SUCCEEDED
    journal = (tmp_path / "whole/journal.ndjson").read_text()
    assert journal.count("left out 1.png: damaged image") == 1
    assert trained(spec, tmp_path / "parts", steps=2)[0] == ExitCode.PREEMPTED
    assert trained(spec, tmp_path / "parts", "latest")[1].read_bytes() == weights.read_bytes()
    twice = [made[0], replace(made[2], name="1.png"), *made[2:]]
    code, same = trained(training(hold(twice).place), tmp_path / "twice")
    assert same.read_bytes() == weights.read_bytes()


def test_where_all_are_damaged_the_run_says_so(hold, tmp_path):
    spec = training(hold([torn(large(0)), torn(large(2))]).place)
    code, weights = trained(spec, tmp_path / "run")
    assert code == ExitCode.BAD_DATA
    assert not weights.exists()
