import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the libraries are imported
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from PIL import Image

from st_shared.spec import ModelSpec, TrainingSpec
from st_trainer.families.family import Denoiser
from st_trainer.journal import Journal
from st_trainer.run_folder import RunFolder
from st_trainer.weights import load_base


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Iterator[None]:
    """Accelerate keeps its state in singletons; each test starts without.

    And with the same random numbers, whatever other tests have drawn before.
    """
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


@pytest.fixture
def trainer_dataset(tmp_path: Path) -> Path:
    """Seven 4x4 grey images with captions of two words."""
    folder = tmp_path / "squares"
    folder.mkdir()
    for index in range(7):
        Image.new("L", (4, 4), 30 * index).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"shade {'dark' if index < 4 else 'bright'}\n")
    return folder


@pytest.fixture
def tiny_spec(trainer_dataset: Path) -> Callable[..., TrainingSpec]:
    """Makes a specification that trains in milliseconds; keywords replace its keys."""

    def make(**changes) -> TrainingSpec:
        config = {"image_size": 4, "width": 16, "depth": 1, "heads": 2, "caption_length": 3}
        document = {
            "model": {"family": "pixel_dit", "config": config},
            "datasets": [{"path": str(trainer_dataset)}],
            "steps": 8,
            "batch_size": 3,
            "seed": 5,
            "log_every": 1,
            "checkpoint": {"every": 4, "keep_last": 2},
            "validation": {"prompts": ["shade dark"], "every": 4, "sampler_steps": 2},
        }
        return TrainingSpec.model_validate(document | changes)

    return make


@pytest.fixture
def run_folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    return folder


@pytest.fixture
def trainer_journal(run_folder: RunFolder) -> Iterator[Journal]:
    with Journal(run_folder.journal) as journal:
        yield journal


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of the tiny pretrained model of a family, built once."""
    from fixtures.tiny import TINY

    root = tmp_path_factory.mktemp("models")

    def of(name: str) -> Path:
        folder = root / name
        if not folder.exists():
            TINY[name].build(folder)
        return folder

    return of


@pytest.fixture
def load_tiny(base_folder: Callable[[str], Path]) -> Callable[[str], Denoiser]:
    """Loads the tiny model of a family through the path that a run takes."""
    from fixtures.tiny import TINY

    def load(name: str) -> Denoiser:
        base, config = str(base_folder(name)), TINY[name].config
        return load_base(ModelSpec(family=name, base=base, config=config))

    return load
