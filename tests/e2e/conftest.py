"""A fleet of real processes, and something small to train on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import Fleet
from shades import make_shades


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    yield made
    made.close()


@pytest.fixture
def shades(tmp_path: Path) -> Path:
    """A folder of seven tiny pictures with captions."""
    return make_shades(tmp_path / "shades")
