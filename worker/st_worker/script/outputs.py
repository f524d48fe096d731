"""The files that a script leaves in ``outputs/`` of its folder."""

import os
import re
import stat
from collections.abc import Iterator
from heapq import nsmallest
from pathlib import Path

from st_worker.script.journal import ScriptJournal

OUTPUTS_NAME = "outputs"
MOST_FILES = 1_000
"""Files of one attempt that are looked at; more belong into an archive."""

_LONGEST_PATH = 512
_SAFE_PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
"""As ``st_shared.protocol.journal.RelativePath``, which costs an import of pydantic."""


def announce_outputs(work: Path, run: Path, journal: ScriptJournal) -> None:
    """Move ``outputs/`` from the script's folder beside the journal and name each plain file.

    Whatever cannot be stored is named in a warning, and the rest is stored all the same.
    """
    left, kept = work / OUTPUTS_NAME, run / OUTPUTS_NAME
    if left.is_symlink() or not left.is_dir():
        journal.log(f"nothing is stored: {OUTPUTS_NAME}/ is no folder any more", "warning")
        return
    try:
        left.chmod(0o700)  # or it cannot be moved
        left.rename(kept)
    except OSError as error:
        journal.log(f"nothing is stored: {OUTPUTS_NAME}/: {error.strerror}", "warning")
        return
    for count, path in enumerate(_files(kept)):
        if count == MOST_FILES:
            journal.log(f"only {MOST_FILES} files are stored; pack them into one", "warning")
            return
        name = path.relative_to(run).as_posix()
        if flaw := _flaw(path, name):
            journal.log(f"{_shown(name)} is not stored: {flaw}", "warning")
        else:
            journal.output(name)


def _files(folder: Path) -> Iterator[Path]:
    """Everything below ``folder`` but folders that can be read, in order of names.

    Links lead nowhere.
    """
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        if len(str(path)) - len(str(folder)) > _LONGEST_PATH or not _is_folder(path):
            yield path
            continue
        try:
            with os.scandir(path) as entries:
                first = nsmallest(MOST_FILES + 1, (entry.name for entry in entries))
        except OSError:
            yield path  # closed, or gone
            continue
        waiting += [path / name for name in reversed(first)]


def _is_folder(path: Path) -> bool:
    """Whether it is one, as far as this user may know."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def _flaw(path: Path, name: str) -> str | None:
    if len(name) > _LONGEST_PATH or not _SAFE_PATH.fullmatch(name):
        return "its name may hold letters, digits, '.', '_' and '-', and not begin with a dot"
    try:
        mode = path.lstat().st_mode
        if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
            return "it is not a plain file"
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return None


def _shown(name: str) -> str:
    """A name as people can read it, whatever bytes it holds."""
    return name.encode("utf-8", "backslashreplace").decode()[:_LONGEST_PATH]
