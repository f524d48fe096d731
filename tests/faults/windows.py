"""Moments in the life of an attempt that show in its folder."""

import json
from pathlib import Path


def is_open(state: Path, window: str) -> bool:
    """Whether some attempt below a worker's state folder stands in ``window``."""
    return any(_stands(folder, window) for folder in state.glob("attempts/*") if folder.is_dir())


def _stands(folder: Path, window: str) -> bool:
    record, run = folder / "attempt.json", folder / "run"
    if not record.exists():
        return False
    if window == "claimed":  # between claim and start
        return not (run / "output.log").exists()
    if window == "started":  # between start and record
        return (run / "output.log").exists()
    if window == "checkpoint without manifest":
        return any(not (made / "manifest.json").exists() for made in run.glob("checkpoints/step-*"))
    if window == "manifest":  # between checkpoint, its upload and its manifest's
        return any(run.glob("checkpoints/step-*/manifest.json"))
    if window == "last line":  # between last line and finish
        return _last_phase(run / "journal.ndjson") == "done"
    return (run / "exit.json").exists()


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
