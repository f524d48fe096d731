import pytest
import torch

from st_trainer.families.pixart import Pixart


@pytest.fixture
def told():
    """What a model that is told sizes hears of them, by the family's forward pass."""
    from diffusers import PixArtTransformer2DModel

    model = PixArtTransformer2DModel(
        sample_size=8, num_layers=1, attention_head_dim=8, num_attention_heads=3,
        caption_channels=8, cross_attention_dim=24, use_additional_conditions=True,
    )  # fmt: skip
    heard = []
    model.adaln_single.register_forward_hook(lambda _module, args, _answer: heard.append(args[1]))
    condition = {"text": torch.randn(2, 5, 8), "mask": torch.ones(2, 5, dtype=torch.long)}
    times = torch.tensor([3, 900])
    answer = Pixart().predict(model, torch.randn(2, 4, 6, 12), times, condition)
    return answer, heard[0]


def test_a_model_of_alpha_is_told_height_width_and_their_ratio(told):
    answer, heard = told
    assert answer.shape == (2, 4, 6, 12)
    assert heard["resolution"].tolist() == [[48, 96]] * 2
    assert heard["aspect_ratio"].tolist() == [[0.5]] * 2


@pytest.mark.families
def test_captions_are_read_in_lower_case(load_tiny):
    found = load_tiny("pixart").encode([" A Red Cat ", "a red cat", "a red dog"])
    assert torch.equal(found["text"][0], found["text"][1])
    assert not torch.equal(found["text"][0], found["text"][2])
