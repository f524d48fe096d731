"""What a job file asks for, thing by thing, as rules look at it."""

from collections.abc import Iterator
from posixpath import join, normpath

from st_controller.domain.policy.resource_rules import RELATIVE, Asked, Resource
from st_controller.domain.policy.servers import is_plain
from st_controller.domain.policy.tracking import sent_to
from st_shared.spec.dataset import DatasetSpec
from st_shared.spec.job import JobSpec
from st_shared.spec.publishing import PublishSpec

_SETTINGS = frozenset({"AWS_CONFIG_FILE", "AWS_PROFILE"})
"""Variables that name files or parts of files which may hold the address of a server."""


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
    for index, target in enumerate(spec.training.publish if spec.training else ()):
        found += _of_place(target, f"training.publish.{index}")
    found += sent_to(spec)
    found += _of_variables(spec)
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


def _of_place(place: PublishSpec, field: str) -> Iterator[Asked]:
    """Where a job publishes to; another server is asked about as well, and named in the word."""
    scheme = "hf" if place.kind == "huggingface" else "s3"
    path = place.address.removeprefix("s3://").removesuffix("/")
    # A store may read a detour, or take it for a name: what it is, a glob cannot tell.
    marked = RELATIVE if {"", ".", ".."} & set(path.split("/")) else ""
    yield Asked(Resource.OUTPUT_PATH, field, f"{marked}{scheme}://{path}")
    if place.endpoint_url is not None:
        server = place.endpoint_url.removesuffix("/")
        marked = marked or ("" if is_plain(server) else RELATIVE)
        yield Asked(Resource.OUTPUT_PATH, f"{field}.endpoint_url", f"{marked}{server}/{path}")


def _of_variables(spec: JobSpec) -> Iterator[Asked]:
    """Secrets that send what is published to a server that the job file does not show."""
    places = spec.training.publish if spec.training else ()
    if all(place.endpoint_url for place in places):
        return
    for variable in spec.secrets:
        if "ENDPOINT" in variable or variable in _SETTINGS:
            yield Asked(Resource.OUTPUT_PATH, f"secrets.{variable}", f"{RELATIVE}{variable}")


def folder(path: str) -> str:
    """A path without detours; one that is not absolute begins with ``./``."""
    straight = normpath(path)
    if not straight.startswith("/"):
        return f"{RELATIVE}{straight}"
    return "/" + straight.lstrip("/")
