"""Writes the report of a run, at its end and anew with each checkpoint."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from st_shared.clock import Clock, utc_now
from st_shared.durable import write_whole
from st_shared.protocol.journal import CheckpointEvent, JournalEvent
from st_trainer.background import Background
from st_trainer.companion import Companion, End
from st_trainer.errors import expected_error
from st_trainer.journal import Journal
from st_trainer.report.environment import environment
from st_trainer.report.page import Facts, page
from st_trainer.report.record import Record
from st_trainer.run_folder import RunFolder
from st_trainer.session import Session


class Report(Companion):
    """Hears what happens; the file is whole at any time, and is told of once the run is over."""

    def __init__(
        self, session: Session, folder: RunFolder, journal: Journal, clock: Clock = utc_now
    ) -> None:
        self._session, self._folder, self._journal = session, folder, journal
        self._clock = clock
        self._record = Record()
        self._record.read(folder.journal)
        self._record.begin_with("loss", session.history.points)
        self._environment = environment(session)
        self._background: Background[None] = Background("report", 1)
        self._end: End | None = None
        self._error: str | None = None

    def hear(self, event: JournalEvent) -> None:
        """Remember it; with a checkpoint, write the report anew in the background."""
        self._record.hear(event)
        if isinstance(event, CheckpointEvent):
            # Where the one before is still being written, this one comes with the next.
            self._background.submit(self._written(self._facts("running")))

    def poll(self) -> None:
        """Tell of what could not be written."""
        for outcome in self._background.finished():
            if isinstance(outcome, Exception):
                self._journal.log(f"the report could not be written: {outcome}", "warning")

    def end(self, end: End, error: BaseException | None) -> None:
        """Remember how the run ended."""
        self._end = end
        if error is not None:
            self._error = str(expected_error(error) or f"{type(error).__name__}: {error}")

    def close(self, patience: float) -> None:
        """Write the report for the last time, and tell of it."""
        self._background.close(patience)
        self.poll()
        last = replace(self._facts(self._end or "failed"), error=self._error)
        try:
            self._written(last)()
        except OSError as error:  # such as a full disk: what was trained counts all the same
            self._journal.log(f"the report could not be written: {error}", "warning")
            return
        self._journal.output("report", self._folder.relative(self._folder.report))

    def _written(self, facts: Facts) -> Callable[[], None]:
        """Writes the report of what is known now."""
        record = deepcopy(self._record)

        def write() -> None:
            html = page(facts, record, self._folder.previews)
            write_whole(self._folder.report, html, mode=0o644, synced=False)

        return write

    def _facts(self, outcome: str) -> Facts:
        session, spec = self._session, self._session.spec
        name = Path(str(spec.model.base)).name if spec.model.base else "from scratch"
        counts = {
            "family": spec.model.family,
            "base": name,
            "adapter": spec.adapter_kind,
            "samples": f"{len(session.samples):,}",
            "batch": f"{session.batch_size}",
            "optimizer": spec.optimizer.name,
            "time": _time(self._record.began, self._record.latest),
        }
        return Facts(
            title=f"{spec.model.family}, {spec.adapter_kind}: {name}",
            outcome=outcome,
            step=session.step,
            steps=spec.steps,
            facts=counts,
            config=spec.model_dump(mode="json", exclude_defaults=True),
            environment=self._environment,
            written=self._clock(),
        )


def _time(began: datetime | None, latest: datetime | None) -> str:
    if began is None or latest is None:
        return "none yet"
    seconds = round((latest - began).total_seconds())
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
