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
    except (OSError, RecursionError) as error:  # the latter: a thousand folders in each other
        why = f"{type(error).__name__}: {error}"
    else:
        return True
    for folder in reversed(opened_folders(root)):
        with suppress(OSError):
            with os.scandir(folder) as entries:
                for entry in entries:
                    with suppress(OSError):
                        os.unlink(entry)  # noqa: PTH108
            os.rmdir(folder)  # noqa: PTH106
    if not os.path.lexists(root):
        return True
    log.warning("folder.not_removed", path=str(root), why=why)
    return False


def opened_folders(root: Path) -> list[str]:
    """``root`` and every folder below it, outer ones first, with all rights for their owner.

    Links are not followed. However deep it goes, nothing here calls itself; for the same reason
    these are no ``Path``, which is slow with a thousand parts.
    """
    found = [] if root.is_symlink() else [str(root)]
    for folder in found:  # which grows meanwhile
        with suppress(OSError):
            os.chmod(folder, 0o700)  # noqa: PTH101
            with os.scandir(folder) as entries:
                found += [each.path for each in entries if each.is_dir(follow_symlinks=False)]
    return found
