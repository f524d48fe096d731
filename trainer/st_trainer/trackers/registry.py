"""Makes trackers by their kind: accelerate's, ours, or what the worker's owner dropped in."""

import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from accelerate.tracking import (
    GeneralTracker,
    MLflowTracker,
    TensorBoardTracker,
    WandBTracker,
)

from st_shared.spec.trackers import TrackerSpec
from st_trainer.errors import BadSpecError
from st_trainer.trackers.jsonl import JsonLines

FOLDER_VARIABLE = "ST_TRACKERS_DIR"
"""Folder with one file a custom tracker, which the owner of the worker has put there."""

_PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
"""Packages that kinds need, of the extra ``trackers``."""


def make_tracker(spec: TrackerSpec, folder: Path, environment: Mapping[str, str]) -> GeneralTracker:
    """The tracker that ``spec`` asks for, not started yet; its files go below ``folder``.

    Raises:
        BadSpecError: its package is not installed, or there is no such file.
    """
    package = _PACKAGES.get(spec.kind)
    if package and importlib.util.find_spec(package) is None:
        raise BadSpecError(
            f"training.trackers: {spec.kind} needs a package that is not installed here: "
            "pip install 'st-fleet[trackers]'"
        )
    try:
        return _MAKERS[spec.kind](spec, folder, environment)
    except TypeError as error:
        raise BadSpecError(f"training.trackers: options of {spec.kind}: {error}") from None


def _jsonl(spec: TrackerSpec, folder: Path, _: Mapping[str, str]) -> GeneralTracker:
    return JsonLines(spec.run_name or "metrics", str(folder / "jsonl"), **spec.options)


def _tensorboard(spec: TrackerSpec, folder: Path, _: Mapping[str, str]) -> GeneralTracker:
    return TensorBoardTracker(
        spec.run_name or spec.project, str(folder / "tensorboard"), **spec.options
    )


class _Wandb(WandBTracker):  # type: ignore[misc]
    """Steps as a value of their own: wandb drops what comes for an earlier step than the last."""

    def start(self) -> None:
        """Open the run."""
        super().start()
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")

    def log(self, values: dict[str, Any], step: int | None = None, **options: Any) -> None:
        """The values, with their step among them."""
        super().log({**values, "step": step}, **options)


def _wandb(spec: TrackerSpec, folder: Path, _: Mapping[str, str]) -> GeneralTracker:
    from wandb import Settings  # noqa: PLC0415 -- seconds

    place = folder / "wandb"
    place.mkdir(parents=True, exist_ok=True)
    # Neither what the trainer prints nor what git knows of its folder is anybody's business.
    settings = Settings(
        console="off", silent=True, disable_git=True, disable_code=True, init_timeout=30
    )
    options = {"name": spec.run_name, "dir": str(place), "settings": settings} | spec.options
    return _Wandb(spec.project, **options)


def _mlflow(spec: TrackerSpec, folder: Path, environment: Mapping[str, str]) -> GeneralTracker:
    import mlflow  # noqa: PLC0415 -- seconds

    options, place = dict(spec.options), (folder / "mlflow").absolute()
    uri = options.pop("tracking_uri", None) or environment.get("MLFLOW_TRACKING_URI")
    if not uri:
        place.mkdir(parents=True, exist_ok=True)
        uri = f"sqlite:///{place / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    if uri.startswith("sqlite:"):
        options.setdefault("logging_dir", (place / "artifacts").as_uri())
    return MLflowTracker(spec.project, run_name=spec.run_name, **options)


def _custom(spec: TrackerSpec, folder: Path, environment: Mapping[str, str]) -> GeneralTracker:
    """The one class of the file that is a ``GeneralTracker``.

    A job names the file and never brings it, so it runs no code that the worker's owner does not
    know.
    """
    place = environment.get(FOLDER_VARIABLE)
    path = Path(place or "") / f"{spec.module}.py"
    if not place or not path.is_file():
        where = f"no {path}" if place else f"{FOLDER_VARIABLE} is not set on this worker"
        raise BadSpecError(f"training.trackers: custom {spec.module}: {where}")
    found = [each for each in vars(_loaded(path)).values() if _is_tracker(each)]
    if len(found) != 1:
        raise BadSpecError(
            f"training.trackers: {path} must define one subclass of "
            f"accelerate.tracking.GeneralTracker, but has {len(found)}"
        )
    options = dict(spec.options)
    if found[0].requires_logging_directory:
        options["logging_dir"] = str(folder / "custom")
    tracker: GeneralTracker = found[0](spec.run_name or spec.project, **options)
    return tracker


def _loaded(path: Path) -> Any:
    name = f"st_tracker_{path.stem}"
    described = importlib.util.spec_from_file_location(name, path)
    assert described  # noqa: S101 -- for mypy: the file is there
    assert described.loader  # noqa: S101
    module = importlib.util.module_from_spec(described)
    sys.modules[name] = module
    try:
        described.loader.exec_module(module)
    except Exception as error:
        raise BadSpecError(f"training.trackers: {path} cannot be loaded: {error}") from error
    return module


def _is_tracker(found: Any) -> bool:
    is_class = isinstance(found, type) and issubclass(found, GeneralTracker)
    return is_class and found.__module__.startswith("st_tracker_")


_MAKERS: dict[str, Callable[[TrackerSpec, Path, Mapping[str, str]], GeneralTracker]] = {
    "jsonl": _jsonl,
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
    "custom": _custom,
}
