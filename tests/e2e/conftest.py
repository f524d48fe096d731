"""A fleet of real processes, and something small to train on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import Fleet
from PIL import Image


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    yield made
    made.close()


@pytest.fixture
def shades(tmp_path: Path) -> Path:
    """A folder of seven tiny pictures with captions."""
    folder = tmp_path / "shades"
    folder.mkdir()
    for index in range(7):
        Image.new("L", (4, 4), 30 * index).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"shade {index % 2}")
    return folder
