"""A fleet of real processes, and something small to train on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import QUICK_TO_LOSE, Fleet
from shades import make_shades

HANG_SECONDS = 900
"""What takes so long hangs: real processes may be slow where much else runs."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """Every test of this folder has its time."""
    if item.path.is_relative_to(Path(__file__).parent):
        item.add_marker(pytest.mark.timeout(HANG_SECONDS))


@pytest.fixture(scope="module")
def shared_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One controller for the tests of a file; whoever takes it from here clears it."""
    made = Fleet(tmp_path_factory.mktemp("fleet"), {"ST_ALLOW_COMMAND_JOBS": "1"})
    yield made
    made.close()


@pytest.fixture
def fleet(shared_fleet: Fleet, tmp_path: Path) -> Iterator[Fleet]:
    """A controller without workers and jobs, which may be killed."""
    shared_fleet.folder = tmp_path
    yield shared_fleet
    shared_fleet.clear()


@pytest.fixture
def quick_fleet(tmp_path: Path) -> Iterator[Fleet]:
    """One of its own, whose workers are lost soon."""
    made = Fleet(tmp_path, QUICK_TO_LOSE)
    yield made
    made.close()


@pytest.fixture
def shades(tmp_path: Path) -> Path:
    """A folder of seven tiny pictures with captions."""
    return make_shades(tmp_path / "shades")
