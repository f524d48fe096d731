"""Which folder each dataset of a specification means on this machine."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from st_shared.spec.dataset import DatasetSpec
from st_trainer.errors import BadDataError

DATASETS_VARIABLE = "ST_DATASETS_DIR"
DEFAULT_DATASETS_FOLDER = Path(".st/datasets")


def locate(
    datasets: Sequence[DatasetSpec], given: Mapping[str, Path], environment: Mapping[str, str]
) -> list[Path]:
    """The folder of each dataset, in order.

    A named one is looked up in ``given``, then below ``ST_DATASETS_DIR``, else below
    ``.st/datasets``.

    Raises:
        BadDataError: folders that do not exist, each with its field and the mend.
    """
    root = Path(environment.get(DATASETS_VARIABLE) or DEFAULT_DATASETS_FOLDER)
    folders, problems = [], []
    for index, dataset in enumerate(datasets):
        if dataset.name is None:
            folder, field, mend = Path(str(dataset.path)), "path", "give an existing folder"
        else:
            folder = given.get(dataset.name, root / dataset.name)
            field, mend = "name", f"give --dataset {dataset.name}=FOLDER"
        if not folder.is_dir():
            problems.append(f"training.datasets.{index}.{field}: no folder {folder}; {mend}")
        folders.append(folder)
    if problems:
        raise BadDataError("\n".join(problems))
    return folders
