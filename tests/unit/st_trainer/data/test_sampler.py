from collections import Counter

import pytest

from st_trainer.data.sampler import Cursor, ShuffledSampler


def test_every_epoch_holds_each_sample_as_often_as_it_repeats():
    sampler = ShuffledSampler([1, 3, 2], seed=0)
    for _ in range(4):
        assert Counter(sampler.take(6)) == {0: 1, 1: 3, 2: 2}


def test_epochs_are_shuffled_differently_and_the_seed_decides():
    def order(seed):
        sampler = ShuffledSampler([1] * 50, seed)
        return sampler.take(50), sampler.take(50)

    first, second = order(3)
    assert first != second
    assert order(3) == (first, second)
    assert order(4)[0] != first


@pytest.mark.parametrize("taken", [0, 1, 4, 5, 6, 14, 15, 16])
def test_a_new_sampler_goes_on_at_the_cursor(taken):
    whole = ShuffledSampler([1] * 5, seed=9).take(40)
    sampler = ShuffledSampler([1] * 5, seed=9)
    assert sampler.take(taken) == whole[:taken]
    resumed = ShuffledSampler([1] * 5, seed=9, cursor=sampler.cursor)
    assert resumed.take(20) == whole[taken : taken + 20]


def test_batches_are_full_across_epochs_and_larger_than_the_dataset():
    sampler = ShuffledSampler([1, 1, 1], seed=0)
    assert len(sampler.take(10)) == 10
    assert sampler.cursor == Cursor(epoch=3, position=1)


def test_nothing_to_draw_from_is_an_error():
    with pytest.raises(ValueError, match="no samples"):
        ShuffledSampler([], seed=0)
