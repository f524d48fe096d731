import pytest
import torch

from st_trainer.objectives.caption_dropout import drop_captions


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_asked_share_of_captions_is_emptied(share):
    kept = drop_captions(["a"] * 10_000, share, torch.Generator().manual_seed(0))
    assert set(kept) <= {"a", ""}
    assert kept.count("") / 10_000 == pytest.approx(share, abs=0.02 * (0 < share < 1))
