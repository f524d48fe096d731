"""Where the trackers of a job send its figures, as rules of ``output_path`` look at it. Pure."""

from collections.abc import Iterator
from typing import Any

from st_controller.domain.policy.resource_rules import RELATIVE, Asked, Resource
from st_controller.domain.policy.servers import is_plain
from st_shared.spec.job import JobSpec
from st_shared.spec.trackers import TrackerSpec

_OF_THE_RUN = frozenset({"jsonl", "tensorboard"})
"""Kinds that write files of the run, which go where all its artifacts do."""
_CREDENTIALS = frozenset(
    {
        "WANDB_API_KEY",
        "MLFLOW_TRACKING_TOKEN",
        "MLFLOW_TRACKING_USERNAME",
        "MLFLOW_TRACKING_PASSWORD",
    }
)
"""Variables of trackers that say who sends, and not where to."""


def sent_to(spec: JobSpec) -> Iterator[Asked]:
    """The places of all trackers, and variables that would move them elsewhere."""
    trackers = spec.training.trackers if spec.training else []
    leaving = [each for each in enumerate(trackers) if not _stays(each[1])]
    for index, tracker in leaving:
        yield from _of_tracker(tracker, f"training.trackers.{index}")
    for variable in spec.secrets if leaving else ():
        if variable.startswith(("WANDB_", "MLFLOW_")) and variable not in _CREDENTIALS:
            yield _asked(f"secrets.{variable}", f"{RELATIVE}{variable}")


def _stays(tracker: TrackerSpec) -> bool:
    """Whether it only writes files of the run."""
    options = tracker.options
    is_offline = options.get("mode") in {"offline", "disabled"} and "settings" not in options
    return tracker.kind in _OF_THE_RUN or (tracker.kind == "wandb" and is_offline)


def _of_tracker(tracker: TrackerSpec, place: str) -> Iterator[Asked]:
    options = dict(tracker.options)
    match tracker.kind:
        case "mlflow":
            server = options.pop("tracking_uri", None)
            yield _of_mlflow(server, tracker.project, place)
        case "wandb":
            # Without an entity it is that of the key; a name with a slash would pass for one.
            entity = str(options.pop("entity", None) or "")
            marked = RELATIVE if "/" in f"{entity}{tracker.project}" else ""
            yield _asked(place, f"{marked}wandb://{entity}/{tracker.project}")
        case _:
            yield _asked(place, f"custom://{tracker.module}/{tracker.project}")
    for name, value in options.items():
        if name == "settings" or _leads_somewhere(value):
            yield _asked(f"{place}.options.{name}", f"{RELATIVE}{name}")


def _of_mlflow(server: Any, project: str, place: str) -> Asked:
    """A server that the job names; else it is the worker's."""
    if server is None:
        return _asked(place, f"mlflow:///{project}")
    address = str(server).removesuffix("/")
    marked = "" if is_plain(address) else RELATIVE
    return _asked(f"{place}.options.tracking_uri", f"{marked}{address}/{project}")


def _leads_somewhere(value: Any) -> bool:
    """Whether an option has an address in it."""
    if isinstance(value, dict):
        return any(_leads_somewhere(each) for each in (*value.keys(), *value.values()))
    if isinstance(value, list):
        return any(_leads_somewhere(each) for each in value)
    return isinstance(value, str) and (":/" in value or value.startswith("//"))


def _asked(field: str, value: str) -> Asked:
    return Asked(Resource.OUTPUT_PATH, field, value)
