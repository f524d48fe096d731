"""What trainers keep on a host: apart by organisation, and bounded."""

import json
import os
from pathlib import Path

import pytest

from st_worker.trainer_cache import RECENT_SECONDS, TrainerCache

NOW = 1e9


@pytest.fixture
def cache(tmp_path):
    return TrainerCache(tmp_path / "trainers", 1000, now=lambda: NOW)


def put(cache, org, variable, name, size, age):
    path = Path(cache.environment(org, {})[variable], name)
    path.write_bytes(b"x" * size)
    os.utime(path, (NOW - age, NOW - age))
    return path


def test_each_organisation_has_folders_of_its_own(cache, tmp_path):
    mine, theirs = cache.environment("physics", {}), cache.environment("arts", {})
    names = {"ST_INDEX_DIR", "ST_DATA_CACHE_DIR", "ST_CACHE_DIR"}
    assert {name: mine[name] for name in names} == {
        "ST_INDEX_DIR": f"{tmp_path}/trainers/physics/index",
        "ST_DATA_CACHE_DIR": f"{tmp_path}/trainers/physics/objects",
        "ST_CACHE_DIR": f"{tmp_path}/trainers/physics/encodings",
    }
    for name in names:
        assert mine[name] != theirs[name]
        assert Path(mine[name]).stat().st_mode & 0o777 == 0o700


def test_one_trainer_keeps_within_the_bound_by_itself(tmp_path):
    found = TrainerCache(tmp_path, 200 * 10**9).environment("arts", {})
    assert float(found["ST_CACHE_GB"]) + float(found["ST_DATA_CACHE_GB"]) < 200


def test_what_the_agent_was_started_with_stands(cache):
    given = {"ST_CACHE_DIR": "/elsewhere", "ST_CACHE_GB": "9"}
    assert given.keys().isdisjoint(cache.environment("arts", given))


def test_what_was_not_used_for_longest_goes_whosever_it_is(cache):
    oldest = put(cache, "arts", "ST_CACHE_DIR", "a", 400, 9 * RECENT_SECONDS)
    middle = put(cache, "physics", "ST_INDEX_DIR", "b", 400, 5 * RECENT_SECONDS)
    latest = put(cache, "arts", "ST_DATA_CACHE_DIR", "c", 400, 2 * RECENT_SECONDS)
    assert cache.trim() == (1, 400)
    assert [path.exists() for path in (oldest, middle, latest)] == [False, True, True]
    assert cache.trim() == (0, 0)


def test_what_may_be_in_use_stays(cache):
    path = put(cache, "arts", "ST_CACHE_DIR", "a", 4000, RECENT_SECONDS / 2)
    assert cache.trim() == (0, 0)
    assert path.exists()


@pytest.mark.anyio
async def test_the_trainer_is_told_where_its_organisation_keeps_things(
    double, start_agent, state_folder, monkeypatch
):
    names = ["ST_INDEX_DIR", "ST_DATA_CACHE_DIR", "ST_CACHE_DIR"]
    for name in names:
        monkeypatch.delenv(name, raising=False)
    await start_agent()
    attempt = double.offer([["environment", *names]])
    await double.until(lambda: attempt.finish)
    root = state_folder.cache_root / "trainers" / "default"
    folders = [str(root / name) for name in ("index", "objects", "encodings")]
    assert json.loads(attempt.messages[-1]) == dict(zip(names, folders, strict=True))


def test_a_state_folder_that_is_cleared_keeps_none_of_it(state_folder):
    state_folder.trainer_cache().environment("arts", {})
    state_folder.clear()
    assert not state_folder.root.exists()
