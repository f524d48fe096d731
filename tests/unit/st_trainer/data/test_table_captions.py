"""Captions of tables: out of columns, out of parts of columns, out of JSON, or out of none."""

import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from st_shared.spec import DatasetSpec
from st_trainer.data.images import Images
from st_trainer.data.reading import read_datasets

TEXTS = {"long": "a red square", "tags": ["red", "square"]}


@pytest.fixture
def table(tmp_path):
    """One row; its picture has a path."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    row = {
        "image": {"bytes": file.getvalue(), "path": "deep/red_square-1.png"},
        "caption": "usual",
        "text": "second choice",
        "texts": TEXTS,
        "a.b": "with a dot in its name",
        "json": json.dumps({"caption": ["one", "two"], "texts": TEXTS}),
        "struct": {"caption": "in a struct", "texts": TEXTS},
    }
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "table.parquet")
    return tmp_path / "table.parquet"


def captions(place, **options):
    columns = options.pop("columns", {})
    spec = DatasetSpec(path=str(place), format=place.suffix[1:], captions=options, columns=columns)
    reading = read_datasets([spec], [place], Images(3, 8, 8))
    return [each for part in reading.samples._parts for shard in part.index.shards
            for each in shard.captions_of(0)]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, ["usual"]),
        ({"column": "text"}, ["second choice"]),
        ({"column": "texts.long"}, ["a red square"]),
        ({"column": "texts.tags"}, ["red", "square"]),
        ({"column": "texts.tags", "several": "first"}, ["red"]),
        ({"column": "a.b"}, ["with a dot in its name"]),
        ({"source": "json"}, ["one", "two"]),
        ({"source": "json", "key": "texts.long"}, ["a red square"]),
        ({"source": "json", "column": "struct"}, ["in a struct"]),
        ({"source": "json", "column": "struct", "key": "texts.tags"}, ["red", "square"]),
        ({"source": "name"}, ["red square 1"]),
        ({"source": "instance", "instance_prompt": "sks square"}, ["sks square"]),
        ({"prefix": "photo, ", "replace": {"u+": "o"}}, ["photo, osoal"]),
    ],
)
def test_every_source_of_captions(table, options, found):
    assert captions(table, **options) == found


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, ["usual, long"]),
        ({"column": "other", "lines": "each"}, ["one", "two"]),
        ({"source": "json", "column": "document", "key": "texts.tags"}, ["red", "square"]),
        ({"source": "name"}, ["red square 1"]),
        ({"source": "instance", "instance_prompt": "sks"}, ["sks"]),
    ],
)
def test_every_source_of_captions_in_csv(tmp_path, options, found):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red_square-1.png")
    with (tmp_path / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption", "other", "document"])
        document = json.dumps({"texts": TEXTS})
        writer.writerow(["red_square-1.png", "usual, long", "one\ntwo", document])
    assert captions(tmp_path / "table.csv", **options) == found
