import pytest
import torch

from st_trainer.techniques.masked_loss import spread


@pytest.mark.parametrize("shape", [(2, 4, 2, 2), (2, 4, 3, 2, 2)])
def test_weights_are_areas_of_the_mask_that_average_one(shape):
    masks = torch.zeros(2, 1, 4, 4)
    masks[0, :, :, :2] = 1  # the left half
    masks[1] = 0.3  # evenly
    weights = spread(masks, torch.zeros(shape))
    flat = weights.reshape(2, 2, 2)
    assert flat[0].tolist() == [[2, 0], [2, 0]]
    torch.testing.assert_close(flat[1], torch.ones(2, 2))
    assert (weights * torch.ones(shape)).shape == shape


def test_a_black_mask_takes_a_sample_out():
    assert spread(torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 2, 2)).abs().max() == 0
