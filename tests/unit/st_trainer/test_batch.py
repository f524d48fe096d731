import pytest
import torch
from fixtures.tiny import FAST, TINY
from PIL import Image

from st_shared.spec import TrainingSpec
from st_trainer.batch import draw_batch
from st_trainer.data.images import Images
from st_trainer.data.reading import read_datasets
from st_trainer.objectives.timesteps import dynamic_shift, shifted
from st_trainer.session import Session
from st_trainer.weights import open_denoiser

WIDE = (48, 8)
TOKENS = {"sd1": (8 * 8, 24 * 4), "flux": (4 * 4, 12 * 2), "sd3": (4 * 4, 12 * 2)}
"""Tokens of the square of 16 pixels and of the wide image, counted by hand."""


@pytest.fixture
def session(base_folder, tmp_path, name):
    """A square image, and a wide one of another number of pixels."""
    Image.new("RGB", (16, 16), (200, 30, 60)).save(tmp_path / "0.png")
    Image.new("RGB", WIDE, (10, 90, 240)).save(tmp_path / "1.png")
    for index in range(2):
        (tmp_path / f"{index}.txt").write_text(f"colour {index}")
    document = {
        "model": {"family": name, "base": str(base_folder(name)), "config": TINY[name].config},
        "datasets": [{"path": str(tmp_path)}],
        "objective": {
            "timesteps": {"shift": "dynamic"},
            "timestep_sampling": "uniform",
            "caption_dropout": 0,
        },
    }
    spec = TrainingSpec.model_validate(document)
    images = Images(3, 16, 16, buckets=((16, 16), WIDE[::-1]))
    samples = read_datasets(spec.datasets, [tmp_path], images).samples
    return Session(spec, samples, open_denoiser(spec, list))


@pytest.mark.parametrize(
    "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.families) for n in TOKENS]
)
@pytest.mark.parametrize("index", [0, 1])
def test_the_dynamic_shift_counts_the_tokens_of_the_batch(session, name, index):
    session.generator.manual_seed(3)
    clean = draw_batch(session, [index, index]).clean
    session.generator.manual_seed(3)
    again = session.encodings.latents(session.samples, [index, index], session.generator)
    torch.randn(again.shape, generator=session.generator)
    shares = torch.rand(2, generator=session.generator, dtype=torch.float64)
    expected = shifted(shares, dynamic_shift(TOKENS[name][index])).float()
    session.generator.manual_seed(3)
    found = draw_batch(session, [index, index]).times
    assert torch.equal(found, session.denoiser.objective.from_share(expected))
    assert torch.equal(clean, again)
