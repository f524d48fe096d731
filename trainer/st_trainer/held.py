"""Keeps files for those who need them still, while the training deletes its own copies."""

import os
import shutil
from pathlib import Path


def hold(source: Path, place: Path) -> Path:
    """The folder or file ``source`` again at ``place``, in no more room; remove it when done.

    Files are linked, or copied where the disk knows no links.
    """
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, place, copy_function=_link)
    else:
        place.mkdir()
        _link(str(source), str(place / source.name))
    return place


def release(place: Path) -> None:
    """Remove what was held."""
    shutil.rmtree(place, ignore_errors=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
