"""What is kept of an autoencoder: a posterior to draw from, or its one value."""

import pytest
import torch

from st_trainer.families.parts import Parts
from st_trainer.share import WHOLE


def seed(number):
    return torch.Generator().manual_seed(number)


def test_a_posterior_is_drawn_from_anew_each_time(load_tiny):
    denoiser = load_tiny("sd1")
    samples = torch.rand(2, 3, 16, 16, generator=seed(0)) * 2 - 1
    family, assets = denoiser.family, denoiser.assets
    with torch.no_grad():
        encoding = family.encoded(assets, samples)
    assert encoding.keys() == {"mean", "std"}
    first, other, again = (
        family.drawn(assets, encoding, generator, WHOLE)
        for generator in (seed(1), seed(2), seed(1))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(first, denoiser.latents(samples, seed(1)))


def test_an_autoencoder_without_a_posterior_keeps_its_value(load_tiny):
    from diffusers import AutoencoderDC

    denoiser = load_tiny("sd1")
    torch.manual_seed(0)
    vae = AutoencoderDC(
        in_channels=3, latent_channels=4, attention_head_dim=4, scaling_factor=0.5,
        encoder_block_types=("ResBlock", "ResBlock"), decoder_block_types=("ResBlock", "ResBlock"),
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8),
        encoder_layers_per_block=(1, 1), decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), ()), decoder_qkv_multiscales=((), ()),
        downsample_block_type="Conv", upsample_block_type="interpolate",
    )  # fmt: skip
    denoiser.assets["vae"] = vae.requires_grad_(requires_grad=False)
    samples = torch.rand(1, 3, 16, 16, generator=seed(0)) * 2 - 1
    encoding = denoiser.family.encoded(denoiser.assets, samples)
    assert encoding.keys() == {"value"}
    expected = 0.5 * vae.encode(samples, return_dict=False)[0]
    for number in (1, 2):
        drawn = denoiser.family.drawn(denoiser.assets, encoding, seed(number), WHOLE)
        assert torch.equal(drawn, expected)


def test_a_part_that_was_set_down_comes_back_where_the_model_is(load_tiny):
    denoiser = load_tiny("sd1")
    parts = denoiser.assets
    assert isinstance(parts, Parts)
    weight = parts["vae"].encoder.conv_in.weight.clone()
    options = parts.config("vae")
    assert parts.set_down(["vae", "text_encoder"]) > 0
    assert "vae" not in parts
    assert parts.config("vae") == options
    denoiser.to(torch.device("meta"))
    assert parts["vae"].device.type == "meta"
    parts.set_down(["vae"])
    denoiser.to(torch.device("cpu"))
    assert torch.equal(parts["vae"].encoder.conv_in.weight, weight)
    assert not parts["vae"].training
    assert not any(each.requires_grad for each in parts["vae"].parameters())
    assert parts.set_down(["text_encoder"]) == 0
    with pytest.raises(KeyError, match="vea"):
        parts["vea"]
