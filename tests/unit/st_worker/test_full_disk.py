"""A disk without room: /dev/full stands where the agent writes aside, so the error is real."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from st_shared.protocol.states import FailureKind, Outcome
from st_worker import supervise
from st_worker.credential import Credential
from st_worker.uploads import Uploads

pytestmark = pytest.mark.anyio


def _without_room(folder: Path, *names: str) -> None:
    for name in names:
        (folder / f".{name}.partial").symlink_to("/dev/full")


async def test_an_attempt_goes_on_when_its_places_cannot_be_kept(
    double, start_agent, state_folder, tmp_path
):
    await start_agent()
    go = tmp_path / "go"
    script = [["logs", 3], ["wait", str(go)], ["sample", "a.png"], ["logs", 700]]
    attempt = double.offer(script)
    await double.until(lambda: len(attempt.messages) > 3)
    folder = state_folder.attempt(attempt.claim.attempt_id).root
    _without_room(folder, "attempt.json", "shipped.json", "uploaded.json")
    go.touch()
    await double.until(lambda: attempt.finish)
    assert attempt.finish.outcome == Outcome.SUCCEEDED
    assert [line["seq"] for line in attempt.lines] == list(range(1, attempt.finish.last_seq + 1))
    assert attempt.completed == ["a.png"]


async def test_a_claim_that_cannot_be_written_down_is_given_back_and_costs_no_agent(
    double, start_agent, state_folder, monkeypatch
):
    agent = (await start_agent()).agent
    create = type(state_folder.attempt("x")).create

    def create_without_room(folder) -> None:
        create(folder)
        _without_room(folder.root, "attempt.json")

    monkeypatch.setattr(type(state_folder.attempt("x")), "create", create_without_room)
    attempt = double.offer([])
    await double.until(lambda: attempt.finish)
    assert attempt.finish.outcome == Outcome.PREEMPTED  # which costs the job no try
    assert attempt.finish.failure.kind == FailureKind.DISK_FULL
    assert "No space left on device" in attempt.finish.failure.message
    monkeypatch.setattr(type(state_folder.attempt("x")), "create", create)
    assert "No space left" in agent._sampler.room.lack()
    agent._sampler.room._refused = None  # as after a minute
    after = double.offer([])
    await double.until(lambda: after.finish)
    assert after.finish.outcome == Outcome.SUCCEEDED
    await double.until(lambda: not list(state_folder.attempts.iterdir()))


async def test_offers_are_declined_and_slots_withdrawn_while_there_is_no_room(
    double, start_agent, agent_settings
):
    agent = (await start_agent(settings=replace(agent_settings, min_free_gb=2.0**40))).agent
    await double.until(lambda: double.heartbeats)
    (busy,) = double.registered[0].inventory.condition.busy
    assert (busy.index, busy.code) == (0, "disk_full")
    with capture_logs() as logs:
        declined = double.offer([])
        await double.until(lambda: any(line["event"] == "offer.declined" for line in logs))
    await double.until(lambda: agent._attempts.are_none)
    assert (declined.is_claimed, declined.finish) == (False, None)
    agent._sampler.room._free = lambda folder: 2**90
    await double.until(lambda: [each.condition for each in double.heartbeats if each.condition])
    assert not any(each.condition.busy for each in double.heartbeats if each.condition)
    after = double.offer([])
    await double.until(lambda: after.finish)
    assert after.finish.outcome == Outcome.SUCCEEDED


@pytest.mark.parametrize(("code", "kind"), [(1, FailureKind.DISK_FULL), (4, FailureKind.BAD_DATA)])
async def test_a_program_that_crashes_on_a_full_disk_is_told_apart_from_one_that_is_wrong(
    double, start_agent, tmp_path, monkeypatch, code, kind
):
    agent = (await start_agent()).agent
    attempt = double.offer([["wait", str(tmp_path / "go")], ["exit", code]])
    await double.until(lambda: "running" in attempt.states)
    monkeypatch.setattr(agent._sampler.room, "_free", lambda _folder: 4096)
    (tmp_path / "go").touch()
    await double.until(lambda: attempt.finish)
    assert attempt.finish.failure.kind == kind
    assert attempt.finish.failure.exit_code == code
    assert ("is full" in attempt.finish.failure.message) == (kind is FailureKind.DISK_FULL)


async def test_a_fault_of_the_agent_is_reported_after_all_lines_whatever_was_acknowledged(
    double, start_agent, monkeypatch
):
    async def broken(*_):
        raise RuntimeError("torn")

    monkeypatch.setattr(Uploads, "_store_event", broken)
    await start_agent()
    double.faults = {"events": [503, 503, 503]}  # stored, but the answers are lost
    attempt = double.offer([["logs", 40], ["sample", "a.png"], ["deaf"]])
    await double.until(lambda: attempt.finish)
    assert attempt.finish.failure.kind == FailureKind.CRASHED
    assert "RuntimeError: torn" in attempt.finish.failure.message
    assert attempt.finish.last_seq == attempt.lines[-1]["seq"] >= 42


async def test_a_credential_that_cannot_be_changed_costs_no_agent(
    double, start_agent, state_folder
):
    hands = await start_agent()
    await double.until(lambda: double.heartbeats)
    _without_room(state_folder.root, "credential.json")
    double.push("rotate", '{"ordered_at":"2026-01-01T00:00:00Z"}')
    await double.until(lambda: len(double.credentials) == 2)
    beats = len(double.heartbeats)
    await double.until(lambda: len(double.heartbeats) > beats + 1)
    assert Credential.load(state_folder).secret == "credential-0"
    both = Credential.load(state_folder).model_copy(update={"previous": "credential-1"})
    left = state_folder.root / "left.json"  # as a change leaves it that was not over
    left.write_text(both.model_dump_json())
    left.replace(state_folder.credential)
    beats = len(double.heartbeats)
    await double.until(lambda: len(double.heartbeats) > beats + 2)
    assert not hands.task.done()
    assert Credential.load(state_folder) == both
    (state_folder.root / ".credential.json.partial").unlink()
    await double.until(lambda: Credential.load(state_folder).previous is None)


def test_room_for_the_exit_note_is_taken_before_the_program_runs(tmp_path):
    script = "import os; print(os.stat('.exit.json.partial').st_size)"
    command = [sys.executable, "-m", "st_worker.supervise", str(tmp_path), "--"]
    made = subprocess.run(
        [*command, sys.executable, "-c", script], cwd=tmp_path, capture_output=True, check=True
    )
    assert int(made.stdout) >= 512
    assert [path.name for path in tmp_path.iterdir()] == ["exit.json"]


def test_the_exit_note_waits_for_room(tmp_path, monkeypatch):
    _without_room(tmp_path, "exit.json")
    waits = []

    def make_room(seconds: float) -> None:
        waits.append(seconds)
        (tmp_path / ".exit.json.partial").unlink()

    patient = SimpleNamespace(sleep=make_room, monotonic=time.monotonic)
    monkeypatch.setattr(supervise, "time", patient)  # other threads may sleep all the same
    monkeypatch.setattr(supervise, "_Forwarder", _NoSignals)
    supervise.run(tmp_path, ["/bin/sh", "-c", "exit 7"])
    assert len(waits) == 1
    assert '"code": 7' in (tmp_path / "exit.json").read_text()


class _NoSignals:
    """This process keeps its own signal handlers."""

    def attach(self, child: object) -> None:
        pass


async def test_a_dataset_that_is_too_large_for_this_disk_is_not_begun_and_costs_no_try(
    double, start_agent, pack_dataset
):
    await start_agent()
    dataset = pack_dataset("huge", {"0.txt": b"a cat"})
    archive = dataset.archives[0].model_copy(update={"size": 2**60})
    attempt = double.offer([], datasets=[dataset.model_copy(update={"archives": [archive]})])
    await double.until(lambda: attempt.finish)
    assert attempt.finish.outcome == Outcome.PREEMPTED
    assert attempt.finish.failure.kind == FailureKind.DISK_FULL
    assert "dataset huge: 2147483648.00 GiB are needed" in attempt.finish.failure.message
    assert double.ranges == []
    room = double.registered[0].inventory.condition.content_room_gb
    assert 0 < room < 2**30
