"""The UNets of Stable Diffusion, alone or with a ControlNet beside them."""

from typing import Any

from torch import Tensor, nn

from st_trainer.families.control import CONTROL
from st_trainer.families.family import Condition


def unet_answer(
    module: nn.Module, noisy: Tensor, times: Tensor, condition: Condition, **told: Any
) -> Tensor:
    """What the network gives, ``(B, C, H, W)``; ``told`` are further arguments of its forward."""
    text = condition["text"]
    if CONTROL in condition:
        told |= _residuals(module.controlnet, noisy, times, condition, **told)
    answer: Tensor = module(noisy, times, text, **told, return_dict=False)[0]
    return answer


def _residuals(
    controlnet: Any, noisy: Tensor, times: Tensor, condition: Condition, **told: Any
) -> dict[str, Any]:
    """What the ControlNet adds inside the UNet; Zhang et al. 2023, section 3.1."""
    own = controlnet.dtype
    inside, middle = controlnet(
        noisy.to(own),
        times,
        condition["text"].to(own),
        condition[CONTROL].to(own),
        return_dict=False,
        **told,
    )
    return {
        "down_block_additional_residuals": [each.to(noisy.dtype) for each in inside],
        "mid_block_additional_residual": middle.to(noisy.dtype),
    }
