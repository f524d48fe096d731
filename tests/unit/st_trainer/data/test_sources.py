"""Every format against the contract; buckets are in ``tests/integration``."""

import io
import shutil
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from source_contract import Held, check_batches, check_changes, check_damage, pictures, read

from st_shared.spec import DatasetSpec
from st_trainer.data import parquet_rows
from st_trainer.data.images import Images
from st_trainer.data.reading import read_datasets
from st_trainer.errors import BadDataError


def put_files(folder, made):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for each in made:
        (folder / each.name).write_bytes(each.content)
        (folder / each.name).with_suffix(".txt").write_text(each.caption)


def in_folder(tmp_path):
    def hold(made):
        put_files(tmp_path / "folder", made)
        return Held(tmp_path / "folder")

    return hold


def add(archive, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def in_archives(tmp_path):
    def hold(made):
        folder = tmp_path / "shards"
        folder.mkdir(exist_ok=True)
        for number, part in enumerate((made[:5], made[5:])):
            with tarfile.open(folder / f"shard-{number}.tar", "w") as archive:
                for each in part:
                    stem = each.name.removesuffix(".png")
                    add(archive, f"{stem}.txt", each.caption.encode())
                    add(archive, each.name, each.content)
        return Held(folder, {"format": "webdataset"})

    return hold


def in_parquet(tmp_path):
    def hold(made):
        cells = [{"bytes": each.content, "path": each.name} for each in made]
        table = pa.table({"image": cells, "text": [each.caption for each in made]})
        pq.write_table(table, tmp_path / "table.parquet", row_group_size=3)
        return Held(tmp_path / "table.parquet", {"format": "parquet"})

    return hold


def in_parquet_that_names_files(tmp_path):
    def hold(made):
        put_files(tmp_path / "linked", made)
        names = [each.name for each in made]
        table = pa.table({"file": names, "long": [[each.caption] for each in made]})
        pq.write_table(table, tmp_path / "linked/table.parquet")
        columns = {"columns": {"sample": "file"}, "captions": {"column": "long"}}
        return Held(tmp_path / "linked", {"format": "parquet", **columns})

    return hold


def in_csv(tmp_path):
    def hold(made):
        put_files(tmp_path / "csv", made)
        lines = ["image,caption", *(f'{each.name},"{each.caption}"' for each in made)]
        (tmp_path / "csv/table.csv").write_text("\n".join(lines))
        return Held(tmp_path / "csv/table.csv", {"format": "csv"})

    return hold


def in_huggingface(tmp_path):
    def hold(made):
        import datasets

        cells = [{"bytes": each.content, "path": each.name} for each in made]
        found = datasets.Dataset.from_dict(
            {"image": cells, "caption": [each.caption for each in made]},
            features=datasets.Features(
                {"image": datasets.Image(), "caption": datasets.Value("string")}
            ),
        )
        shutil.rmtree(tmp_path / "saved", ignore_errors=True)
        datasets.DatasetDict({"train": found}).save_to_disk(tmp_path / "saved")
        return Held(tmp_path / "saved", {"format": "huggingface"})

    return hold


FORMATS = {
    each.__name__.removeprefix("in_"): each
    for each in (in_archives, in_parquet, in_parquet_that_names_files, in_csv, in_huggingface)
}


@pytest.fixture(params=FORMATS)
def hold(request, tmp_path):
    return FORMATS[request.param](tmp_path)


def test_batches_and_resume_are_those_of_a_folder(hold, tmp_path):
    check_batches(hold, in_folder(tmp_path), tmp_path)


def test_what_is_damaged_is_told_and_left_out(hold, tmp_path):
    check_damage(hold, tmp_path)


def test_changes_are_noticed(hold, tmp_path):
    check_changes(hold, tmp_path)


@pytest.mark.parametrize("left", [0, 40])
@pytest.mark.parametrize("make", [in_archives, in_csv])
def test_notes_that_were_torn_are_made_anew(make, left, tmp_path):
    held = make(tmp_path)(pictures())
    before, _ = read(held, tmp_path / "index")
    notes = list((tmp_path / "index/notes").iterdir())
    assert notes
    for path in notes:
        path.write_bytes(path.read_bytes()[:left])
    after, _ = read(held, tmp_path / "index")
    assert after.samples.sha256 == before.samples.sha256


def test_an_archive_that_ends_early_is_told_and_what_lies_before_is_read(tmp_path):
    held = in_archives(tmp_path)(pictures())
    archive = held.place / "shard-1.tar"
    archive.write_bytes(archive.read_bytes()[:5_500])  # in the third of its six samples
    reading, _ = read(held, tmp_path / "index")
    told = {remark.name: remark.text for remark in reading.skipped}
    assert "damaged archive" in told["shard-1.tar"]
    assert len(reading.samples) == 6


@pytest.mark.parametrize("size", [1 << 80, -1024], ids=["huge", "negative"])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, b"Z"], ids=["file", "unknown"])
def test_an_archive_with_an_impossible_size_is_told(tmp_path, size, kind):
    """A negative one would lead tarfile back to the same member for ever."""
    held = in_archives(tmp_path)(pictures())
    member = tarfile.TarInfo("09.png")
    member.size, member.type = size, kind
    archive = held.place / "shard-2.tar"
    archive.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(2 * tarfile.BLOCKSIZE))
    reading, _ = read(held, tmp_path / "index")
    told = {remark.name: remark.text for remark in reading.skipped}
    assert "damaged archive" in told["shard-2.tar"]
    assert len(reading.samples) == 10


