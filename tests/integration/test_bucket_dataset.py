"""Datasets in a bucket of a real S3 server, against the contract of all sources."""

import io
import shutil
import tarfile
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from accelerate.state import AcceleratorState, GradientState, PartialState
from bucket_server import connect, serve_buckets, use_buckets
from source_contract import (
    DAMAGED,
    Counted,
    Held,
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
from st_trainer.data.reading import read_datasets
from st_trainer.errors import BadDataError

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
