import json
from collections import Counter
from dataclasses import asdict

import numpy as np
import pytest

from st_trainer.data.sampler import Cursor, EpochPart, ShuffledSampler


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


BUCKETS = ["wide", "square", "wide", "tall", "square", "square", "wide", "square", "square"]


def bucketed(cursor=None, buckets=BUCKETS):
    return ShuffledSampler([1] * len(buckets), seed=9, cursor=cursor, buckets=buckets)


def test_a_batch_never_mixes_buckets():
    sampler = bucketed()
    for _ in range(100):
        batch = sampler.take(3)
        assert len(batch) == 3
        assert len({BUCKETS[index] for index in batch}) == 1


def test_every_epoch_deals_each_sample_once():
    sampler, dealt = bucketed(), Counter()
    for _ in range(100):
        dealt.update(sampler.take(2))
        cursor = sampler.cursor
        whole = Counter(dealt)
        whole.update(cursor.waiting)
        assert sum(whole.values()) == cursor.epoch * len(BUCKETS) + cursor.position
        assert all(whole[index] - cursor.epoch in (0, 1) for index in range(len(BUCKETS)))
    assert cursor.epoch > 10


def test_one_bucket_follows_the_order_of_the_epochs():
    orders = [np.random.default_rng([9, epoch]).permutation(5) for epoch in range(6)]
    sampler = bucketed(buckets=["square"] * 5)
    found = [index for _ in range(10) for index in sampler.take(3)]
    assert found == np.concatenate(orders).tolist()
    assert sampler.cursor.waiting == ()


@pytest.mark.parametrize("taken", range(12))
def test_a_new_sampler_goes_on_with_what_waits(taken):
    whole = bucketed()
    batches = [whole.take(2) for _ in range(30)]
    sampler = bucketed()
    assert [sampler.take(2) for _ in range(taken)] == batches[:taken]
    kept = Cursor(**json.loads(json.dumps(asdict(sampler.cursor))))
    resumed = bucketed(kept)
    assert [resumed.take(2) for _ in range(30 - taken)] == batches[taken:]
    assert resumed.cursor == whole.cursor


PARTS = [EpochPart(0, 10, 1.0), EpochPart(10, 30, 0.25), EpochPart(30, 31, 0.01)]


def weighed(cursor=None):
    return ShuffledSampler([1] * 10 + [2] * 20 + [1], 4, cursor, parts=PARTS)


def test_of_a_part_an_epoch_holds_its_share_and_others_each_time():
    sampler, seen = weighed(), Counter()
    for _ in range(40):
        epoch = Counter(sampler.take(10 + 2 * 5 + 1))
        assert [epoch[index] for index in range(10)] == [1] * 10
        assert sorted(epoch[index] for index in range(10, 30)) == [0] * 15 + [2] * 5
        assert epoch[30] == 1
        seen.update(epoch)
    assert all(seen[index] > 4 for index in range(10, 30))


@pytest.mark.parametrize("taken", [0, 5, 21, 22, 60])
def test_shares_are_gone_on_with_at_the_cursor(taken):
    whole = weighed().take(120)
    sampler = weighed()
    sampler.take(taken)
    assert weighed(sampler.cursor).take(60) == whole[taken : taken + 60]
