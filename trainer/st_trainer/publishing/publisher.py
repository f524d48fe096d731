"""Publishes the result of a run, and its checkpoints, in the background, again and again."""

import os
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event

from st_shared.durable import write_whole
from st_shared.protocol.journal import CheckpointEvent, JournalEvent, OutputEvent
from st_shared.redaction import NAMES_VARIABLE, Redactor, from_environment
from st_shared.spec.publishing import PublishSpec
from st_trainer.background import Background
from st_trainer.companion import Companion, End
from st_trainer.held import hold, release
from st_trainer.journal import Journal
from st_trainer.publishing.card import model_card
from st_trainer.publishing.places import PublishError, PublishPlace, described, open_place
from st_trainer.run_folder import RunFolder, step_name
from st_trainer.session import Session

TRIES = 8
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 120.0
"""Seconds between tries: doubled each time, with chance so that many runs do not come at once."""
_MOST_WAITING = 4
"""Checkpoints that wait for one place; further ones are left out and told of."""
_LEFT_OUT = ("report", "log")

Uploaded = Callable[[int, str, str], None]
"""Told of the step, of what was published, and of its address."""


@dataclass(frozen=True)
class Publication:
    """What came of one."""

    step: int
    what: str
    address: str
    """Where it is now, or was to be."""
    error: str | None = None


class Publisher(Companion):
    """One place of a run."""

    def __init__(
        self,
        spec: PublishSpec,
        session: Session,
        folder: RunFolder,
        journal: Journal,
        environment: Mapping[str, str] | None = None,
        uploaded: Uploaded = lambda *_: None,
        pause: Callable[[float], bool] | None = None,
    ) -> None:
        """``pause`` waits so many seconds, and says whether the run has no more time.

        Raises:
            BadSpecError: the place cannot be used.
        """
        surroundings = os.environ if environment is None else environment
        self._spec, self._session, self._folder = spec, session, folder
        self._journal, self._uploaded = journal, uploaded
        self._place: PublishPlace = open_place(spec, surroundings)
        self._redactor = redactor_of(spec, surroundings)
        self._background: Background[Publication] = Background("publish", _MOST_WAITING)
        self._no_more_time = Event()
        self._pause = pause or self._no_more_time.wait
        self._results: list[str] = []

    def hear(self, event: JournalEvent) -> None:
        """Send checkpoints, where that is wanted, and remember what the result is made of."""
        if isinstance(event, CheckpointEvent) and self._spec.checkpoints:
            source, name = (self._folder.root / event.manifest).parent, step_name(event.step)
            held = hold(source, self._folder.held(f"{self._mark}-{name}"))
            self._begin(event.step, f"checkpoint of step {event.step}", held, f"checkpoints/{name}")
        elif isinstance(event, OutputEvent) and event.name not in _LEFT_OUT:
            self._results.append(event.path)

    def end(self, end: End, error: BaseException | None) -> None:
        """Send the result of a run that has one."""
        del error
        if end == "succeeded":
            step = self._session.step
            self._begin(step, "result", self._gathered(step), "")
        else:
            self._no_more_time.set()

    def poll(self) -> None:
        """Tell of what was published, and of what was not."""
        for outcome in self._background.finished():
            if isinstance(outcome, Exception):
                said = f"publish.{self._spec.kind}: {type(outcome).__name__}: {outcome}"
                self._journal.log(self._redactor.text(said), "warning")
            elif outcome.error:
                said = f"publish.{self._spec.kind}: {outcome.what} was not published"
                self._journal.log(f"{said}: {outcome.error}", "warning")
            else:
                what, address = outcome.what, outcome.address
                self._journal.log(f"publish.{self._spec.kind}: {what} is at {address}")
                self._uploaded(outcome.step, what, address)

    def close(self, patience: float) -> None:
        """Wait until all is sent or given up."""
        left = self._background.close(patience)
        self._no_more_time.set()
        self.poll()
        if left:
            said = f"publish.{self._spec.kind}: {left} were not sent in time"
            self._journal.log(said, "warning")

    @property
    def _mark(self) -> str:
        """Makes names of what is held unique among several places."""
        return f"publish-{id(self):x}"

    def _begin(self, step: int, what: str, held: Path, below: str) -> None:
        if not self._background.submit(partial(self._send, step, what, held, below)):
            release(held)
            said = f"publish.{self._spec.kind}: {what} was left out: others are waiting"
            self._journal.log(said, "warning")

    def _gathered(self, step: int) -> Path:
        """Results, samples and card in one folder, as they are to be published."""
        place = self._folder.held(f"{self._mark}-result")
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for name in self._results:
            target = place / Path(name).relative_to("output")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self._folder.root / name, target)
        samples: list[str] = []
        if self._spec.samples:
            for path in sorted(self._folder.samples.glob(f"{step_name(step)}*")):
                (place / "samples").mkdir(exist_ok=True)
                shutil.copy2(path, place / "samples" / path.name)
                if path.suffix == ".png":
                    samples.append(f"samples/{path.name}")
        session = self._session
        prompts, redactor = session.drawn.prompts, self._redactor
        card = model_card(self._spec, session.spec, step, samples, prompts, redactor)
        write_whole(place / "README.md", redactor.text(card), mode=0o644, synced=False)
        return place

    def _send(self, step: int, what: str, held: Path, below: str) -> Publication:
        """In the background: try, and try again."""
        told = f"st-fleet: {what}"
        try:
            for pause in [*pauses(), None]:
                try:
                    return Publication(step, what, self._place.send(held, below, told))
                except Exception as error:  # noqa: BLE001 -- clients raise what they like
                    said = self._redactor.text(described(error))
                    is_final = isinstance(error, PublishError) and error.is_final
                    if is_final or pause is None or self._pause(pause):
                        return Publication(step, what, self._spec.address, said)
            raise AssertionError("the last pause is none")
        finally:
            release(held)


def redactor_of(spec: PublishSpec, environment: Mapping[str, str]) -> Redactor:
    """Knows the token of the place too, which nobody has named where a run has no worker."""
    named = environment.get(NAMES_VARIABLE, "")
    if spec.kind == "huggingface":
        named = f"{named},{spec.token_variable}"
    return from_environment({**environment, NAMES_VARIABLE: named})


def pauses() -> Sequence[float]:
    """Seconds between tries, one fewer than there are tries."""
    return [
        min(FIRST_PAUSE * 2**number, LONGEST_PAUSE) * random.uniform(0.5, 1.0)  # noqa: S311
        for number in range(TRIES - 1)
    ]
