from itertools import pairwise

from st_worker.script.allowance import BURST_LINES, LINES_A_SECOND, MOST_BYTES, Allowance


def test_a_burst_is_kept_whole_and_what_follows_at_once_is_counted():
    allowance = Allowance(0)
    kept = [allowance.admits(10, 0) for _ in range(BURST_LINES + 50)]
    assert kept == [True] * BURST_LINES + [False] * 50
    note = allowance.take_note()
    assert note == "50 lines (500 bytes) were cut: a script may print 1000 lines a second"
    assert allowance.take_note() is None


def test_a_flood_is_kept_at_the_rate_in_whole_seconds():
    allowance = Allowance(0)
    flood = [allowance.admits(10, tick / 50_000) for tick in range(500_000)]  # 10 s, 50 a ms
    assert BURST_LINES + 8 * LINES_A_SECOND <= sum(flood) <= BURST_LINES + 10 * LINES_A_SECOND
    gaps = sum(before and not after for before, after in pairwise(flood))
    assert gaps <= 11  # a note each


def test_a_script_within_the_rate_loses_nothing():
    allowance = Allowance(0)
    step = 1 / LINES_A_SECOND
    assert all(allowance.admits(100, tick * step) for tick in range(100_000))


def test_the_volume_ends_it_for_good():
    allowance = Allowance(0)
    size, now, kept = 8_000, 0.0, 0
    while allowance.admits(size, now):
        kept, now = kept + 1, now + 1
    assert MOST_BYTES - size < kept * (size + 64) < MOST_BYTES + size + 64
    assert allowance.is_spent
    assert not allowance.admits(1, now + 1e9)
    assert allowance.take_note() == (
        "2 lines (8001 bytes) were cut: the log of an attempt holds 64 MiB"
    )


def test_empty_lines_are_bounded_too():
    allowance = Allowance(0)
    kept = sum(allowance.admits(0, float(tick)) for tick in range(MOST_BYTES // 64 + 10))
    assert kept == MOST_BYTES // 64
