import pytest
import torch

from st_shared.spec import PixelDitConfig
from st_trainer.data.captions import PADDING
from st_trainer.families.pixel_dit import PixelDit, PixelDitFamily, sincos_positions, sinusoids

CONFIG = PixelDitConfig(image_size=4, patch_size=2, channels=3, width=16, depth=2, heads=2)


def awake(config=CONFIG) -> PixelDit:
    """A model whose zero-initialised layers are random, so that every path carries something."""
    torch.manual_seed(0)
    model = PixelDit(config, vocabulary_size=9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    return model


def test_a_new_model_predicts_zero():
    model = PixelDit(CONFIG, vocabulary_size=9)
    words = torch.ones(2, 17, dtype=torch.long)
    assert model(torch.randn(2, 3, 4, 4), torch.rand(2), words).abs().max() == 0


def test_every_weight_learns():
    model = awake()
    words = torch.tensor([[1, 3, 4] + [PADDING] * 14, [1, 2, 5] + [PADDING] * 14])
    model(torch.randn(2, 3, 4, 4), torch.rand(2), words).square().sum().backward()
    assert [
        name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()
    ] == []


def test_words_time_and_image_all_matter_and_padding_does_not():
    model, image, time = awake(), torch.randn(1, 3, 4, 4), torch.tensor([0.3])
    words = torch.tensor([[1, 3, 4, PADDING, PADDING]])
    model.word_places.data = model.word_places.data[:5]
    base = model(image, time, words)
    assert not torch.allclose(base, model(image, time, torch.tensor([[1, 4, 3, PADDING, PADDING]])))
    assert not torch.allclose(base, model(image, time + 0.1, words))
    assert not torch.allclose(base, model(image + 0.1, time, words))
    model.words.weight.data[PADDING] = 100.0
    model.word_places.data[3:] = 100.0
    torch.testing.assert_close(model(image, time, words), base)


def test_patches_are_put_back_where_they_were_cut():
    model, images = PixelDit(CONFIG, vocabulary_size=9), torch.randn(2, 3, 4, 4)
    patches = model._cut(images)
    assert patches.shape == (2, 4, 12)
    assert torch.equal(patches[:, 1].view(2, 3, 2, 2), images[:, :, :2, 2:])
    assert torch.equal(model._join(patches, images.shape), images)


@pytest.mark.parametrize(("side", "width"), [(8, 96), (3, 16), (1, 20)])
def test_every_place_has_its_own_embedding(side, width):
    positions = sincos_positions(side, width)
    assert positions.shape == (side * side, width)
    distances = torch.cdist(positions, positions) + torch.eye(side * side)
    assert distances.min() > 0.1


def test_sinusoids_follow_their_formula():
    found = sinusoids(torch.tensor([2.0]), 4)[0]
    expected = [2.0, 2.0 * 10_000**-0.5]
    torch.testing.assert_close(found[:2], torch.tensor(expected).sin())
    torch.testing.assert_close(found[2:], torch.tensor(expected).cos())


def test_the_digits_model_has_about_a_million_weights():
    config = PixelDitConfig()
    module = PixelDitFamily().build(config, {"vocabulary": ["three"]})
    assert 0.9e6 < sum(parameter.numel() for parameter in module.parameters()) < 1.2e6
