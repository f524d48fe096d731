import json

import pytest
import torch

from st_trainer.tensor_tree import put_together, take_apart

TREE = {
    0: {"step": torch.tensor(3.0), "moments": [torch.ones(2), None], "rate": 0.1},
    "betas": (0.9, 0.99),
    "kind": torch.bfloat16,
    "flags": [True, "text", -7],
}


def test_a_tree_comes_back_through_json_with_its_tensors_apart():
    tensors = {}
    document = json.loads(json.dumps(take_apart(TREE, "", tensors)))
    assert set(tensors) == {"0.step", "0.moments.0"}
    again = put_together(document, tensors)
    assert torch.equal(again[0].pop("step"), TREE[0]["step"])
    assert torch.equal(again[0]["moments"].pop(0), torch.ones(2))
    assert again == {
        0: {"moments": [None], "rate": 0.1},
        "betas": (0.9, 0.99),
        "kind": torch.bfloat16,
        "flags": [True, "text", -7],
    }


def test_what_cannot_be_kept_is_refused_by_name():
    with pytest.raises(TypeError, match=r"groups\.0\.f is a function"):
        take_apart({"f": lambda: 0}, "groups.0", {})


def test_a_missing_tensor_is_noticed():
    with pytest.raises(KeyError):
        put_together({"tensor": "gone"}, {})
