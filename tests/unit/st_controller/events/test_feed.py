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


@pytest.fixture
def feed():
    return EventFeed()


def test_it_gives_what_came_after_a_place_of_these_topics(feed):
    feed.take(rows(1, 2))
    feed.take(rows(3, topic="other"))
    feed.take(rows(4))
    assert places(feed, ["t"], 0) == [1, 2, 4]
    assert places(feed, ["t", "other"], 1) == [2, 3, 4]
    assert places(feed, ["other"], 3) == []
    assert places(feed, ["t"], 4) == []


def test_it_begins_where_it_was_begun(feed):
    feed.take(rows(10))
    assert places(feed, ["t"], 9) == [10]
    assert places(feed, ["t"], 8) == []  # 9 may be one for this follower


def test_behind_a_gap_it_begins_anew(feed):
    feed.take(rows(1, 2))
    feed.take(rows(4))  # another process placed 3
    assert places(feed, ["t"], 2) == []
    assert places(feed, ["t"], 3) == [4]
    feed.take(rows(5))
    assert places(feed, ["t"], 3) == [4, 5]


def test_a_stretch_that_comes_late_is_left_to_the_database(feed):
    feed.take(rows(1, 2))
    feed.take(rows(5, 6))  # committed after 3 and 4, but told first
    feed.take(rows(3, 4))
    assert places(feed, ["t"], 2) == []
    feed.take(rows(7))
    assert places(feed, ["t"], 4) == [5, 6, 7]


def test_it_tells_how_far_it_reaches(feed):
    assert feed.after(["t"], 0) is None
    feed.begin(7)
    assert feed.after(["t"], 6) is None
    assert feed.after(["t"], 7) == ([], 7)
    feed.take(rows(8, topic="other"))
    assert feed.after(["t"], 7) == ([], 8)
    feed.begin(3)  # it has begun
    assert feed.ends == 8


def test_while_it_is_tailed_a_gap_is_left_to_whoever_does(feed):
    feed.begin(0)
    feed.is_tailed = True
    assert feed.take(rows(1, 2))
    assert not feed.take(rows(4, 5))  # another process placed 3, or is about to tell of it
    assert feed.ends == 2
    assert feed.take(rows(2, 3, 4))  # as they are read
    assert feed.take(rows(4, 5))
    assert places(feed, ["t"], 0) == [1, 2, 3, 4, 5]
    assert feed.take(rows(1))


def test_memory_is_bounded():
    feed = EventFeed(most=3)
    feed.take(rows(1, topic="rare"))
    feed.take(rows(2, 3, 4))
    assert places(feed, ["t", "rare"], 0) == []
    assert places(feed, ["t", "rare"], 1) == [2, 3, 4]
    assert set(feed._events) == {"t"}


def test_whatever_happens_an_answer_is_whole():
    """Against a list of all events: what is given is exactly the next ones, or nothing."""
    for seed in range(200):
        random = Random(seed)
        feed, everything, place = EventFeed(most=8), [], 0
        for _ in range(60):
            batch = [
                row
                for next_place in range(place + 1, place + 1 + random.randint(1, 4))
                for row in rows(next_place, topic=random.choice("abc"))
            ]
            place += len(batch)
            everything += batch
            if random.random() < 0.8:  # otherwise another process placed them
                feed.take(batch)
            topics = random.sample("abc", random.randint(1, 3))
            after = random.randint(max(0, place - 12), place)
            found = places(feed, topics, after)
            wanted = [
                row["position"]
                for row in everything
                if row["topic"] in topics and row["position"] > after
            ]
            assert found == wanted[: len(found)], seed
