"""Carries ``st-train run`` out: the journal is open, errors become exit codes."""

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from st_shared.protocol.journal import ExitCode, JournalEvent, OutputEvent
from st_shared.spec.training import TrainingSpec
from st_trainer.data.locate import locate
from st_trainer.errors import OutOfMemoryError, expected_error
from st_trainer.journal import PATIENCE, Journal, Listener, SilentJournal
from st_trainer.memory import cheapest_mend
from st_trainer.run_folder import RunFolder

if TYPE_CHECKING:
    from st_trainer.data.locate import Place
    from st_trainer.resume import Resume

_OUTCOMES = {
    ExitCode.SUCCEEDED: "succeeded",
    ExitCode.CRASHED: "crashed",
    ExitCode.BAD_SPEC: "bad_spec",
    ExitCode.PREEMPTED: "preempted",
    ExitCode.BAD_DATA: "bad_data",
    ExitCode.NOT_FINITE: "not_finite",
    ExitCode.OUT_OF_MEMORY: "out_of_memory",
    ExitCode.DISK_FULL: "disk_full",
    ExitCode.PEER_LOST: "peer_lost",
    ExitCode.DEVICE_FAULT: "device_fault",
}


@dataclass
class RunResult:
    """How a run ended and what it left."""

    run_dir: Path
    exit_code: int = ExitCode.CRASHED
    error: str | None = None
    outputs: dict[str, str] = field(default_factory=dict)
    """Paths of the results, by name."""

    @property
    def outcome(self) -> str:
        """The exit code in a word."""
        return _OUTCOMES[self.exit_code]

    def document(self) -> dict[str, Any]:
        """The result for ``--json``."""
        return {
            "outcome": self.outcome,
            "exit_code": self.exit_code,
            "error": self.error,
            "run_dir": str(self.run_dir),
            "outputs": self.outputs,
        }

    def summary(self) -> str:
        """The result for people."""
        lines = [f"{self.outcome}: {self.error}" if self.error else self.outcome]
        lines += [f"  {name.replace('_', ' ')}: {path}" for name, path in self.outputs.items()]
        if self.exit_code == ExitCode.PREEMPTED:
            lines.append("  go on with: --resume latest")
        return "\n".join(lines)


def run_command(
    spec: TrainingSpec,
    run_dir: Path,
    datasets: Mapping[str, Path],
    *,
    environment: Mapping[str, str],
    resume: str,
    stop: Callable[[], bool],
    listener: Listener | None = None,
) -> RunResult:
    """Run ``spec`` in ``run_dir``; every end, a crash included, is a result."""
    result = RunResult(run_dir)

    def listen(event: JournalEvent) -> None:
        if isinstance(event, OutputEvent) and event.name != "file":
            result.outputs[event.name] = str(run_dir / event.path)
        if listener:
            listener(event)

    folder = RunFolder(run_dir)
    try:
        folder.create()
        rank = int(environment.get("RANK", "0"))
        with (
            SilentJournal()
            if rank
            else Journal(folder.journal, listener=listen, patience=PATIENCE) as journal
        ):
            try:
                sources = locate(spec.datasets, datasets, environment) if spec.steps else []
                going_on = _resume(resume, environment)
                result.exit_code = _run(spec, sources, folder, journal, resume=going_on, stop=stop)
            except Exception as error:
                result.error = _described(error, spec)
                journal.log(result.error, "error")
                raise
    except Exception as error:  # noqa: BLE001 -- the outermost loop: every end has an exit code
        expected = expected_error(error)
        result.exit_code = expected.exit_code if expected else ExitCode.CRASHED
        result.error = _described(error, spec)
        if not expected:
            click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    return result


def _run(
    spec: TrainingSpec,
    sources: "list[Place]",
    folder: RunFolder,
    journal: Journal,
    *,
    resume: "Resume",
    stop: Callable[[], bool],
) -> int:
    from st_trainer.run import run_training  # noqa: PLC0415 -- torch, only once it is needed

    return run_training(spec, sources, folder, journal, resume=resume, stop=stop)


def _resume(text: str, environment: Mapping[str, str]) -> "Resume":
    from st_trainer.remote_checkpoints import SCHEME, RemoteCheckpoints  # noqa: PLC0415 -- torch

    match text:
        case "none":
            return "none"
        case "latest":
            return "latest"
        case _ if text.startswith(SCHEME):
            return RemoteCheckpoints.at(text, environment)
        case _:
            return Path(text)


def _described(error: Exception, spec: TrainingSpec) -> str:
    expected = expected_error(error)
    if isinstance(expected, OutOfMemoryError):
        return f"{expected}: {cheapest_mend(spec)}"
    if expected:
        return str(expected)
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0] if first else 'no message'}"
