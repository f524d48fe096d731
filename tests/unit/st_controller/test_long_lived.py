"""The collector while a process leads: bounded looks, and nothing kept that nobody holds."""

import gc
import weakref

import pytest

from st_controller.dispatch.long_lived import STEP, THOROUGH, LongLived


@pytest.fixture
def long_lived():
    usual = gc.get_threshold()
    made = LongLived()
    made.begin()
    yield made
    made.end()
    assert gc.get_threshold() == usual
    assert gc.get_freeze_count() == 0


class Knot:
    """A cycle, which only the collector frees."""

    def __init__(self):
        self.self = self


def test_what_was_there_is_looked_through_no_more(long_lived):
    assert gc.get_freeze_count() > 1000
    assert gc.get_threshold()[2] > 1e6


def test_many_new_jobs_are_put_aside_and_few_are_not(long_lived):
    jobs = [[number] for number in range(STEP)]
    before = gc.get_freeze_count()
    long_lived.note(STEP - 1)
    assert gc.get_freeze_count() == before
    long_lived.note(STEP)
    assert gc.get_freeze_count() >= before + len(jobs)


def test_a_queue_that_shrank_and_grows_again_is_put_aside_again(long_lived):
    long_lived.note(10 * STEP)
    before = gc.get_freeze_count()
    long_lived.note(STEP)
    jobs = [[number] for number in range(100)]
    long_lived.note(2 * STEP)
    assert gc.get_freeze_count() >= before + len(jobs)


def test_garbage_among_what_was_put_aside_goes_once_the_queue_is_short(long_lived):
    made = Knot()
    knot = weakref.ref(made)
    long_lived.note(10 * STEP)
    del made
    long_lived.sweep()
    assert knot() is not None
    long_lived.note(STEP)
    assert knot() is None


def test_garbage_is_freed_by_the_sweep(long_lived):
    knot = weakref.ref(Knot())
    assert knot() is not None
    long_lived.sweep()
    assert knot() is None


def test_what_was_left_by_a_sweep_is_looked_through_once_in_a_while(long_lived):
    made = Knot()
    knot = weakref.ref(made)
    long_lived.sweep()
    del made
    for _ in range(THOROUGH - 2):
        long_lived.sweep()
    assert knot() is not None
    long_lived.sweep()
    assert knot() is None
