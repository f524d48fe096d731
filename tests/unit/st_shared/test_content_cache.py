"""The cache of a host: bounded, shared by processes, nothing evicted that is in use."""

import os
import subprocess
import sys
import textwrap

import pytest

from st_shared.content_cache import CacheFullError, ContentCache

A, B, C, D = (letter * 64 for letter in "abcd")


@pytest.fixture
def cache(tmp_path):
    return ContentCache(tmp_path / "cache", 100)


def fill(cache, digest, size=40, user=None):
    with cache.try_lock(digest):
        if not cache.has("files", digest):
            cache.reserve(digest, size)
            cache.staging(digest).write_bytes(b"x" * size)
            cache.admit("files", digest, cache.staging(digest))
        cache.use(digest, user)


def here(cache, *digests):
    return [digest for digest in digests if cache.has("files", digest)]


def test_what_was_unused_longest_goes_first(cache):
    fill(cache, A)
    fill(cache, B)
    with cache.try_lock(A):
        cache.use(A, None)
    fill(cache, C)
    assert here(cache, A, B, C) == [A, C]
    assert list((cache.root / "trash").iterdir()) == []


def test_what_is_in_use_is_never_evicted(cache):
    fill(cache, A, user="one")
    fill(cache, B, user="one")
    fill(cache, B, user="two")
    with pytest.raises(CacheFullError, match="--cache-gb"):
        fill(cache, C)
    assert here(cache, A, B, C) == [A, B]
    cache.release("one")
    fill(cache, C)
    assert here(cache, A, B, C) == [B, C]


def test_a_user_that_was_killed_for_good_counts_for_a_day_and_one_that_goes_on_for_ever(tmp_path):
    time = [1e9]
    cache = ContentCache(tmp_path, 100, now=lambda: time[0])
    fill(cache, A, user="killed")
    fill(cache, B, user="killed")
    fill(cache, B, user="living")
    time[0] += 86_399
    cache.go_on_using("living")
    with pytest.raises(CacheFullError):
        fill(cache, C)
    time[0] += 2
    fill(cache, C)
    assert here(cache, A, B, C) == [B, C]
    with cache.try_lock(B):
        cache.use(B, "third")
    assert {path.name for path in (tmp_path / "users" / B).iterdir()} == {"living", "third"}


def test_what_a_full_disk_left_of_a_mark_holds_nothing_for_ever(tmp_path):
    time = [1e9]
    cache = ContentCache(tmp_path, 100, now=lambda: time[0])
    fill(cache, A, size=90, user="one")
    (tmp_path / "users" / A / ".two.partial").touch()
    os.utime(tmp_path / "users" / A / ".two.partial", (1e9, 1e9))
    cache.release("one")
    time[0] += 86_401
    fill(cache, B, size=90)
    assert here(cache, A, B) == [B]


def test_what_another_process_works_on_is_not_evicted(cache):
    fill(cache, A)
    fill(cache, B)
    code = f"""
        from pathlib import Path
        from st_shared.content_cache import ContentCache
        lock = ContentCache(Path({str(cache.root)!r}), 100).try_lock({A!r})
        print("held", flush=True)
        input()
    """
    other = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout.readline() == b"held\n"
    assert cache.try_lock(A) is None
    fill(cache, C)
    assert here(cache, A, B, C) == [A, C]
    other.kill()
    other.communicate()
    cache.try_lock(A).close()  # a process that was killed leaves no lock


def test_what_is_being_fetched_counts_until_its_process_is_gone(cache):
    lock = cache.try_lock(A)
    cache.reserve(A, 70)
    cache.staging(A).write_bytes(b"half")
    with pytest.raises(CacheFullError):
        fill(cache, B)
    lock.close()
    fill(cache, B)
    assert not cache.staging(A).exists()


def test_more_than_the_cache_may_hold_is_refused(cache):
    fill(cache, A)
    fill(cache, B, user="attempt")
    for size in (101, 61):
        with pytest.raises(CacheFullError):
            fill(cache, C, size=size)
    assert here(cache, A, B, C) == [A, B]  # nothing goes for what will not fit all the same
    fill(cache, C, size=60)
    assert here(cache, A, B, C) == [B, C]


def test_a_content_is_held_by_one_at_a_time(cache):
    with cache.try_lock(A):
        assert cache.try_lock(A) is None
        cache.try_lock(B).close()
    cache.try_lock(A).close()


def test_a_cache_whose_bound_was_lowered_shrinks_to_it_and_keeps_what_is_in_use(cache):
    fill(cache, A, user="attempt")
    fill(cache, B)
    (cache.root / "trash" / "left").write_bytes(b"x")
    assert cache.shrink() == (0, 0)
    smaller = ContentCache(cache.root, 50)
    assert smaller.shrink() == (1, 40)
    assert here(cache, A, B) == [A]
    assert list((cache.root / "trash").iterdir()) == []


def test_what_else_is_on_the_disk_counts(tmp_path):
    free = [100]
    cache = ContentCache(tmp_path / "cache", 1000, free=lambda folder: free[0])
    fill(cache, A)
    free[0] = 30
    assert (cache.capacity(), cache.capacity(spare=20), cache.capacity(spare=500)) == (70, 50, 0)
    with pytest.raises(CacheFullError, match="free some of its disk"):
        fill(cache, B, size=71)
    assert here(cache, A) == [A]  # nothing goes for what cannot come
    fill(cache, B, size=70)
    assert here(cache, A, B) == [B]


def test_what_was_fetched_before_an_interruption_is_not_asked_for_again(tmp_path):
    cache = ContentCache(tmp_path / "cache", 1000, free=lambda folder: 10)
    cache.staging(A).write_bytes(b"x" * 60)
    with cache.try_lock(A):
        cache.reserve(A, 70)
