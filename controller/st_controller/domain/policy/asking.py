"""What a job file asks for, thing by thing, as rules look at it."""

from collections.abc import Iterator
from posixpath import join, normpath

from st_controller.domain.policy.resource_rules import RELATIVE, Asked, Resource
from st_shared.spec.dataset import DatasetSpec
from st_shared.spec.job import JobSpec


def asked(spec: JobSpec, config: str = "") -> list[Asked]:
    """Everything that a rule may have a say in.

    ``config`` is the saved config that the job is made from; empty where it names none.
    """
    family = spec.training.model.family if spec.training else spec.kind
    place = "training.model.family" if spec.training else spec.kind
    found = [
        Asked(Resource.CONFIG, "config", config),
        Asked(Resource.ACCELERATOR, "resources.accelerator", spec.resources.accelerator),
        Asked(Resource.PROVIDER, "resources.provider", spec.resources.provider),
        Asked(Resource.FAMILY, place, family),
    ]
    for index, dataset in enumerate(spec.training.datasets if spec.training else ()):
        found += _of_dataset(dataset, f"training.datasets.{index}")
    return found


def _of_dataset(dataset: DatasetSpec, place: str) -> Iterator[Asked]:
    if dataset.name is not None:
        yield Asked(Resource.DATASET, f"{place}.name", dataset.name)
    if dataset.path is not None:
        yield Asked(Resource.DATASET, f"{place}.path", folder(dataset.path))
    beside = dataset.conditioning
    if beside is not None and (beside.startswith("/") or dataset.path is not None):
        yield Asked(
            Resource.DATASET, f"{place}.conditioning", folder(join(dataset.path or "", beside))
        )
    elif beside is not None and ".." in beside.split("/"):
        yield Asked(Resource.DATASET, f"{place}.conditioning", folder(beside))


def folder(path: str) -> str:
    """A path without detours; one that is not absolute begins with ``./``."""
    straight = normpath(path)
    if not straight.startswith("/"):
        return f"{RELATIVE}{straight}"
    return "/" + straight.lstrip("/")
