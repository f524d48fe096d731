"""What was noticed of jobs is tallied as the database would tally it."""

import random
from collections import Counter

from st_controller.services.queue_marks import SECOND, Noticed, Tally


def tally(marks):
    """By seconds, counted anew."""
    found = {}
    for version, at in marks.values():
        found.setdefault(at // SECOND, []).append((version, at % SECOND))
    return {
        second: Tally(len(each), sum(v for v, _ in each), sum(f for _, f in each))
        for second, each in found.items()
    }


def test_tallies_are_those_of_the_marks_whatever_was_put_and_forgotten():
    chance, noticed, marks = random.Random(7), Noticed(), {}
    for step in range(2000):
        job_id, mark = f"job_{chance.randrange(40)}", (chance.randrange(5), chance.randrange(10**8))
        if chance.random() < 0.5:
            noticed.put(job_id, mark)
            marks[job_id] = mark
        else:
            noticed.put_later(job_id, mark)
            marks[job_id] = max(mark, marks.get(job_id, mark))
        if step % 100 == 99:
            noticed.forget(50)
            marks = {job_id: mark for job_id, mark in marks.items() if mark[1] >= 50 * SECOND}
        assert noticed.differing(tally(marks), 0) == set()
        assert all(noticed.has(job_id, mark) for job_id, mark in marks.items())


def test_seconds_differ_where_a_job_is_more_or_less_or_another():
    noticed = Noticed()
    for job_id, mark in {"a": (1, 5 * SECOND), "b": (1, 5 * SECOND + 1), "c": (1, 7)}.items():
        noticed.put(job_id, mark)
    same = {5: Tally(2, 2, 1), 0: Tally(1, 1, 7)}
    assert noticed.differing(same, 0) == set()
    assert noticed.differing(same | {5: Tally(2, 3, 1)}, 0) == {5}
    assert noticed.differing(same | {5: Tally(2, 2, 2)}, 0) == {5}
    assert noticed.differing(same | {6: Tally(1, 1, 0)}, 0) == {6}
    assert noticed.differing({5: Tally(2, 2, 1)}, 0) == {0}
    assert noticed.differing({5: Tally(2, 2, 1)}, 1) == set()  # it is not asked about
    assert Counter(noticed.has(job_id, (1, 7)) for job_id in "abc") == {False: 2, True: 1}
