"""The stretch of events in memory: it never leaves one out, and says nothing where it could."""

from random import Random

import pytest

from st_controller.events.feed import EventFeed


def rows(*places, topic="t"):
    return [{"position": place, "topic": topic, "kind": "k", "body": {}} for place in places]


def places(feed, topics, after):
    """Places of the events after one; empty, too, where the database has to be asked."""
    found = feed.after(topics, after)
    return [event.position for event in found.events] if found else []


def tailed(begin=0, **options):
    """A feed that somebody tails, from after a place on."""
    feed = EventFeed(**options)
    feed.begin(begin)
    feed.is_tailed = True
    return feed


@pytest.fixture
def feed():
    return tailed()


def test_it_gives_what_came_after_a_place_of_these_topics(feed):
    feed.take(rows(1, 2))
    feed.take(rows(3, topic="other"))
    feed.take(rows(4))
    assert places(feed, ["t"], 0) == [1, 2, 4]
    assert places(feed, ["t", "other"], 1) == [2, 3, 4]
    assert places(feed, ["other"], 3) == []
    assert places(feed, ["t"], 4) == []


def test_it_begins_where_it_was_begun():
    feed = tailed(9)
    feed.take(rows(10))
    assert places(feed, ["t"], 9) == [10]
    assert feed.after(["t"], 8) is None  # 9 may be one for this follower


def test_before_it_was_begun_it_takes_nothing():
    feed = EventFeed()
    assert not feed.take(rows(1, 2))
    assert feed.ends is None


def test_where_nobody_tails_it_the_database_has_to_be_asked(feed):
    feed.take(rows(1, 2))
    feed.is_tailed = False
    assert feed.after(["t"], 0) is None


def test_it_tells_how_far_it_reaches():
    feed = tailed(7)
    assert feed.after(["t"], 6) is None
    assert feed.after(["t"], 7) == ([], 7)
    feed.take(rows(8, topic="other"))
    assert feed.after(["t"], 7) == ([], 8)
    feed.begin(3)  # it has begun
    assert feed.ends == 8


def test_a_gap_is_left_to_whoever_tails_it(feed):
    assert feed.take(rows(1, 2))
    assert not feed.take(rows(4, 5))  # another process placed 3, or is about to tell of it
    assert feed.ends == 2
    assert feed.take(rows(2, 3, 4))  # as they are read
    assert feed.take(rows(4, 5))
    assert places(feed, ["t"], 0) == [1, 2, 3, 4, 5]
    assert feed.take(rows(1))


def test_memory_is_bounded():
    feed = tailed(most=3)
    feed.take(rows(1, topic="rare"))
    feed.take(rows(2, 3, 4))
    assert places(feed, ["t", "rare"], 0) == []
    assert places(feed, ["t", "rare"], 1) == [2, 3, 4]
    assert set(feed._events) == {"t"}


def test_whatever_happens_an_answer_is_whole():
    """Against a list of all events: what is given is exactly what came after, up to a place."""
    for seed in range(200):
        random = Random(seed)
        feed, everything, place = tailed(most=8), [], 0
        for _ in range(60):
            batch = [
                row
                for next_place in range(place + 1, place + 1 + random.randint(1, 4))
                for row in rows(next_place, topic=random.choice("abc"))
            ]
            place += len(batch)
            everything += batch
            # One in five is placed by another process.
            if random.random() < 0.8 and not feed.take(batch):
                feed.take([row for row in everything if row["position"] > feed.ends])
            topics = random.sample("abc", random.randint(1, 3))
            after = random.randint(max(0, place - 12), place)
            found = feed.after(topics, after)
            if found is None:
                assert after < feed.ends - 8, seed
                continue
            assert [event.position for event in found.events] == [
                row["position"]
                for row in everything
                if row["topic"] in topics and after < row["position"] <= found.upto
            ], seed


def test_what_the_database_has_next_closes_a_gap(feed):
    feed.take(rows(1, 2))
    assert not feed.take(rows(1_000_003))
    assert feed.take(rows(1_000_003, 1_000_004), are_next=True)
    assert places(feed, ["t"], 1) == [2, 1_000_003, 1_000_004]
    assert feed.ends == 1_000_004


def test_what_was_dropped_before_a_gap_has_to_be_asked_for():
    feed = tailed(most=2)
    feed.take(rows(1, 2))
    feed.take(rows(900, 901), are_next=True)
    assert feed.after(["t"], 1) is None
    assert places(feed, ["t"], 2) == [900, 901]
    feed.take(rows(902))
    assert feed.after(["t"], 899) is None
    assert places(feed, ["t"], 900) == [901, 902]
