"""Pictures, videos and sounds are the same samples in every format that holds them."""

import tarfile
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from fixtures.media import write_samples

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
