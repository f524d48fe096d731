"""Runs one shell command: for a bounded time, with bounded output, and whole: nothing is left."""

import json
import math
import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import IO

from st_shared.redaction import NAMES_VARIABLE
from st_shared.secret_likeness import looks_secret
from st_shared.spec.scripts import ScriptSpec
from st_trainer.errors import TrainerError

_KEPT_BYTES = 65_536
"""Of each of both outputs, its end; the rest is read and forgotten."""
_TOLD = 1_000
"""Characters of the last words that are told of a script that failed."""
_MOST_METRICS = 64
_MARK = "ST_ATTEMPT"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,63}")
_LOOK_SECONDS = 0.2
_GRACE_SECONDS = 2.0
"""How long readers wait for the last words once the script has ended."""


class ScriptFailed(TrainerError):
    """A script that the training cannot do without has failed."""


@dataclass(frozen=True)
class ScriptResult:
    """How a script ended."""

    name: str
    seconds: float
    error: str | None
    """Why it failed; none: it did not."""
    metrics: Mapping[str, float]
    """What its last line of output says, each name after that of the script."""


def run_script(
    name: str,
    spec: ScriptSpec,
    arguments: Sequence[str],
    variables: Mapping[str, str],
    folder: Path,
    stop: Callable[[], bool] = lambda: False,
) -> ScriptResult:
    """Run ``spec`` in ``folder``; ``arguments`` are its ``$1``, ``$2``, ... .

    Whatever it has started is ended with it, at its end, its timeout, or when ``stop`` says so.
    """
    began = monotonic()
    process = subprocess.Popen(
        ["/bin/sh", "-e", "-c", spec.run, name, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env=script_environment(os.environ) | dict(variables),
        start_new_session=True,  # a group of its own, to be ended whole
    )
    assert process.stdout  # noqa: S101 -- for mypy: both are pipes
    assert process.stderr  # noqa: S101
    said, complained = _Tail(process.stdout), _Tail(process.stderr)
    cut_short = _wait(process, began + spec.timeout, stop)
    for each in (said, complained):
        each.join(_GRACE_SECONDS)
    seconds = monotonic() - began
    error = _failure(process.returncode, cut_short, spec, complained.text or said.text)
    if error:
        return ScriptResult(name, seconds, error, {})
    try:
        return ScriptResult(name, seconds, None, metrics_in(said.text, name))
    except ValueError as wrong:
        return ScriptResult(name, seconds, f"its last line of output: {wrong}", {})


def script_environment(base: Mapping[str, str]) -> dict[str, str]:
    """``base`` with the secrets of the job, but with none of the host's, and little of ours."""
    own = base.get(NAMES_VARIABLE, "").split(",")
    return {
        name: value
        for name, value in base.items()
        if name in own or (_is_for_scripts(name) and not looks_secret(name, value))
    }


def _is_for_scripts(name: str) -> bool:
    """What begins with ST_ is ours; by its mark, whatever an attempt leaves is found and ended."""
    return not name.startswith("ST_") or name.startswith(_MARK)


def metrics_in(output: str, name: str) -> dict[str, float]:
    """The numbers in the last line of ``output``, where that is an object in JSON.

    Raises:
        ValueError: it is one, but holds something else than finite numbers, or too many.
    """
    lines = output.strip().splitlines()
    if not lines or not lines[-1].lstrip().startswith("{"):
        return {}
    try:
        document = json.loads(lines[-1])
    except (ValueError, RecursionError):
        raise ValueError("it is not valid JSON") from None
    if len(document) > _MOST_METRICS:
        raise ValueError(f"{len(document)} numbers, of which {_MOST_METRICS} are most")
    found = {}
    for key, value in document.items():
        if not _NAME.fullmatch(key):
            raise ValueError(f"{key[:80]!r} is no name of a metric: use letters, digits, . _ - : /")
        if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
            raise ValueError(f"{key} is {str(value)[:40]!r}, not a finite number")
        found[f"{name}.{key}"] = float(value)
    return found


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _wait(process: "subprocess.Popen[bytes]", deadline: float, stop: Callable[[], bool]) -> str:
    """Until it has ended, or was ended; why, where it was. Nothing of its group is left."""
    why = ""
    while not why:
        try:
            process.wait(min(_LOOK_SECONDS, max(deadline - monotonic(), 0)))
            break
        except subprocess.TimeoutExpired:
            why = "the run is to stop" if stop() else ""
            why = why or ("timeout" if monotonic() >= deadline else "")
    with suppress(ProcessLookupError, PermissionError):  # what remains of the group, if anything
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return why


def _failure(code: int, cut_short: str, spec: ScriptSpec, words: str) -> str | None:
    if cut_short == "timeout":
        return f"it was ended after {spec.timeout:g} s"
    if cut_short:
        return f"it was ended: {cut_short}"
    if code == 0:
        return None
    told = words.strip()[-_TOLD:]
    return f"exit code {code}" + (f": {told}" if told else "")


class _Tail(Thread):
    """Reads a pipe to its end and keeps the end of what came."""

    def __init__(self, pipe: IO[bytes]) -> None:
        super().__init__(daemon=True, name="script-output")
        self._pipe, self._kept = pipe, b""
        self.start()

    def run(self) -> None:
        """Read until nobody writes any more."""
        with self._pipe:
            while block := self._pipe.read1(_KEPT_BYTES):  # type: ignore[attr-defined]
                self._kept = (self._kept + block)[-_KEPT_BYTES:]

    @property
    def text(self) -> str:
        """The end of what was said."""
        return self._kept.decode("utf-8", "replace")
