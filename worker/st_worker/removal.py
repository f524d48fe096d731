"""Removes folders that a job has written, whatever it left in them."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)


def remove_tree(root: Path) -> bool:
    """Delete a folder with all below it; whether nothing of it is left.

    Folders that their owner may not write (Go keeps its modules so) are opened first. What still
    stays, since it is another user's for example, is logged: no job may end the agent this way.
    """
    try:
        shutil.rmtree(root)
    except (OSError, RecursionError) as error:  # the latter: thousands of folders in each other
        why = f"{type(error).__name__}: {error}"
    else:
        return True
    with suppress(OSError, RecursionError):
        _open(root)
    with suppress(OSError, RecursionError):
        shutil.rmtree(root, ignore_errors=True)
    if not os.path.lexists(root):
        return True
    log.warning("folder.not_removed", path=str(root), why=why)
    return False


def _open(root: Path) -> None:
    """Give the owner all rights on every folder; links are not followed."""
    root.chmod(0o700)
    for folder, names, _ in os.walk(root):
        for name in names:
            inside = Path(folder, name)
            if not inside.is_symlink():
                with suppress(OSError):
                    inside.chmod(0o700)
