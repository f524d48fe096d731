"""Pictures, videos and sounds are the same samples in every format that holds them."""

import csv
import json
import tarfile
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from fixtures.media import write_samples
from PIL import Image

from st_shared.spec import DatasetSpec
from st_trainer.data.images import Images
from st_trainer.data.index import Peers
from st_trainer.data.reading import read_datasets
from st_trainer.data.sounds import Sounds
from st_trainer.data.videos import Videos

MEDIA = {
    "image": (Images(3, 8, 16), (3, 8, 16)),
    "video": (Videos(5, 16, 32, 8), (3, 5, 16, 32)),
    "audio": (Sounds(800, 8000), (2, 800)),
}


def files_of(folder):
    """The samples in ``folder``, without their captions."""
    return sorted(path for path in folder.iterdir() if path.suffix not in {".txt", ".csv"})


def captions_of(folder):
    return [path.with_suffix(".txt").read_text() for path in files_of(folder)]


def in_archive(folder, _kind):
    place = folder.with_name("archive")
    place.mkdir()
    with tarfile.open(place / "shard.tar", "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name)
    return DatasetSpec(path=str(place), format="webdataset")


def in_parquet(folder, kind):
    """Bytes that nobody has given a name."""
    cells = [path.read_bytes() for path in files_of(folder)]
    table = pa.table({kind: cells, "caption": captions_of(folder)})
    pq.write_table(table, folder.with_name("table.parquet"))
    return DatasetSpec(path=str(folder.with_name("table.parquet")), format="parquet")


def in_csv(folder, kind):
    pairs = zip(files_of(folder), captions_of(folder), strict=True)
    lines = [f"{kind},caption", *(f"{path.name},{caption}" for path, caption in pairs)]
    (folder / "table.csv").write_text("\n".join(lines))
    return DatasetSpec(path=str(folder / "table.csv"), format="csv")


def in_huggingface(folder, kind):
    import datasets

    feature = {"image": datasets.Image, "video": datasets.Video, "audio": datasets.Audio}[kind]
    cells = [{"bytes": path.read_bytes(), "path": path.name} for path in files_of(folder)]
    features = datasets.Features({kind: feature(), "caption": datasets.Value("string")})
    table = pa.table({kind: cells, "caption": captions_of(folder)}, features.arrow_schema)
    found = datasets.Dataset(datasets.table.InMemoryTable(table))  # encodes nothing anew
    found.save_to_disk(folder.with_name("saved"))
    return DatasetSpec(path=str(folder.with_name("saved")), format="huggingface")


def read(spec, medium, root):
    places = [Path(str(spec.path))]
    return read_datasets([spec], places, medium, root=root / "index", peers=Peers(threads=1))


@pytest.mark.parametrize("kind", MEDIA)
@pytest.mark.parametrize("hold", [in_archive, in_parquet, in_csv, in_huggingface])
def test_they_are_those_of_a_folder(hold, kind, tmp_path):
    medium, shape = MEDIA[kind]
    folder = write_samples(tmp_path / "folder", medium, shape, count=2)
    ours = read(hold(folder, kind), medium, tmp_path)
    theirs = read(DatasetSpec(path=str(folder)), medium, tmp_path)
    assert not ours.skipped
    assert list(ours.samples.captions) == list(theirs.samples.captions) == captions_of(folder)
    values = ours.samples.values([0, 1])
    assert values.shape == (2, *shape)
    assert torch.equal(values, theirs.samples.values([0, 1]))


def test_a_nameless_avi_is_no_webp(tmp_path):
    """Both begin with ``RIFF``."""
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width = stream.height = 16
        for grey in range(0, 250, 50):
            picture = np.full((16, 16, 3), grey, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())
    cells = [(tmp_path / "a.avi").read_bytes()]
    pq.write_table(pa.table({"video": cells, "text": ["grey"]}), tmp_path / "table.parquet")
    spec = DatasetSpec(path=str(tmp_path / "table.parquet"), format="parquet")
    for frames in (1, 5):
        assert not read(spec, Videos(frames, 16, 16, 8), tmp_path).skipped


ENDS = {"mask": ".mask.png", "conditioning": ".edges.png"}
BESIDE = {"mask_suffix": ENDS["mask"], "conditioning": ENDS["conditioning"]}
JSON = {"source": "json", "key": "texts.long"}


@pytest.fixture
def surrounded(tmp_path):
    """Pictures, each with a mask, a conditioning picture and captions in JSON beside it."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(2):
        noise = np.random.default_rng(number).integers(0, 256, (3, 8, 16, 3), np.uint8)
        for end, pixels in zip((".png", *ENDS.values()), noise, strict=True):
            Image.fromarray(pixels).save(folder / f"{number}{end}")
        texts = {"texts": {"long": [f"a {number}", "other"], "short": "x"}}
        (folder / f"{number}.json").write_text(json.dumps(texts))
    return folder


def beside_in_archive(folder):
    with tarfile.open(folder.with_name("shard.tar"), "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name)
    place = str(folder.with_name("shard.tar"))
    return DatasetSpec(path=place, format="webdataset", captions=JSON, **BESIDE)


def beside_in_parquet(folder):
    columns = {
        name: [(folder / f"{number}{end}").read_bytes() for number in range(2)]
        for name, end in {"image": ".png", **ENDS}.items()
    }
    documents = [json.loads((folder / f"{number}.json").read_text()) for number in range(2)]
    table = pa.table({**columns, "said": documents})
    pq.write_table(table, folder.with_name("table.parquet"))
    return DatasetSpec(
        path=str(folder.with_name("table.parquet")),
        format="parquet",
        columns={name: name for name in ENDS},
        captions={**JSON, "column": "said"},
    )


def beside_in_csv(folder):
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", *ENDS, "json"])
        for number in range(2):
            files = [f"{number}{end}" for end in (".png", *ENDS.values())]
            writer.writerow([*files, (folder / f"{number}.json").read_text()])
    columns = {name: name for name in ENDS}
    return DatasetSpec(path=str(folder / "table.csv"), format="csv", columns=columns, captions=JSON)


@pytest.mark.parametrize("hold", [beside_in_archive, beside_in_parquet, beside_in_csv])
def test_what_lies_beside_is_that_of_a_folder(hold, surrounded, tmp_path):
    medium = Images(3, 8, 8)
    spec = DatasetSpec(path=str(surrounded), captions=JSON, **BESIDE)
    theirs = read(spec, medium, tmp_path).samples
    ours = read(hold(surrounded), medium, tmp_path).samples
    assert len(ours) == len(theirs) == 2
    for found in ("masks", "conditioning", "values"):
        assert torch.equal(getattr(ours, found)([0, 1]), getattr(theirs, found)([0, 1]))
    assert list(ours.captions) == list(theirs.captions) == ["a 0", "other", "a 1", "other"]
    assert ours.contents([0, 1]) == theirs.contents([0, 1])


@pytest.mark.parametrize("what", ENDS)
def test_what_a_row_names_is_read_again_once_it_changed(what, surrounded, tmp_path):
    spec, medium = beside_in_csv(surrounded), Images(3, 8, 8)
    found = []
    for shade in (1, 2):
        Image.new("RGB", (160 * shade, 80 * shade), (shade, 0, 0)).save(
            surrounded / f"0{ENDS[what]}"
        )
        place = Path(spec.path)
        reading = read_datasets([spec], [place], medium, root=tmp_path / "index")
        found.append((reading.samples.sha256, *reading.samples.conditioning_contents([0])))
    assert found[0][0] != found[1][0]
    assert (found[0][1] != found[1][1]) is (what == "conditioning")


@pytest.mark.parametrize("format_", ["files", "webdataset", "parquet"])
def test_what_is_sung_stands_in_a_file_beside_or_in_a_column(format_, tmp_path):
    medium, shape = MEDIA["audio"]
    folder = write_samples(tmp_path / "folder", medium, shape, count=2)
    (folder / "1.lyrics.txt").write_text("[verse]\nla la\n")
    place, columns = folder, {}
    if format_ == "webdataset":
        place = Path(str(in_archive(folder, "audio").path))
    elif format_ == "parquet":
        place, columns = tmp_path / "table.parquet", {"lyrics": "sung"}
        cells = [(folder / f"{number}.wav").read_bytes() for number in range(2)]
        texts = {"caption": ["blue box", "red"], "sung": [None, "[verse]\nla la\n"]}
        pq.write_table(pa.table({"audio": cells, **texts}), place)
    spec = DatasetSpec(path=str(place), format=format_, columns=columns)
    samples = read(spec, medium, tmp_path).samples
    assert list(samples.captions) == ["blue box", "red\n[verse]\nla la"]
