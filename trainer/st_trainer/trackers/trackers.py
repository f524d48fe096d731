"""Sends what the journal hears to the trackers of a run, in the background."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.tracking import GeneralTracker
from PIL import Image

from st_shared.protocol.journal import JournalEvent, MetricEvent, SampleEvent
from st_shared.redaction import from_environment
from st_shared.spec.trackers import TrackerSpec
from st_shared.spec.training import TrainingSpec
from st_trainer.background import Background
from st_trainer.companion import Companion
from st_trainer.journal import Journal
from st_trainer.run_folder import RunFolder
from st_trainer.trackers.registry import make_tracker

_MOST_WAITING = 1_000
"""What waits for one tracker; beyond that, values are left out and counted."""
_MOST_FAILURES = 20
"""Failures one after another before a tracker is given up."""
_LARGEST = 1_024
"""Pixels of the longer side of a picture that is sent."""
_CLOSE_SECONDS = 60.0


class Tracker:
    """One tracker and its thread: whatever happens to it, the training neither stops nor waits."""

    def __init__(self, spec: TrackerSpec, tracker: GeneralTracker) -> None:
        self._tracker, self.sends_samples = tracker, spec.samples
        self.name = spec.module or spec.kind
        self._background: Background[None] = Background(f"tracker-{self.name}", _MOST_WAITING)
        self._failures = self._left_out = 0
        self.is_given_up = False

    def start(self, config: Mapping[str, Any]) -> None:
        """Open it, and store the settings."""
        self._submit(self._tracker.start)
        self._submit(partial(self._tracker.store_init_configuration, dict(config)))

    def send(self, task: Callable[[GeneralTracker], None]) -> None:
        """Do ``task`` with it later."""
        if not self.is_given_up:
            self._submit(partial(task, self._tracker))

    def poll(self) -> list[str]:
        """What there is to tell: the first of several failures in a row, and the end."""
        told = []
        for outcome in self._background.finished():
            if not isinstance(outcome, Exception):
                self._failures = 0
                continue
            self._failures += 1
            if self._failures == 1:
                said = str(outcome).strip().splitlines()
                told.append(f"{type(outcome).__name__}: {said[0] if said else 'no message'}")
            if self._failures == _MOST_FAILURES and not self.is_given_up:
                self.is_given_up = True
                told.append(f"given up after {_MOST_FAILURES} failures one after another")
        return told

    def close(self, patience: float) -> list[str]:
        """Finish it; what there is to tell."""
        self._submit(self._tracker.finish)
        left = self._background.close(patience)
        told = self.poll()
        if left or self._left_out:
            told.append(f"{left + self._left_out} values were not sent in time")
        return told

    def _submit(self, task: Callable[[], Any]) -> None:
        def done() -> None:
            task()

        if not self._background.submit(done):
            self._left_out += 1


class Trackers(Companion):
    """All trackers of a run."""

    def __init__(
        self,
        specs: Sequence[TrackerSpec],
        training: TrainingSpec,
        folder: RunFolder,
        journal: Journal,
        environment: Mapping[str, str],
    ) -> None:
        """Make and start them.

        Raises:
            BadSpecError: one cannot be made here.
        """
        self._folder, self._journal = folder, journal
        self._redactor = from_environment(environment)
        made = [Tracker(spec, make_tracker(spec, folder.trackers, environment)) for spec in specs]
        self._trackers = made
        config = flat(self._redactor.json(training.model_dump(mode="json", exclude_defaults=True)))
        for tracker in made:
            tracker.start(config)

    def hear(self, event: JournalEvent) -> None:
        """Send metrics, and pictures that were drawn."""
        if isinstance(event, MetricEvent):
            values = dict(event.values)
            for tracker in self._trackers:
                tracker.send(lambda it, v=values: it.log(v, step=event.step))  # type: ignore[misc]
        elif isinstance(event, SampleEvent) and event.path.endswith(".png"):
            path = self._folder.root / event.path
            name = path.stem.removeprefix("step-").lstrip("0123456789").strip("-") or "samples"
            for tracker in self._trackers:
                if tracker.sends_samples:
                    tracker.send(partial(_send_picture, path, name, event.step))

    def poll(self) -> None:
        """Tell of failures."""
        for tracker in self._trackers:
            self._tell(tracker, tracker.poll())

    def close(self, patience: float) -> None:
        """Finish them; at most a minute each."""
        for tracker in self._trackers:
            self._tell(tracker, tracker.close(min(patience, _CLOSE_SECONDS)))

    def _tell(self, tracker: Tracker, told: Sequence[str]) -> None:
        for text in told:
            self._journal.log(f"tracker {tracker.name}: {text}", "warning")


def flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, str | int | float | bool]:
    """Settings by dotted names, as trackers want them: ``optimizer.learning_rate``."""
    found: dict[str, str | int | float | bool] = {}
    for key, value in document.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= flat(value, f"{name}.")
        elif isinstance(value, bool | int | float | str):
            found[name] = value
        elif value is not None:
            found[name] = str(value)
    return found


def _send_picture(path: Path, name: str, step: int, tracker: GeneralTracker) -> None:
    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((_LARGEST, _LARGEST))
    if tracker.name == "tensorboard":
        tracker.log_images({name: np.asarray(small)[None]}, step=step, dataformats="NHWC")
    elif tracker.name == "mlflow":
        _send_to_mlflow(small, f"{name}-{step:06d}.png")
    elif hasattr(tracker, "log_images"):
        tracker.log_images({name: [small]}, step=step)


def _send_to_mlflow(picture: Image.Image, name: str) -> None:
    import mlflow  # noqa: PLC0415 -- loaded long ago

    mlflow.log_image(picture, artifact_file=f"samples/{name}")
