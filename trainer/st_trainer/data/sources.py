"""The source of a dataset: what holds its files or rows, and how they become samples."""

import os
from pathlib import Path

from st_shared.spec.dataset import BUCKET_SCHEME, DatasetSpec
from st_trainer.bounds import bound_of
from st_trainer.data.bucket_files import BucketFiles, connect_bucket
from st_trainer.data.csv_rows import CsvRows
from st_trainer.data.file_source import FileSource
from st_trainer.data.files import Files, LocalFiles
from st_trainer.data.huggingface_rows import HuggingfaceRows
from st_trainer.data.locate import Place
from st_trainer.data.medium import Medium
from st_trainer.data.object_cache import ObjectCache
from st_trainer.data.parquet_rows import ParquetRows
from st_trainer.data.source import Source
from st_trainer.data.table_source import TableSource
from st_trainer.data.tar_files import TarFiles
from st_trainer.errors import BadDataError

BOUND_VARIABLE = "ST_DATA_CACHE_GB"
"""Most that is kept of buckets, GB, where that is less than the specification allows."""
_ENDS = (".tar", ".parquet", ".csv")
"""What a path ends with that names one file, not a folder."""


def make_source(dataset: DatasetSpec, place: Place, medium: Medium, cache: Path) -> Source:
    """The source of ``dataset`` at ``place``; what it fetches or notes lies below ``cache``.

    Raises:
        BadDataError: the place cannot be read, or has not the columns that are wanted.
    """
    if dataset.format == "huggingface":
        return TableSource(HuggingfaceRows(place, dataset), None, dataset, medium)
    folder, chosen = _folder_and_file(place)
    notes = cache / "notes"
    files = _files(dataset, folder, cache)
    match dataset.format:
        case "parquet":
            return TableSource(ParquetRows(files, chosen), files, dataset, medium)
        case "csv":
            return TableSource(CsvRows(files, notes, chosen), files, dataset, medium)
        case "webdataset":
            return FileSource(TarFiles(files, notes, chosen), dataset, medium)
        case "files":
            return FileSource(files, dataset, medium, _conditions(dataset, folder, cache))


def _folder_and_file(place: Place) -> tuple[Place, str | None]:
    """The folder, and the one file in it that is meant, if it is one."""
    if isinstance(place, Path):
        return (place.parent, place.name) if place.is_file() else (place, None)
    if place.lower().endswith(_ENDS):
        folder, _, file = place.rpartition("/")
        return folder, file
    return place, None


def _files(dataset: DatasetSpec, folder: Place, cache: Path) -> Files:
    """All files of the dataset but its conditioning pictures."""
    if isinstance(folder, Path):
        return LocalFiles(folder, _conditions_folder(dataset, folder))
    apart = None if dataset.conditioning_suffix else dataset.conditioning
    return _bucket(dataset, folder, cache, f"{apart.strip('/')}/" if apart else None)


def _conditions(dataset: DatasetSpec, folder: Place, cache: Path) -> Files | None:
    """The conditioning pictures, where they lie in a folder of their own."""
    if dataset.conditioning is None or dataset.conditioning_suffix:
        return None
    if isinstance(folder, Path):
        return LocalFiles(folder / dataset.conditioning)
    if dataset.conditioning.startswith(BUCKET_SCHEME):
        return _bucket(dataset, dataset.conditioning, cache, None)
    return _bucket(dataset, f"{folder.rstrip('/')}/{dataset.conditioning}", cache, None)


def _conditions_folder(dataset: DatasetSpec, folder: Path) -> Path | None:
    if dataset.conditioning is None or dataset.conditioning_suffix:
        return None
    return folder / dataset.conditioning


def _bucket(dataset: DatasetSpec, uri: str, cache: Path, apart: str | None) -> Files:
    if not uri.startswith(BUCKET_SCHEME):
        raise BadDataError(f"training.datasets: {uri} is neither a folder nor s3://bucket/prefix")
    store, place = connect_bucket(uri, dataset.endpoint_url, os.environ)
    most = bound_of(os.environ, BOUND_VARIABLE, dataset.cache_gb)
    kept = ObjectCache(cache / "objects", int(most * 1e9))
    return BucketFiles(store, place, kept, apart, in_pieces=dataset.reads_headers)
