"""Ephemeral workers: they leave by themselves, sign off and clear their folder."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from st_shared.ids import new_id
from st_shared.protocol.states import Outcome
from st_worker import garbage
from st_worker.agent import Departure
from st_worker.folder import StateFolder
from st_worker.settings import AgentSettings

pytestmark = pytest.mark.anyio

OVER, RUNNING, REMEMBERED, KEPT = (new_id("att") for _ in range(4))


async def test_a_worker_for_one_job_takes_no_second_and_leaves(
    double, start_agent, state_folder, tmp_path
):
    hands = await start_agent(ephemeral=True, one_job=True, slots=2)
    first = double.offer([["wait", str(tmp_path / "go")]], slots=[0])
    await double.until(lambda: "running" in first.states)
    second = double.offer([], slots=[1])
    count = len(double.heartbeats)
    await double.until(lambda: len(double.heartbeats) > count + 1)
    (tmp_path / "go").touch()
    departure = await hands.left()
    assert (departure, departure.exit_code) == (Departure.ONE_JOB, 0)
    assert first.finish.outcome == Outcome.SUCCEEDED
    assert not second.is_claimed
    assert len(double.left) == 1
    assert not state_folder.root.exists()


async def test_an_offer_that_is_gone_was_not_its_one_job(double, start_agent):
    hands = await start_agent(ephemeral=True, one_job=True)
    gone = double.offer([])
    gone.is_stale = True
    count = len(double.heartbeats)
    await double.until(lambda: len(double.heartbeats) > count + 2)
    real = double.offer([])
    assert await hands.left() is Departure.ONE_JOB
    assert real.finish.outcome == Outcome.SUCCEEDED


async def test_an_idle_worker_leaves_and_one_that_works_does_not(
    double, start_agent, agent_settings, state_folder, tmp_path
):
    first = await start_agent()
    attempt = double.offer([["wait", str(tmp_path / "go")]])
    await double.until(lambda: "running" in attempt.states)
    started = await first.let_go()  # so that the next one is never idle before
    settings = replace(agent_settings, idle_timeout_seconds=0.2)
    hands = await start_agent(ephemeral=True, settings=settings)
    count = len(double.heartbeats)
    await double.until(lambda: len(double.heartbeats) > count + 4)
    assert not hands.task.done()
    (tmp_path / "go").touch()
    assert await hands.left() is Departure.IDLE
    started.wait()
    assert attempt.finish.outcome == Outcome.SUCCEEDED
    assert double.heartbeats[-1].leaving
    assert len(double.left) == 1
    assert not state_folder.root.exists()


async def test_what_others_put_into_the_state_folder_stays(double, start_agent, state_folder):
    hands = await start_agent(ephemeral=True)
    await double.until(lambda: double.streams)
    (state_folder.root / "notes.txt").write_text("mine")
    hands.agent.leave(Departure.SIGNAL)
    assert await hands.left() is Departure.SIGNAL
    assert [path.name for path in state_folder.root.iterdir()] == ["notes.txt"]


def test_a_cache_that_agents_share_stays_when_one_leaves_for_good(tmp_path):
    folder = StateFolder(tmp_path / "state", tmp_path / "shared")
    folder.create()
    cache = folder.content_cache()
    (tmp_path / "whole").write_text("x")
    with cache.try_lock("ab" * 32):
        content = cache.admit("files", "ab" * 32, tmp_path / "whole")
    model = folder.models / "acme" / "hub" / "models--a--b" / "weights"
    model.parent.mkdir(parents=True)
    model.touch()
    folder.clear()
    assert not folder.root.exists()
    assert (content.exists(), model.exists()) == (True, True)


async def test_a_worker_that_stays_keeps_its_folder(double, start_agent, state_folder):
    hands = await start_agent()
    await double.until(lambda: double.streams)
    hands.agent.leave(Departure.SIGNAL)
    await hands.left()
    assert state_folder.credential.exists()
    assert double.left == []


@pytest.fixture
def cluttered(tmp_path) -> StateFolder:
    """Folders of attempts: over, running, remembered, and claimed just now."""
    folder = StateFolder(tmp_path / "cluttered")
    folder.create()
    for name in (OVER, RUNNING, REMEMBERED, KEPT):
        (folder.attempts / name / "run").mkdir(parents=True)
        (folder.attempts / name / "run" / "big").write_bytes(b"x" * 100_000)
    folder.attempt(REMEMBERED).record.touch()
    folder.attempt(KEPT).record.touch()
    folder.attempt(KEPT).keep()
    return folder


def _collected(folder, later: float):
    now = max(path.lstat().st_mtime for path in folder.attempts.iterdir()) + later
    return garbage.collect(folder, folder.model_caches(AgentSettings()), [RUNNING], now)


def test_garbage_is_what_no_attempt_needs(cluttered):
    assert _collected(cluttered, 59).removed == 0  # somebody may be claiming it just now
    report = _collected(cluttered, 61)
    assert report.removed == 1
    assert 100_000 <= report.freed_gb * 2**30 < 200_000
    left = sorted(path.name for path in cluttered.attempts.iterdir())
    assert left == sorted([RUNNING, REMEMBERED, KEPT])


def test_what_is_no_folder_of_an_attempt_is_no_garbage(cluttered, tmp_path):
    (cluttered.attempts / "notes.txt").write_text("mine")
    (cluttered.attempts / new_id("att")).symlink_to(tmp_path)
    (cluttered.attempts / "mine").mkdir()
    assert _collected(cluttered, 61).removed == 1
    assert len(list(cluttered.attempts.iterdir())) == 6


def test_garbage_that_cannot_be_removed_stays_and_the_rest_goes(cluttered, monkeypatch):
    stubborn, other = cluttered.attempt(OVER).root, cluttered.attempts / new_id("att")
    other.mkdir()
    rmdir = os.rmdir

    def refuse(path, *_, **__) -> None:
        """As the kernel does for a folder that holds files of another user."""
        if Path(path) != stubborn:
            return rmdir(path)
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    monkeypatch.setattr(os, "rmdir", refuse)
    assert _collected(cluttered, 61).removed == 1
    assert (stubborn.exists(), other.exists()) == (True, False)


def test_folders_too_deep_for_the_library_are_removed(cluttered, monkeypatch):
    deep = cluttered.attempt(OVER).run.joinpath(*["d"] * 30)
    deep.mkdir(parents=True)
    (deep / "elsewhere").symlink_to(cluttered.attempt(KEPT).root)

    def too_deep(_path) -> None:
        raise RecursionError

    monkeypatch.setattr(shutil, "rmtree", too_deep)
    assert _collected(cluttered, 61).removed == 1
    assert not cluttered.attempt(OVER).root.exists()
    assert (cluttered.attempt(KEPT).run / "big").exists()


def test_leaving_for_good_leaves_the_files_of_others_and_what_is_kept(cluttered):
    others = ["cache/huggingface/model", "cache/datasets/mine.tar", "attempts/mine/big"]
    for name in others:
        (cluttered.root / name).parent.mkdir(parents=True, exist_ok=True)
        (cluttered.root / name).touch()
    digest = "a" * 64
    for name in (f"datasets/{digest}/0", f"staging/.{digest}.partial", f"users/{digest}/x"):
        (cluttered.cache_root / name).parent.mkdir(parents=True, exist_ok=True)
        (cluttered.cache_root / name).touch()
    cluttered.attempt(REMEMBERED).record.unlink()
    cluttered.clear()
    files = {path for path in cluttered.root.rglob("*") if path.is_file()}
    kept = cluttered.attempt(KEPT)
    assert files == {*(cluttered.root / name for name in others), kept.kept, kept.run / "big"}


def test_a_folder_that_a_job_has_closed_is_removed_all_the_same(owned):
    attempt = StateFolder(owned / "state").attempt(new_id("att"))
    attempt.create()
    attempt.record.touch()
    (attempt.work / "go" / "pkg").mkdir(parents=True)
    (attempt.work / "go" / "pkg" / "mod").touch()
    for closed in (attempt.work / "go" / "pkg", attempt.work / "go", attempt.root):
        closed.chmod(0o500)
    attempt.remove()
    assert not attempt.root.exists()


async def test_garbage_is_collected_by_order_and_reported(double, start_agent):
    await start_agent()
    await double.until(lambda: double.streams)
    double.push("collect_garbage", '{"ordered_at":"2026-01-01T00:00:00Z"}')
    await double.until(lambda: double.garbage)
    assert double.garbage[0].removed == 0