def test_a_text_in_parquet_that_is_no_text_leaves_out_its_row(tmp_path):
    held = in_parquet(tmp_path)(pictures())
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    pq.write_table(pq.read_table(held.place), held.place, row_group_size=3, **plain)
    whole = held.place.read_bytes()
    assert whole.count(b"noise 7") == 1
    held.place.write_bytes(whole.replace(b"noise 7", b"noise \xff"))
    reading, _ = read(held, tmp_path / "index")
    assert len(reading.samples) == 9
    assert any("damaged parquet file" in remark.text for remark in reading.skipped)


def test_a_damaged_parquet_file_is_told_and_the_others_are_read(tmp_path):
    held = in_parquet_that_names_files(tmp_path)(pictures())
    (held.place / "z.parquet").write_bytes(b"PAR1 but no more")
    reading, _ = read(held, tmp_path / "index")
    told = [remark.text for remark in reading.skipped if remark.name.startswith("z.parquet/")]
    assert len(told) == 1
    assert "damaged parquet file z.parquet" in told[0]
    assert len(reading.samples) == 10


def test_large_groups_of_rows_are_read_once_in_their_order(tmp_path, monkeypatch):
    """Two stay even where each is larger than what may be kept, for each set of columns."""
    monkeypatch.setattr(parquet_rows, "KEPT_BYTES", 1)
    read_groups, real = [], pq.ParquetFile.read_row_group

    def counted(self, group, columns):
        read_groups.append((group, *columns))
        return real(self, group, columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    read(in_parquet(tmp_path)(pictures()), tmp_path / "index")
    assert sorted(read_groups) == sorted(
        (group, column) for group in range(4) for column in ("image", "text")
    )


def test_a_row_of_a_csv_file_with_other_fields_is_told_with_its_line(tmp_path):
    held = in_csv(tmp_path)(pictures())
    more = b"\n04.png,a,b\n\n05.png,last\n06.png,caf\xe9\n"
    held.place.write_bytes(held.place.read_bytes() + more)
    reading, _ = read(held, tmp_path / "index")
    told = [remark.text for remark in reading.skipped]
    assert {"line 13 has 3 fields, not 2", "line 16 is not UTF-8 text"} < set(told)
    assert len(reading.samples) == 11


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret.png", "a/../../x.png", "a\0b.png"])
def test_a_table_names_nothing_outside_its_folder(tmp_path, path):
    held = in_csv(tmp_path)(pictures())
    held.place.write_text(f"image,caption\n{path},x\n04.png,y")
    reading, _ = read(held, tmp_path / "index")
    shown = path.replace("a\0b.png", r"'a\x00b.png'")
    assert f"names {shown}, which is not below the folder" in reading.skipped[0].text


@pytest.mark.parametrize(
    ("make", "options", "said"),
    [
        (
            in_csv,
            {"columns": {"sample": "picture"}},
            r"table\.csv has no column 'picture'; it has image, caption",
        ),
        (in_parquet, {"columns": {"mask": "m"}}, r"has no column 'm'"),
        (in_parquet, {"columns": {"conditioning": "edges"}}, r"has no column 'edges'"),
        (in_parquet, {"captions": {"column": "x.y"}}, r"no column 'x'.*captions\.column"),
    ],
)
def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path, make, options, said):
    held = make(tmp_path)(pictures())
    spec = DatasetSpec.model_validate({"path": str(held.place), **held.options, **options})
    with pytest.raises(BadDataError, match=said):
        read_datasets([spec], [held.place], Images(3, 8, 8))


def test_a_folder_that_is_no_dataset_of_hugging_face_is_refused(tmp_path):
    (tmp_path / "state.json").write_text("{}")
    spec = DatasetSpec(path=str(tmp_path), format="huggingface")
    with pytest.raises(BadDataError, match="cannot be read as a dataset of Hugging Face"):
        read_datasets([spec], [tmp_path], Images(3, 8, 8))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"format": "csv", "mask_suffix": ".m.png"}, "mask_suffix means nothing for format csv"),
        ({"columns": {"mask": "m"}}, "columns means nothing for format files"),
        ({"split": "test"}, "split means nothing for format files"),
        ({"captions": {"column": "a"}}, "captions.column means nothing for format files"),
        ({"format": "csv", "captions": {"source": "file"}}, "captions.source file means nothing"),
        ({"endpoint_url": "https://a"}, "endpoint_url means nothing"),
        ({"captions": {"source": "instance"}}, "instance_prompt is missing"),
        ({"captions": {"keep_first": 1}}, "keep_first means nothing without shuffle"),
        ({"captions": {"replace": {"(": ""}}}, "no regular expression"),
        ({"format": "webdataset", "conditioning": "edges"}, "conditioning edges is a folder, but"),
        ({"only": {"min_side": 9, "max_side": 8}}, "min_side 9 is more than max_side 8"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        DatasetSpec.model_validate({"path": "x", **options})
