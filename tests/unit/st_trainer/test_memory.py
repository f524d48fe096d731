import pytest

from st_shared.spec import TrainingSpec
from st_trainer.memory import cheapest_mend

BASE = {
    "model": {"family": "sd1", "base": "b"},
    "datasets": [{"path": "folder"}],
    "batch_size": 1,
    "memory": {"gradient_checkpointing": 1},
}

NF4 = {
    "precision": "bf16",
    "memory": {"gradient_checkpointing": 1, "quantization": {"format": "nf4"}},
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"memory": {}}, "gradient_checkpointing to 1"),
        ({"batch_size": 8}, "batch_size from 8 to 4 and raise training.accumulation from 1 to 2"),
        ({"precision": "bf16"}, "quantization.format to int8, or nf4"),
        ({"adapter": {"kind": "full"}}, "precision to bf16"),
        ({"precision": "bf16", "adapter": {"kind": "full"}}, "adapter.kind to lora"),
        (NF4, "ema.device to cpu"),
        (
            {
                **NF4,
                "ema": {"enabled": False},
                "model": BASE["model"] | {"config": {"resolution": 1024}},
            },
            "resolution from 1024 to 512",
        ),
        (
            {**NF4, "ema": {"device": "cpu"}, "adapter": {"rank": 64}},
            "adapter.rank from 64",
        ),
        ({**NF4, "ema": {"enabled": False}}, "more memory"),
    ],
)
def test_the_cheapest_change_comes_first(changes, said):
    assert said in cheapest_mend(TrainingSpec.model_validate(BASE | changes))
