"""Requests answered together: every one once, in order, and each with its own error."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from st_controller.services.combining import MOST, Combining

pytestmark = pytest.mark.timeout(30)


class Asked(Exception):
    pass


class Work:
    """Doubles numbers; the first request is held until ``go``, so that the others gather."""

    def __init__(self):
        self.parts, self.begun, self.go = [], Event(), Event()
        self.combining = Combining(self.together, self.alone, (Asked,))

    def together(self, asks):
        self.parts.append(list(asks))
        if "broken" in asks:
            raise RuntimeError("nobody knows what happened")
        if "bad" in asks:
            raise Asked
        return [ask * 2 for ask in asks]

    def alone(self, ask):
        if ask == "first":
            self.begun.set()
            assert self.go.wait(10)
        self.parts.append([ask])
        if ask in {"bad", "broken"}:
            raise Asked(ask)
        return ask * 2


@pytest.fixture
def work():
    return Work()


def ask_at_once(work, *asks):
    """Answers or errors of requests that all wait while the first one is worked on."""
    with ThreadPoolExecutor(len(asks) + 1) as pool:
        first = pool.submit(work.combining.do, "first")
        assert work.begun.wait(10)
        futures = []
        for number, ask in enumerate(asks, start=1):
            futures.append(pool.submit(work.combining.do, ask))
            while len(work.combining._line) < number:
                pass
        work.go.set()
        assert first.result(10) == "firstfirst"
        return [future.exception(10) or future.result() for future in futures]


def test_those_who_wait_are_answered_together_and_in_order(work):
    assert ask_at_once(work, "a", "b", "c") == ["aa", "bb", "cc"]
    assert work.parts == [["first"], ["a", "b", "c"]]


def test_one_alone_is_answered_alone(work):
    assert ask_at_once(work, "a") == ["aa"]
    assert work.parts == [["first"], ["a"]]


def test_a_mistake_is_told_to_whoever_made_it(work):
    good, bad, also_good = ask_at_once(work, "a", "bad", "c")
    assert (good, also_good) == ("aa", "cc")
    assert isinstance(bad, Asked)
    assert work.parts == [["first"], ["a", "bad", "c"], ["a"], ["bad"], ["c"]]


def test_after_other_errors_nothing_is_tried_again(work):
    told = ask_at_once(work, "a", "broken", "c")
    assert [str(error) for error in told] == ["nobody knows what happened"] * 3
    assert work.parts == [["first"], ["a", "broken", "c"]]
    assert work.combining.do("later") == "laterlater"


def test_a_part_is_bounded(work):
    asks = [f"{number:03}" for number in range(MOST + 5)]
    assert ask_at_once(work, *asks) == [ask * 2 for ask in asks]
    assert [len(part) for part in work.parts] == [1, MOST, 5]


def test_under_load_nothing_is_lost_or_doubled():
    seen = []

    def together(asks):
        seen.extend(asks)
        return list(asks)

    combining = Combining(together, lambda ask: together([ask])[0], (Asked,))
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(combining.do, range(3000)))
    assert answers == list(range(3000))
    assert sorted(seen) == list(range(3000))
