"""The outbox: one global order without holes, replay from any place, and what is too old."""

from contextlib import ExitStack
from datetime import timedelta

import pytest
from sqlalchemy import select

from st_controller.services import outbox
from st_controller.store.places import PlacesLocked
from st_controller.store.schema import OutboxEvent


def emit(steps, *numbers: int, topic="t") -> None:
    with steps.db.write() as tx:
        for number in numbers:
            tx.emit(topic, "k", {"n": number})


def placed(steps) -> list[tuple[int, int]]:
    """Position and id of every event, in order of the positions."""
    with steps.db.read() as session:
        return [
            (event.position, event.id)
            for event in session.scalars(select(OutboxEvent).order_by(OutboxEvent.position))
        ]


def numbers(steps, after: int, *topics: str, limit=100) -> list[int]:
    with steps.db.read() as session:
        found = outbox.events_after(session, topics or ("t",), after, limit)
    return [event.body["n"] for event in found]


def is_replayable(steps, position: int) -> bool:
    with steps.db.read() as session:
        return outbox.is_replayable(session, position)


def test_positions_are_dense_and_no_event_is_placed_twice(steps):
    emit(steps, 1, 2)
    steps.relay()
    steps.relay()
    emit(steps, 3)
    steps.relay()
    assert [position for position, _ in placed(steps)] == [1, 2, 3]
    assert numbers(steps, 0) == [1, 2, 3]


def test_more_than_a_batch_is_placed_in_order(steps):
    emit(steps, *range(outbox.BATCH + 7))
    steps.relay()
    with steps.db.read() as session:
        assert outbox.current_position(session) == outbox.BATCH + 7
    assert numbers(steps, 0, limit=10_000) == list(range(outbox.BATCH + 7))


def test_an_event_is_told_once_it_has_its_place(steps):
    """SQLite has one writer at a time, so there it has it from the beginning."""
    with steps.db.write() as tx:
        tx.emit("t", "k", {"n": 1})
        assert numbers(steps, 0) == []
    assert numbers(steps, 0) == ([1] if steps.db.is_sqlite else [])
    steps.relay()
    assert numbers(steps, 0) == [1]


def test_replay_gives_exactly_what_came_after_a_place_of_these_topics(steps):
    for number in range(1, 13):
        emit(steps, number, topic="even" if number % 2 == 0 else "odd")
    steps.relay()
    for place in range(13):
        rest = range(place + 1, 13)
        assert numbers(steps, place, "odd", "even") == list(rest)
        assert numbers(steps, place, "even") == [n for n in rest if n % 2 == 0]
    assert numbers(steps, 3, "odd", "even", limit=2) == [4, 5]


def test_writers_and_relays_at_once_give_one_dense_order(steps, together):
    """Each writer's events keep their order, and whoever has seen n has seen all before it."""
    seen = []

    def work(turn):
        if turn < 8:
            for number in range(15):
                emit(steps, turn * 100 + number)
            return
        place = 0
        while len(seen) < 8 * 15 and place < 8 * 15:
            steps.relay()
            with steps.db.read() as session:
                for event in outbox.events_after(session, ["t"], place):
                    assert event.position == place + 1
                    place = event.position
                    if turn == 8:
                        seen.append(event.body["n"])

    together(work, range(10))
    assert [position for position, _ in placed(steps)] == list(range(1, 121))
    assert numbers(steps, 0, limit=1000) == seen
    for turn in range(8):
        mine = [number for number in seen if number // 100 == turn]
        assert mine == [turn * 100 + number for number in range(15)]


def test_an_event_that_is_committed_late_comes_after_those_already_told(steps):
    if steps.db.is_sqlite:
        pytest.skip("SQLite has one writer at a time")
    with steps.db.write() as late:
        late.emit("t", "k", {"n": 1})
        late.settle(None)  # it has the smaller id
        emit(steps, 2)
        steps.relay()
        assert numbers(steps, 0) == [2]
    steps.relay()
    assert numbers(steps, 0) == [2, 1]
    assert [position for position, _ in placed(steps)] == [1, 2]


def test_a_relay_waits_for_the_one_that_is_placing_events(steps, meanwhile):
    if steps.db.is_sqlite:
        pytest.skip("SQLite has one writer at a time")
    with ExitStack() as writing:
        late = writing.enter_context(steps.db.write())
        late.emit("t", "k", {"n": 1})
        late.settle(None)
        emit(steps, 2)
        with steps.db.write() as first:
            outbox.assign_positions(first)
            first.session.flush()
            writing.close()  # the second sees an event that the first has not seen
            second = meanwhile(steps.relay)
        second.result(120)
    assert numbers(steps, 0) == [2, 1]
    assert [position for position, _ in placed(steps)] == [1, 2]


def test_urgent_events_have_their_places_at_their_commit(steps):
    emit(steps, 1)
    steps.relay()
    with steps.db.write(places_events=True) as tx:
        tx.emit("t", "k", {"n": 2})
        tx.emit("t", "k", {"n": 3})
    assert numbers(steps, 0) == [1, 2, 3]
    emit(steps, 4)
    steps.relay()
    assert placed(steps) == [(1, 1), (2, 2), (3, 3), (4, 4)]


def test_nobody_else_gives_places_until_urgent_events_are_committed(steps, meanwhile):
    if steps.db.is_sqlite:
        pytest.skip("SQLite has one writer at a time")
    emit(steps, 1)
    with steps.db.write() as urgent:
        urgent.emit("t", "k", {"n": 2})
        urgent.settle(PlacesLocked())
        others = meanwhile(steps.relay)
        assert numbers(steps, 0) == []
    others.result(120)
    assert placed(steps) == [(1, 2), (2, 1)]


def test_what_is_too_old_cannot_be_replayed(steps):
    emit(steps, 1, 2)
    steps.relay()
    steps.clock.advance(60)
    emit(steps, 3, 4)
    steps.relay()
    assert [is_replayable(steps, place) for place in range(6)] == [True] * 5 + [False]
    with steps.db.write() as tx:
        assert outbox.prune(tx, tx.now) == 2
    assert [is_replayable(steps, place) for place in range(6)] == [False, False] + [True] * 3 + [
        False
    ]
    assert numbers(steps, 2) == [3, 4]


def test_when_all_is_pruned_only_the_newest_place_can_be_replayed(steps):
    assert is_replayable(steps, 0)
    emit(steps, 1, 2, 3)
    steps.relay()
    with steps.db.write() as tx:
        assert outbox.prune(tx, tx.now + timedelta(seconds=1)) == 3
    assert [is_replayable(steps, place) for place in range(5)] == [False] * 3 + [True, False]


def test_what_was_never_placed_is_never_pruned(steps):
    with steps.db.write() as tx:
        tx.emit("t", "k", {"n": 1})
        tx.settle(None)  # without a place, as where many write at once
    with steps.db.write() as tx:
        assert outbox.prune(tx, tx.now + timedelta(days=1)) == 0
    steps.relay()
    assert numbers(steps, 0) == [1]
