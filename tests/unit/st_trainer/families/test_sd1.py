"""What is particular to ``sd1``: checkpoints that predict v, as Stable Diffusion 2 does."""

import json
import shutil

import pytest
import torch
from diffusers import StableDiffusionPipeline
from fixtures.tiny import TINY

from st_shared.spec import ModelSpec, ValidationSpec
from st_trainer.sampling import denoise, starting_noise
from st_trainer.weights import load_base


@pytest.fixture
def v_folder(base_folder, tmp_path):
    folder = tmp_path / "v"
    shutil.copytree(base_folder("sd1"), folder)
    file = folder / "scheduler/scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"prediction_type": "v_prediction"}))
    return folder


def test_the_schedulers_file_says_what_is_predicted(v_folder):
    model = ModelSpec(family="sd1", base=str(v_folder), config=TINY["sd1"].config)
    denoiser = load_base(model)
    assert denoiser.objective.predicts_v
    noise = starting_noise(1, denoiser.latent_shape, seed=2)
    settings = ValidationSpec(sampler_steps=3, guidance=2)
    found = denoise(denoiser, ["a cat"], noise, settings)
    stock = StableDiffusionPipeline.from_pretrained(v_folder)
    stock.set_progress_bar_config(disable=True)
    expected = TINY["sd1"].sample(stock, ["a cat"], noise, 3, 2.0)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
