import itertools
import json
from copy import deepcopy

from st_trainer.history import MAX_POINTS, LossHistory
from st_trainer.pace import Pace


def test_points_are_kept_in_order():
    history = LossHistory()
    history.add(10, 2.0)
    history.add(20, 1.0)
    assert history.points == [(10, 2.0), (20, 1.0)]


def test_a_long_run_keeps_its_shape_in_bounded_memory():
    history = LossHistory()
    for step in range(1, 3 * MAX_POINTS):
        history.add(step, float(step))
        assert len(history.points) <= MAX_POINTS
    steps = [step for step, _ in history.points]
    assert steps[-1] == 3 * MAX_POINTS - 1
    gaps = {later - earlier for earlier, later in itertools.pairwise(steps[:-1])}
    assert gaps == {4}
    # A point is the mean of the four steps that end at it.
    assert all(loss == step - 1.5 for step, loss in history.points[:-1])


def test_a_history_goes_on_from_its_points():
    history = LossHistory()
    for step in range(MAX_POINTS + 5):
        history.add(step, 0.5)
    resumed = LossHistory.restored(json.loads(json.dumps(history.state)))
    history.add(9999, 0.25)
    resumed.add(9999, 0.25)
    assert resumed.points == history.points


def test_pace_gives_speed_and_time_left():
    now = iter([0.0, 2.0, 4.0, 4.0]).__next__
    pace = Pace(steps=100, timer=now)
    assert pace.mark(0) == (None, None)
    assert pace.mark(10) == (5.0, 18.0)
    assert pace.mark(30) == (7.5, 70 / 7.5)
    assert pace.mark(30) == (7.5, 70 / 7.5)


def test_a_state_that_was_taken_stays_as_it_is():
    history = LossHistory()
    history.add(1, 0.5)
    history.window.append(0.25)
    state = history.state
    before = deepcopy(state)
    history.add(2, 0.75)
    history.window.append(0.125)
    assert state == before  # it is written in the background while training goes on
