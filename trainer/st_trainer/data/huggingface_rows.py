"""Rows of a dataset of Hugging Face's ``datasets``, which is imported only here."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from st_shared.spec.dataset import DatasetSpec
from st_trainer.data.locate import Place
from st_trainer.data.medium import UnreadableSampleError
from st_trainer.errors import BadDataError

_FILES = ("Image", "Audio", "Video")
"""Features that decode themselves; here they give the file as it is."""


class HuggingfaceRows:
    """A split of a folder of ``save_to_disk``, of a folder of data files, or of an id."""

    def __init__(self, place: Place, dataset: DatasetSpec) -> None:
        self._place = place
        self._spec = dataset

    @property
    def identity(self) -> str:
        """The place, and what of it is read."""
        spec = self._spec
        return repr(("huggingface", str(self._place), spec.subset, spec.split, spec.revision))

    @cached_property
    def columns(self) -> Mapping[str, bool]:
        """Those of the dataset."""
        return {
            name: getattr(feature, "dtype", "") in {"string", "large_string"}
            for name, feature in self._rows.features.items()
        }

    def names(self) -> Iterator[str]:
        """Numbers."""
        return (f"{self._spec.split}/{number:010d}" for number in range(len(self._rows)))

    def stamp(self, name: str) -> bytes:
        """The fingerprint of the dataset."""
        return hashlib.blake2b(f"{self._rows._fingerprint} {name}".encode()).digest()  # noqa: SLF001

    def row(self, name: str, columns: Sequence[str]) -> Mapping[str, Any]:
        """Mapped from its Arrow files."""
        number = int(name.rpartition("/")[2])
        try:
            found: Mapping[str, Any] = self._chosen(tuple(columns))[number]
        except (OSError, ValueError) as error:
            raise UnreadableSampleError(f"damaged row: {error}") from None
        return found

    def _chosen(self, columns: tuple[str, ...]) -> Any:
        if columns not in self._views:
            self._views[columns] = self._rows.select_columns(list(columns))
        return self._views[columns]

    @cached_property
    def _views(self) -> dict[tuple[str, ...], Any]:
        return {}

    @cached_property
    def _rows(self) -> Any:
        try:
            import datasets  # noqa: PLC0415 -- seconds, and optional
        except ImportError:
            raise BadDataError(
                "training.datasets: format huggingface needs the library: pip install "
                "'st-fleet[huggingface]'"
            ) from None
        datasets.disable_progress_bars()
        try:
            rows = self._loaded(datasets)
        except (OSError, ValueError, KeyError, datasets.exceptions.DatasetsError) as error:
            raise BadDataError(
                f"training.datasets: {self._place} cannot be read as a dataset of Hugging Face: "
                f"{type(error).__name__}: {error}"
            ) from error
        for name, feature in rows.features.items():
            if type(feature).__name__ in _FILES:
                rows = rows.cast_column(name, type(feature)(decode=False))
        return rows

    def _loaded(self, datasets: Any) -> Any:
        place, spec = self._place, self._spec
        if isinstance(place, Path) and _was_saved(place):
            found = datasets.load_from_disk(str(place))
            return found if isinstance(found, datasets.Dataset) else found[spec.split]
        return datasets.load_dataset(
            str(place), spec.subset, split=spec.split, revision=spec.revision
        )


def _was_saved(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("state.json", "dataset_dict.json"))
