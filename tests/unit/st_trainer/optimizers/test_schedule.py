import pytest

from st_shared.spec import ScheduleSpec
from st_trainer.optimizers.schedule import learning_rate


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1.0, 1.0, 0.853553, 0.5, 0.146447]),
    ],
)
def test_rates_follow_their_shape(name, rates):
    schedule = ScheduleSpec(name=name, warmup_steps=2)
    found = [learning_rate(2.0, schedule, step, 6) for step in range(6)]
    assert found == pytest.approx([2 * rate for rate in rates], abs=1e-6)


def test_a_warm_up_as_long_as_the_run_ends_at_the_peak():
    schedule = ScheduleSpec(warmup_steps=4)
    assert learning_rate(1.0, schedule, 3, 4) == 1.0
