"""Combinations that cannot be are refused when a job is submitted, with the field and the mend."""

import pytest
from pydantic import ValidationError

from st_shared.spec import TrainingSpec

BASE = {"model": {"family": "sd1", "base": "b"}, "datasets": [{"path": "x"}]}
SCRATCH = {"model": {"family": "pixel_dit"}, "datasets": [{"path": "x"}]}
INT8 = {"quantization": {"format": "int8"}}
BLOCK = {"offload": {"level": "block"}, "gradient_checkpointing": 1}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"memory": INT8, "adapter": {"kind": "full"}}, "quantization.format .* adapter.kind lora"),
        ({"memory": BLOCK, "adapter": {"kind": "full"}}, "offload.level .* adapter.kind lora"),
        (
            {"memory": {"quantization": {"format": "nf4", "backend": "torchao"}}},
            "torchao has no nf4: use bitsandbytes",
        ),
        ({"memory": {"quantization": {"exclude": ["x"]}}}, "exclude means nothing without"),
        ({"memory": {"quantization": {"backend": "quanto"}}}, "backend means nothing without"),
        ({"memory": INT8 | BLOCK}, "quantised weights are not offloaded"),
        ({"memory": {"offload": {"level": "block"}}}, "set memory.gradient_checkpointing to 1"),
        ({"memory": {"offload": {"to": "disk"}}}, "without memory.offload.level"),
        (
            {"memory": BLOCK | {"offload": {"level": "leaf", "blocks": 2}}},
            "blocks means nothing for memory.offload.level leaf",
        ),
        ({"memory": BLOCK, "speed": {"compile": True}}, "memory.offload brings .* drop one"),
        ({"memory": INT8, "speed": {"compile": True}}, "format int8: use nf4, or drop one"),
        (SCRATCH | {"memory": {"quantization": {"text_encoders": "int8"}}}, "no text encoder"),
        (SCRATCH | {"speed": {"attention": "flash"}}, "no choice of attention"),
        ({"optimizer": {"fused_backward": True}}, "max_grad_norm to null"),
        (
            {"optimizer": {"fused_backward": True, "max_grad_norm": None}, "accumulation": 2},
            "accumulation is 2",
        ),
        (
            {"optimizer": {"fused_backward": True, "max_grad_norm": None, "name": "prodigy"}},
            "prodigy looks at all weights",
        ),
        ({"optimizer": {"offload": True, "name": "adamw_schedulefree"}}, "use adamw"),
        (
            {"optimizer": {"offload": True, "fused_backward": True, "max_grad_norm": None}},
            "exclude each other",
        ),
        ({"optimizer": {"offload": True}, "precision": "fp16"}, "scaled gradients"),
    ],
)
def test_it_is_refused(changes, said):
    with pytest.raises(ValidationError, match=said):
        TrainingSpec.model_validate(BASE | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"memory": INT8},
        {"memory": BLOCK},
        {"memory": {"quantization": {"format": "nf4"}}, "speed": {"compile": True}},
        {"memory": {"gradient_checkpointing": 2}, "accumulation": 4},
        {"optimizer": {"fused_backward": True, "max_grad_norm": None}},
        SCRATCH | {"memory": {"gradient_checkpointing": 1}},
    ],
)
def test_what_can_be_is_taken(changes):
    TrainingSpec.model_validate(BASE | changes)
