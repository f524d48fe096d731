from pathlib import Path

import numpy as np
import pytest
from fixtures.tiny import TINY
from PIL import Image

from st_shared.protocol.journal import journal_event
from st_shared.spec import FAMILIES, TrainingSpec
from st_trainer.run_folder import RunFolder

COLOURS = ("red", "blue", "green", "white", "black", "grey")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Folder that the runs of a test share."""
    monkeypatch.setenv("ST_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pictures(tmp_path):
    """Six noisy RGB images with two captions each, a mask and a conditioning picture."""
    folder = tmp_path / "pictures"
    (folder / "edges").mkdir(parents=True)
    generator = np.random.default_rng(7)
    for index, colour in enumerate(COLOURS):
        noise = generator.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{index}.png")
        Image.new("L", (16, 16), 40 * index).save(folder / f"{index}.mask.png")
        Image.new("RGB", (16, 16), (0, 40 * index, 9)).save(folder / "edges" / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"{colour} noise\nnoise in {colour}\n")
    return folder


@pytest.fixture
def spec_of(base_folder, pictures):
    """A few steps of a tiny model; keywords replace keys of the document."""

    def make(family="sd1", cache=None, dataset=None, **changes):
        options = TINY[family].config
        document = {
            "model": {"family": family, "base": str(base_folder(family)), "config": options},
            "datasets": [{"path": str(pictures)} | (dataset or {})],
            "steps": 3,
            "batch_size": 2,
            "log_every": 1,
            "adapter": {"rank": 2},
            "optimizer": {"learning_rate": 0.01},
            "checkpoint": {"every": 3},
            "cache": cache or {},
        }
        if FAMILIES[family].edits:
            document["datasets"][0].setdefault("conditioning", "edges")
        return TrainingSpec.model_validate(document | changes)

    return make


def events(root, kind):
    lines = RunFolder(Path(root)).journal.read_bytes().splitlines()
    return [each for each in map(journal_event.validate_json, lines) if each.kind == kind]


def said(root):
    return [each.message for each in events(root, "log")]
