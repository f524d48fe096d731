"""Hooks: shell commands that run in the background once a checkpoint or a publication is there."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from st_shared.protocol.journal import CheckpointEvent, JournalEvent
from st_shared.spec.scripts import HooksSpec
from st_trainer.background import Background
from st_trainer.companion import Companion
from st_trainer.held import hold, release
from st_trainer.journal import Journal
from st_trainer.run_folder import RunFolder, step_name
from st_trainer.scripts.run import ScriptFailed, ScriptResult, run_script

_MOST_WAITING = 8
"""Hooks that wait for their turn; further ones are left out and told of."""


@dataclass(frozen=True)
class _Ended:
    step: int
    result: ScriptResult


class Hooks(Companion):
    """Runs the hooks of a run one after another; what they say becomes metrics."""

    def __init__(
        self, spec: HooksSpec, folder: RunFolder, journal: Journal, stop: Callable[[], bool]
    ) -> None:
        self._scripts = dict(spec.given())
        self._folder, self._journal, self._stop = folder, journal, stop
        self._background: Background[_Ended] = Background("hooks", _MOST_WAITING)

    def hear(self, event: JournalEvent) -> None:
        """Begin ``post_checkpoint`` where a checkpoint is complete."""
        if isinstance(event, CheckpointEvent) and "post_checkpoint" in self._scripts:
            source = (self._folder.root / event.manifest).parent
            held = hold(source, self._folder.held(f"hook-{step_name(event.step)}"))
            variables = {"ST_CHECKPOINT": str(held.absolute())}
            self._begin("post_checkpoint", event.step, [str(held.absolute())], variables, held)

    def uploaded(self, step: int, what: str, address: str) -> None:
        """Begin ``post_upload``, where there is one: ``what`` is now at ``address``."""
        if "post_upload" in self._scripts:
            variables = {"ST_UPLOADED": what, "ST_ADDRESS": address}
            self._begin("post_upload", step, [what, address], variables, None)

    def poll(self) -> None:
        """Tell of what has ended.

        Raises:
            ScriptFailed: one has failed that is required.
        """
        for ended in self._background.finished():
            if isinstance(ended, Exception):  # such as a full disk: the hook could not be started
                self._journal.log(f"a hook could not be run: {ended}", "warning")
                continue
            self._tell(ended)

    def close(self, patience: float) -> None:
        """Wait for those that still run, and tell of them."""
        left = self._background.close(patience)
        self.poll()
        if left:
            self._journal.log(f"{left} hooks were not run: the run has ended", "warning")

    def _begin(
        self,
        name: str,
        step: int,
        arguments: Sequence[str],
        variables: Mapping[str, str],
        held: Path | None,
    ) -> None:
        told = {
            "ST_STEP": str(step),
            "ST_RUN_DIR": str(self._folder.root.absolute()),
            **variables,
        }
        task = partial(self._run, name, step, arguments, told, held)
        if not self._background.submit(task):
            if held:
                release(held)
            self._journal.log(
                f"hooks.{name} was left out at step {step}: {_MOST_WAITING} are waiting", "warning"
            )

    def _run(
        self,
        name: str,
        step: int,
        arguments: Sequence[str],
        variables: Mapping[str, str],
        held: Path | None,
    ) -> _Ended:
        try:
            script, root = self._scripts[name], self._folder.root
            result = run_script(name, script, arguments, variables, root, self._stop)
            return _Ended(step, result)
        finally:
            if held:
                release(held)

    def _tell(self, ended: _Ended) -> None:
        result, step = ended.result, ended.step
        if result.error is None:
            if result.metrics:
                self._journal.metric(step, dict(result.metrics))
            self._journal.log(f"hooks.{result.name} of step {step}: done in {result.seconds:.1f} s")
            return
        said = f"hooks.{result.name} failed at step {step}: {result.error}"
        if self._scripts[result.name].required and not self._stop():
            raise ScriptFailed(said)
        self._journal.log(said, "warning")
