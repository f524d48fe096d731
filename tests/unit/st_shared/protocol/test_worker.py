"""What a worker may say of itself."""

import pytest
from pydantic import ValidationError

from st_shared.protocol.worker import Heartbeat, Inventory

INVENTORY = {
    "hostname": "h",
    "slots": [{"index": 0, "accelerator": "cpu", "memory_gb": 1}],
    "cpus": 1,
    "memory_gb": 1,
    "disk_free_gb": 1,
    "platform": "linux",
}


@pytest.mark.parametrize(
    "cached",
    [
        ["short"],
        ["A" * 64],
        ["a" * 63 + "\n"],
        [7],
        "a" * 64,
        {"a" * 64: True},
        [f"{number:064x}" for number in range(1001)],
    ],
)
def test_digests_are_checked_and_bounded(cached):
    with pytest.raises(ValidationError):
        Inventory.model_validate(INVENTORY | {"cached": cached})
    with pytest.raises(ValidationError):
        Heartbeat.model_validate({"cached": cached})


def test_a_thousand_digests_fit():
    cached = [f"{number:064x}" for number in range(1000)]
    assert Inventory.model_validate(INVENTORY | {"cached": cached}).cached == cached
    assert Heartbeat.model_validate({"cached": cached}).cached == cached


def test_an_older_worker_has_nothing_cached_and_tells_nothing():
    assert Inventory.model_validate(INVENTORY).cached == []
    assert Heartbeat.model_validate({}).cached is None
