"""What the scheduler decides has not changed since its digests were written down."""

import json

import pytest

from simulation import decided

WRITTEN: dict[str, str] = json.loads(decided.DIGESTS.read_text())

pytestmark = pytest.mark.skipif(
    decided.exponentials() != WRITTEN["exp"],
    reason="the C library here rounds exp() otherwise, which may turn a tie",
)
AS_WRITTEN = "if the rules were to change: python -m simulation.decided, in tests/"


def test_random_schedules_are_decided_as_before() -> None:
    now = {f"schedule {seed}": decided.of_schedule(seed) for seed in decided.SCHEDULES}

    assert {name: WRITTEN[name] for name in now} == now, AS_WRITTEN


@pytest.mark.parametrize("seed", decided.CROWDS)
def test_a_full_fleet_is_shared_out_as_before(seed: int) -> None:
    assert decided.of_crowd(seed) == WRITTEN[f"crowd {seed}"], AS_WRITTEN
