"""What each dataset of a specification means on this machine."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from st_shared.spec.dataset import DatasetSpec
from st_trainer.errors import BadDataError

Place = Path | str
"""A folder or file, or what is to be fetched: ``s3://bucket/prefix``, the id of a dataset."""

DATASETS_VARIABLE = "ST_DATASETS_DIR"
DEFAULT_DATASETS_FOLDER = Path(".st/datasets")


def locate(
    datasets: Sequence[DatasetSpec], given: Mapping[str, Path], environment: Mapping[str, str]
) -> list[Place]:
    """The place of each dataset, in order.

    A named one is looked up in ``given``, then below ``ST_DATASETS_DIR``, else below
    ``.st/datasets``.

    Raises:
        BadDataError: places that do not exist, each with its field and the mend.
    """
    root = Path(environment.get(DATASETS_VARIABLE) or DEFAULT_DATASETS_FOLDER)
    places: list[Place] = []
    problems = []
    for index, dataset in enumerate(datasets):
        if dataset.is_remote or _is_id(dataset):
            places.append(str(dataset.path))
            continue
        if dataset.name is None:
            place, field, mend = Path(str(dataset.path)), "path", "give an existing folder"
        else:
            place = given.get(dataset.name, root / dataset.name)
            field, mend = "name", f"give --dataset {dataset.name}=FOLDER"
        if not place.is_dir() and not (dataset.format != "files" and place.is_file()):
            problems.append(f"training.datasets.{index}.{field}: no folder {place}; {mend}")
        places.append(place)
    if problems:
        raise BadDataError("\n".join(problems))
    return places


def _is_id(dataset: DatasetSpec) -> bool:
    """Whether ``path`` is the id of a dataset on Hugging Face."""
    path = dataset.path or ""
    looks_so = path.count("/") <= 1 and not path.startswith((".", "/", "~"))
    return dataset.format == "huggingface" and looks_so and not Path(path).is_dir()
