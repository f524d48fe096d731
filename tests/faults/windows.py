"""Moments in the life of an attempt that show in its folder."""

import json
from collections.abc import Callable
from pathlib import Path


def is_open(state: Path, window: str) -> bool:
    """Whether some attempt below a worker's state folder stands in ``window``."""
    return any(
        LOOKS[window](record.parent / "run") for record in state.glob("attempts/*/attempt.json")
    )


def _last_phase(journal: Path) -> str | None:
    if not journal.exists():
        return None
    tail = journal.read_bytes()[-400:].splitlines()[1:]
    for line in reversed(tail):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if event.get("kind") == "progress":
            return event.get("phase")
    return None


def _has_manifest(run: Path, *, wanted: bool) -> bool:
    made = run.glob("checkpoints/step-*")
    return any((folder / "manifest.json").exists() is wanted for folder in made)


LOOKS: dict[str, Callable[[Path], bool]] = {
    "claimed": lambda run: not (run / "output.log").exists(),
    "started": lambda run: (run / "output.log").exists(),
    "checkpoint without manifest": lambda run: _has_manifest(run, wanted=False),
    "manifest": lambda run: _has_manifest(run, wanted=True),
    "last line": lambda run: _last_phase(run / "journal.ndjson") == "done",
    "exit note": lambda run: (run / "exit.json").exists(),
}
"""By its run folder: claimed and not started; started, perhaps not recorded; the files of a
checkpoint, and its manifest, perhaps not uploaded; all lines written; ended, not finished."""
