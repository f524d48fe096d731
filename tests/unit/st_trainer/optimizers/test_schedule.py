import pytest

from st_shared.spec import ScheduleSpec
from st_trainer.optimizers.schedule import learning_rate


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1.0, 1.0, 0.853553, 0.5, 0.146447]),
        ("cosine_with_restarts", [0.5, 1.0, 1.0, 0.5, 1.0, 0.5]),
        ("polynomial", [0.5, 1.0, 1.0, 0.5625, 0.25, 0.0625]),
        ("sine", [0.5, 1.0, 1.0, 0.0, 1.0, 0.0]),
    ],
)
def test_rates_follow_their_shape_after_the_warm_up(name, rates):
    schedule = ScheduleSpec(name=name, warmup_steps=2, cycles=2, power=2)
    found = [learning_rate(2.0, schedule, step, 6) for step in range(6)]
    assert found == pytest.approx([2 * rate for rate in rates], abs=1e-6)


def test_a_warm_up_as_long_as_the_run_ends_at_the_peak():
    schedule = ScheduleSpec(warmup_steps=4)
    assert learning_rate(1.0, schedule, 3, 4) == 1.0


def test_the_last_rate_is_a_share_of_the_peak():
    schedule = ScheduleSpec(name="linear", end=0.2)
    assert learning_rate(10.0, schedule, 5, 10) == pytest.approx(6.0)
    assert learning_rate(10.0, schedule, 10, 10) == pytest.approx(2.0)
