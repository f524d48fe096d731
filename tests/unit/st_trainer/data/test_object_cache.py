import os

import pytest

from st_trainer.data.object_cache import ObjectCache


def fetch_of(content, asked):
    def fetch(file):
        asked.append(content)
        file.write(content)

    return fetch


def get(cache, key, content, asked):
    with cache.open(key, len(content), fetch_of(content, asked)) as file:
        return file.read()


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_is_there_is_not_fetched_again(tmp_path):
    asked = []
    for _ in range(2):
        assert get(ObjectCache(tmp_path, 100), "a", b"content", asked) == b"content"
    assert asked == [b"content"]


@pytest.mark.parametrize("left", [b"", b"cont"])
def test_what_was_torn_is_fetched_again(tmp_path, left):
    """A machine that loses power may leave a file without its end, or without anything in it."""
    asked, cache = [], ObjectCache(tmp_path, 100)
    get(cache, "a", b"content", asked)
    [path] = files(tmp_path)
    path.write_bytes(left)
    for _ in range(2):
        assert get(cache, "a", b"content", asked) == b"content"
    assert len(asked) == 2


def test_what_was_not_used_for_longest_makes_room(tmp_path):
    cache, asked = ObjectCache(tmp_path, 100), []
    for key in "abc":
        get(cache, key, key.encode() * 30, asked)
        for path in files(tmp_path):  # as if it had been long ago
            found = path.stat()
            os.utime(path, ns=(found.st_atime_ns - 10**9, found.st_mtime_ns - 10**9))
    get(cache, "a", b"a" * 30, asked)
    get(cache, "d", b"d" * 30, asked)
    asked.clear()
    for key in "acd":
        get(cache, key, key.encode() * 30, asked)
    assert asked == []
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 100


def test_what_another_process_removed_is_fetched_again(tmp_path):
    cache, asked = ObjectCache(tmp_path, 100), []
    get(cache, "a", b"content", asked)
    files(tmp_path)[0].unlink()
    assert get(cache, "a", b"content", asked) == b"content"
    assert len(asked) == 2


def test_what_is_larger_than_the_bound_is_not_kept(tmp_path):
    assert get(ObjectCache(tmp_path, 3), "a", b"content", []) == b"content"
    assert files(tmp_path) == []


def test_what_failed_leaves_nothing(tmp_path):
    def fails(file):
        file.write(b"half")
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        ObjectCache(tmp_path, 100).open("a", 7, fails)
    assert files(tmp_path) == []
