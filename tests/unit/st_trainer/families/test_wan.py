"""What the contract does not say of ``wan``: its lengths, its path, its bases."""

import json
import shutil

import pytest
import torch
from fixtures.tiny import TINY

from st_shared.spec import FAMILIES, ModelSpec, SpecProblems, validate_job
from st_trainer.errors import BadSpecError
from st_trainer.families.registry import REGISTRY
from st_trainer.weights import load_base

pytestmark = pytest.mark.families


def job(**config):
    model = {"family": "wan", "base": "somewhere", "config": config}
    return {"name": "a", "training": {"model": model, "datasets": [{"path": "b"}]}}


def test_the_length_is_4k_plus_1_frames():
    with pytest.raises(SpecProblems, match=r"frames 80 must be 4k \+ 1, such as 81"):
        validate_job(job(frames=80))
    config = FAMILIES["wan"].config(frames=77)
    assert REGISTRY["wan"].sample_shape(config) == (3, 77, 480, 832)


def test_our_path_is_that_of_unipc_within_its_last_step(load_tiny):
    denoiser = load_tiny("wan")
    scheduler = denoiser.assets["scheduler"]
    scheduler.set_timesteps(20)
    path = denoiser.objective.path(20, denoiser.tokens)
    torch.testing.assert_close(path.float(), scheduler.sigmas, atol=4e-3, rtol=0)


def test_a_base_that_wants_an_image_is_refused(base_folder, tmp_path):
    from diffusers import WanTransformer3DModel

    folder = tmp_path / "i2v"
    shutil.copytree(base_folder("wan"), folder)
    config = json.loads((folder / "transformer/config.json").read_text())
    wide = WanTransformer3DModel.from_config(config | {"in_channels": 9})
    wide.save_pretrained(folder / "transformer")
    with pytest.raises(BadSpecError, match="takes 9 channels of latents, its VAE gives 4"):
        load_base(ModelSpec(family="wan", base=str(folder), config=TINY["wan"].config))


def test_a_video_of_another_size_and_length_is_trained_on(load_tiny):
    denoiser = load_tiny("wan")
    generator = torch.Generator().manual_seed(0)
    videos = torch.rand(2, 3, 9, 48, 16, generator=generator)
    clean = denoiser.latents(videos, generator)
    denoiser.module.forward = TINY["wan"].oracle(clean)
    times = denoiser.objective.from_share(torch.tensor([0.1, 0.8]))
    noise = torch.randn(clean.shape, generator=generator)
    noisy = denoiser.objective.noisy(clean, noise, times)
    answer = denoiser.predict(noisy, times, denoiser.encode(["a", "b"]))
    target = denoiser.objective.target(clean, noise, times)
    assert denoiser.objective.loss(answer, target, times).item() < 1e-8
