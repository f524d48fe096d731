"""Attempts from offer to finish: a real agent, real HTTP, real processes."""

import asyncio
import json
import os
import signal
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import psutil
import pytest

from st_shared.protocol.states import FailureKind, Outcome
from st_shared.protocol.worker import CheckpointDownload
from st_worker import execution
from st_worker import transfer as transfer_module
from st_worker.agent import Departure
from st_worker.transfer import Transfer

pytestmark = pytest.mark.anyio


async def _finished(double, attempt):
    await double.until(lambda: attempt.finish)
    return attempt.finish


def _gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_success_ships_every_line_and_file_and_leaves_no_folder(
    double, start_agent, state_folder
):
    await start_agent()
    script = [["logs", 1200], ["sample", "samples/a.png"], ["checkpoint", 2], ["output", "out/w"]]
    attempt = double.offer(script)
    finish = await _finished(double, attempt)
    assert finish.outcome == Outcome.SUCCEEDED
    assert [line["seq"] for line in attempt.lines] == list(range(1, finish.last_seq + 1))
    assert [text for text in attempt.messages if text.isdigit()] == [str(n) for n in range(1200)]
    assert attempt.states[-2:] == ["running", "uploading"]
    folder = "checkpoints/step-000002"
    assert attempt.completed == [
        "samples/a.png",
        f"{folder}/weights.bin",
        f"{folder}/manifest.json",
        "out/w",
    ]
    files = {path: known["file"] for path, known in attempt.artifacts.items()}
    assert [(file.kind, file.step) for file in files.values()] == [
        ("sample", 1),
        ("checkpoint", 2),
        ("checkpoint", 2),
        ("output", None),
    ]
    assert double.objects[f"{attempt.claim.attempt_id}/out/w"] == b"result"
    await double.until(lambda: not list(state_folder.attempts.iterdir()))


async def test_a_checkpoint_counts_once_the_lines_before_it_have_arrived(double, start_agent):
    """Else the curve would have a gap, were the job to go on elsewhere from it."""
    double.faults = {"events": [503] + [599] * 12}
    await start_agent()
    attempt = double.offer([["logs", 5], ["checkpoint", 2], ["until_stopped"]])
    manifest = "checkpoints/step-000002/manifest.json"
    await double.until(lambda: manifest in attempt.completed)
    assert attempt.lines[-1]["kind"] == "checkpoint"


async def test_lost_answers_lose_and_double_nothing(double, start_agent):
    double.faults = {
        "claim": [503],
        "events": [599, 503, 503, 599, 503],
        "upload": [599, 599],
        "finish": [503, 503],
    }
    await start_agent()
    attempt = double.offer([["logs", 700], ["sample", "a.png"]])
    finish = await _finished(double, attempt)
    assert finish.outcome == Outcome.SUCCEEDED
    assert [line["seq"] for line in attempt.lines] == list(range(1, finish.last_seq + 1))
    await double.until(lambda: not any(double.faults.values()))


async def test_broken_lines_are_replaced_so_that_no_number_is_missing(double, start_agent):
    await start_agent()
    attempt = double.offer(
        [["log", "before"], ["raw", "{broken\n"], ["skip_seq"], ["log", "after"], ["raw", '{"seq"']]
    )
    finish = await _finished(double, attempt)
    assert finish.outcome == Outcome.SUCCEEDED
    assert [line["seq"] for line in attempt.lines] == [1, 2, 3, 4]
    broken = attempt.lines[2]
    assert (broken["kind"], broken["level"]) == ("log", "error")
    assert "{broken" in broken["message"]
    assert attempt.messages[-1] == "after"


async def test_failure_carries_exit_code_last_error_and_output(double, start_agent):
    await start_agent()
    printed = [["print", "Traceback ..."], ["print", "st-train: no samples"]]
    attempt = double.offer([["error", "no samples"], *printed, ["exit", 4]])
    finish = await _finished(double, attempt)
    assert finish.outcome == Outcome.FAILED
    assert finish.failure.kind == FailureKind.BAD_DATA
    assert finish.failure.exit_code == 4
    assert finish.failure.message.splitlines() == [
        "no samples",
        "Traceback ...",
    ]
    assert attempt.completed == ["output.log"]
    assert attempt.lines[-1]["name"] == "log"


async def test_trainer_ended_by_a_stranger_is_killed(double, start_agent):
    await start_agent()
    attempt = double.offer([["die", signal.SIGKILL]])
    finish = await _finished(double, attempt)
    assert finish.failure.kind == FailureKind.KILLED
    assert "signal 9 (SIGKILL)" in finish.failure.message
    assert attempt.messages[-1] == "the trainer was ended by signal 9 (SIGKILL)"


async def test_trainer_that_cannot_start_fails_with_the_reason(double, start_agent, agent_settings):
    await start_agent(settings=replace(agent_settings, trainer_command=("/no/such/trainer",)))
    finish = await _finished(double, double.offer([]))
    assert finish.failure.kind == FailureKind.CRASHED
    assert finish.failure.message.startswith("cannot start /no/such/trainer: No such file")


@pytest.mark.parametrize("push", [True, False], ids=["by the stream", "by the heartbeat"])
async def test_cancel_ends_the_whole_group(double, start_agent, push):
    await start_agent()
    attempt = double.offer([["grandchild"], ["deaf"]])
    await double.until(lambda: "deaf" in attempt.messages)
    grandchild = int(
        next(text for text in attempt.messages if text.startswith("grandchild")).split()[1]
    )
    session = os.getsid(grandchild)
    assert not _gone(grandchild)
    double.order_stop(attempt, "cancel", push=push)
    finish = await _finished(double, attempt)
    assert finish.outcome == Outcome.CANCELLED
    assert _gone(grandchild)
    assert [pid for pid in psutil.pids() if _session(pid) == session and not _gone(pid)] == []


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


async def test_trainer_that_ends_leaves_no_stragglers(double, start_agent):
    await start_agent()
    attempt = double.offer([["grandchild"]])
    finish = await _finished(double, attempt)
    assert finish.outcome == Outcome.SUCCEEDED
    assert _gone(int(attempt.messages[-1].split()[1]))


async def test_cancel_before_the_trainer_starts(double, start_agent, pack_dataset):
    dataset = pack_dataset("digits", {"a.txt": b"a"})
    double.faults["download"] = [599] * 10_000
    await start_agent()
    attempt = double.offer([], datasets=[dataset])
    await double.until(lambda: double.fetched and attempt.states)
    double.order_stop(attempt, "cancel")
    finish = await _finished(double, attempt)
    assert finish.outcome == Outcome.CANCELLED
    assert attempt.states == ["preparing", "uploading"]


async def test_cancel_does_not_wait_for_uploads(double, start_agent):
    double.faults["upload"] = [599] * 10_000
    await start_agent()
    attempt = double.offer([["sample", "a.png"]])
    await double.until(lambda: "uploading" in attempt.states)
    double.order_stop(attempt, "cancel")
    assert (await _finished(double, attempt)).outcome == Outcome.CANCELLED


async def test_preempted_trainer_stops_at_a_checkpoint_that_is_stored(double, start_agent):
    await start_agent()
    attempt = double.offer([["log", "up"], ["until_stopped"], ["checkpoint", 7], ["exit", 3]])
    await double.until(lambda: "up" in attempt.messages)
    double.order_stop(attempt, "preempt")
    finish = await _finished(double, attempt)
    assert finish.outcome == Outcome.PREEMPTED
    assert attempt.completed[-1] == "checkpoints/step-000007/manifest.json"


async def test_stopping_by_itself_counts_as_killed(double, start_agent):
    await start_agent()
    finish = await _finished(double, double.offer([["exit", 3]]))
    assert (finish.outcome, finish.failure.kind) == (Outcome.FAILED, FailureKind.KILLED)


async def test_time_limit_stops_gracefully_and_fails(double, start_agent, bring_to_its_limit):
    first = await start_agent()
    attempt = double.offer([["log", "up"], ["until_stopped"], ["checkpoint", 1], ["exit", 3]])
    await double.until(lambda: "up" in attempt.messages)  # it would not hear of it before
    started = await first.let_go()
    bring_to_its_limit(attempt)
    await start_agent(token=None)
    finish = await _finished(double, attempt)
    assert (finish.outcome, finish.failure.kind) == (Outcome.FAILED, FailureKind.TIME_LIMIT)
    assert attempt.completed[-1] == "checkpoints/step-000001/manifest.json"
    started.wait()


async def test_stale_lease_ends_the_trainer_and_reports_nothing(double, start_agent, state_folder):
    await start_agent()
    attempt = double.offer([["grandchild"], ["deaf"]])
    await double.until(lambda: "deaf" in attempt.messages)
    lines = len(attempt.lines)
    attempt.is_stale = True
    await double.until(lambda: not list(state_folder.attempts.iterdir()))
    grandchild = next(text for text in attempt.messages if text.startswith("grandchild"))
    assert _gone(int(grandchild.split()[1]))
    assert (len(attempt.lines), attempt.finish) == (lines, None)


async def test_heartbeats_go_on_while_the_trainer_is_silent(double, start_agent, tmp_path):
    await start_agent()
    attempt = double.offer([["wait", str(tmp_path / "go")]])
    await double.until(lambda: "running" in attempt.states)
    count = len(double.heartbeats)
    await double.until(lambda: len(double.heartbeats) >= count + 5)
    assert double.heartbeats[-1].holding[0].attempt_id == attempt.claim.attempt_id
    (tmp_path / "go").touch()
    assert (await _finished(double, attempt)).outcome == Outcome.SUCCEEDED


async def test_dataset_is_fetched_once_and_named_to_the_trainer(
    double, start_agent, pack_dataset, state_folder
):
    dataset = pack_dataset("digits", {"a/1.txt": b"three", "2.txt": b"four"})
    await start_agent(slots=2)
    first = double.offer([["arguments"]], datasets=[dataset], slots=[0])
    second = double.offer([["arguments"]], datasets=[dataset], slots=[1])
    for attempt in (first, second):
        assert (await _finished(double, attempt)).outcome == Outcome.SUCCEEDED
        arguments = json.loads(attempt.messages[-1])
        folder = Path(arguments[arguments.index("--dataset") + 1].removeprefix("digits="))
        assert (folder / "a/1.txt").read_bytes() == b"three"
        assert arguments[-2:] == ["--resume", "none"]
        assert "--quiet" in arguments
    assert folder == state_folder.datasets / dataset.digest
    assert len(double.fetched) == 1
    users = state_folder.cache_root / "users" / dataset.digest
    await double.until(lambda: not list(users.iterdir()))


async def test_damaged_dataset_is_tried_again_then_fails(
    double, start_agent, pack_dataset, state_folder
):
    dataset = pack_dataset("digits", {"a.txt": b"a"})
    key = dataset.archives[0].sha256
    double.objects[key] = double.objects[key][:-1] + b"x"
    await start_agent()
    attempt = double.offer([], datasets=[dataset])
    finish = await _finished(double, attempt)
    assert finish.failure.kind == FailureKind.TRANSFER
    assert "in 3 tries: the bytes have SHA-256" in finish.failure.message
    assert len(double.fetched) == 3
    assert "running" not in attempt.states
    assert list(state_folder.datasets.iterdir()) == []
    assert list((state_folder.cache_root / "staging").iterdir()) == []


async def test_urls_that_ran_out_are_renewed_and_what_came_is_not_fetched_again(
    double, start_agent, pack_dataset, state_folder
):
    first = pack_dataset("digits", {"1.txt": b"three"})
    second = pack_dataset("letters", {"2.txt": b"c"})
    manifest, weights = double.store(b"{}", "manifest.json"), double.store(b"w", "weights.bin")
    resume = CheckpointDownload(step=40, files=[manifest, weights])
    await start_agent()
    double.fails_at[second.archives[0].sha256] = [403] * 3
    attempt = double.offer([["arguments"]], datasets=[first, second], resume=resume)
    finish = await _finished(double, attempt)
    assert finish.outcome == Outcome.SUCCEEDED
    assert double.came["claim"] >= 2
    assert double.fetched.count(first.archives[0].sha256) == 1
    assert double.fetched.count(second.archives[0].sha256) == 4
    assert json.loads(attempt.messages[-1])[-1].endswith("resume/step-000040")


async def test_a_file_that_is_refused_with_fresh_urls_too_fails_the_attempt(
    double, start_agent, pack_dataset
):
    dataset = pack_dataset("digits", {"1.txt": b"three"})
    await start_agent()
    double.fails_at[dataset.archives[0].sha256] = [404] * 100
    finish = await _finished(double, double.offer([], datasets=[dataset]))
    assert (finish.failure.kind, double.came["claim"] >= 2) == (FailureKind.TRANSFER, True)
    assert "could not be fetched in 3 tries" in finish.failure.message


async def test_a_checkpoint_that_is_gone_from_the_store_is_passed_over(double, start_agent):
    gone, whole = (
        CheckpointDownload(step=step, files=[double.store(b"w%d" % step, "manifest.json")])
        for step in (60, 50)
    )
    double.fails_at[gone.files[0].sha256] = [404] * 100
    await start_agent()
    attempt = double.offer([["arguments"]], resume=gone, older=[whole])
    assert (await _finished(double, attempt)).outcome == Outcome.SUCCEEDED
    assert json.loads(attempt.messages[-1])[-1].endswith("resume/step-000050")


async def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(double, start_agent):
    def checkpoint(step):
        files = [double.store(b"w%d" % step, "weights.bin"), double.store(b"{}", "manifest.json")]
        return CheckpointDownload(step=step, files=files)

    newest, torn, whole = checkpoint(60), checkpoint(50), checkpoint(40)
    double.objects[newest.files[0].sha256] = b"x60"
    double.objects[torn.files[0].sha256] = b"w5"
    await start_agent()
    attempt = double.offer([["arguments"]], resume=newest, older=[torn, whole])
    finish = await _finished(double, attempt)
    assert finish.outcome == Outcome.SUCCEEDED
    first, second = [line for line in attempt.lines if line.get("level") == "warning"]
    assert first["message"].startswith("the checkpoint of step 60 cannot be used: weights.bin")
    assert first["message"].endswith("going on from the one of step 50")
    assert second["message"].endswith("going on from the one of step 40")
    assert json.loads(attempt.messages[-1])[-1].endswith("resume/step-000040")


async def test_an_attempt_fails_when_no_checkpoint_is_whole(double, start_agent):
    file = double.store(b"w", "weights.bin")
    double.objects[file.sha256] = b"x"
    await start_agent()
    damaged = CheckpointDownload(step=40, files=[file])
    finish = await _finished(double, double.offer([], resume=damaged))
    assert finish.failure.kind == FailureKind.TRANSFER


async def test_resume_hands_the_verified_checkpoint_over(double, start_agent):
    manifest, weights = double.store(b"{}", "manifest.json"), double.store(b"w", "weights.bin")
    await start_agent()
    resume = CheckpointDownload(step=40, files=[manifest, weights])
    attempt = double.offer([["arguments"], ["until_stopped"]], resume=resume)
    await double.until(lambda: len(attempt.messages) == 3)
    folder = Path(json.loads(attempt.messages[-1])[-1])
    assert folder.parts[-2:] == ("resume", "step-000040")
    assert (folder / "manifest.json").read_bytes() == b"{}"
    assert (folder / "weights.bin").read_bytes() == b"w"
    assert double.fetched == [weights.sha256, manifest.sha256]


async def test_models_are_kept_while_a_job_runs_that_may_have_read_them(
    double, start_agent, tmp_path
):
    hands = await start_agent()
    attempt = double.offer([["wait", str(tmp_path / "go")]])
    await double.until(lambda: "running" in attempt.states)
    held = hands.agent._models._held
    (begun,) = held.values()
    assert list(held) == [attempt.claim.attempt_id]
    assert (
        begun == hands.agent._attempts._runs[attempt.claim.attempt_id].record.claimed_at.timestamp()
    )
    (tmp_path / "go").touch()
    await double.until(lambda: attempt.finish and not held)


async def test_trainer_gets_its_share_and_no_secret(double, start_agent, monkeypatch):
    monkeypatch.setenv("ST_JOIN_TOKEN", "secret")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    await start_agent(slots=2)
    names = ["ST_JOIN_TOKEN", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"]
    attempt = double.offer([["environment", *names]], slots=[1])
    await _finished(double, attempt)
    threads = str(max(1, len(os.sched_getaffinity(0)) // 2))
    assert json.loads(attempt.messages[-1]) == dict(zip(names, [None, "", threads], strict=True))


async def test_file_that_vanished_is_skipped(double, start_agent):
    await start_agent()
    attempt = double.offer([["missing", "gone.png"], ["sample", "here.png"]])
    assert (await _finished(double, attempt)).outcome == Outcome.SUCCEEDED
    assert attempt.completed == ["here.png"]


async def test_a_result_that_vanished_is_told(double, start_agent, state_folder):
    await start_agent()
    attempt = double.offer([["missing output", "w.bin"], ["output", "card.txt"]])
    finish = await _finished(double, attempt)
    assert (finish.outcome, finish.failure) == (Outcome.SUCCEEDED, None)
    assert attempt.completed == ["card.txt"]
    assert finish.unstored[0].startswith("w.bin: [Errno 2] No such file")


async def test_a_result_that_became_shorter_while_it_was_sent_is_sent_as_it_is(
    double, start_agent, monkeypatch
):
    send, sent = Transfer.send, []

    async def cut_once(transfer, source, size, url, headers):
        sent.append(size)
        if len(sent) == 1:
            os.truncate(source.name, 2)
            async for _ in transfer_module._pieces(source, size):
                pass
        await send(transfer, source, size, url, headers)

    monkeypatch.setattr(Transfer, "send", cut_once)
    await start_agent()
    attempt = double.offer([["output", "w.bin"]])
    finish = await _finished(double, attempt)
    assert (finish.outcome, finish.unstored) == (Outcome.SUCCEEDED, [])
    assert (attempt.completed, sent) == (["w.bin"], [6, 2])


async def test_a_file_that_this_host_cannot_read_costs_that_file_alone(
    double, start_agent, state_folder
):
    await start_agent()
    attempt = double.offer([["missing", "job.json/x"], ["sample", "here.png"]])
    finish = await _finished(double, attempt)
    assert (finish.outcome, finish.failure) == (Outcome.SUCCEEDED, None)
    assert attempt.completed == ["here.png"]
    assert "Not a directory" in finish.unstored[0]
    await double.until(lambda: not state_folder.known_attempts())
    assert state_folder.attempt(attempt.claim.attempt_id).kept.exists()


async def test_a_store_that_does_not_answer_holds_up_no_retry_for_a_day(
    double, start_agent, agent_settings
):
    double.faults["upload"] = [599] * 100_000
    await start_agent(settings=replace(agent_settings, failed_upload_patience_seconds=0.2))
    finish = await _finished(double, double.offer([["output", "w.bin"], ["exit", 4]]))
    assert finish.failure.kind == FailureKind.BAD_DATA
    assert finish.unstored[0].startswith("w.bin: ")


@pytest.mark.parametrize(("refusals", "last"), [(2, "a.png"), (3, "out/w")])
async def test_a_refused_upload_gets_fresh_tickets_before_others_go_first(
    double, start_agent, refusals, last
):
    double.faults["upload"] = [403] * refusals
    await start_agent()
    attempt = double.offer([["output", "out/w"], ["sample", "a.png"]])
    finish = await _finished(double, attempt)
    assert (finish.outcome, finish.unstored) == (Outcome.SUCCEEDED, [])
    assert (len(attempt.completed), attempt.completed[-1]) == (2, last)


async def test_line_numbers_go_on_after_those_that_the_controller_holds(double, start_agent):
    await start_agent()
    attempt = double.offer([["log", "hello"]], acked_seq=10)
    finish = await _finished(double, attempt)
    assert [line["seq"] for line in attempt.lines] == [11, 12]
    assert finish.last_seq == 12


async def test_two_attempts_of_one_slot_never_train_at_once(double, start_agent, tmp_path):
    await start_agent()
    first = double.offer([["log", "first"], ["wait", str(tmp_path / "go")]])
    await double.until(lambda: "first" in first.messages)
    second = double.offer([["log", "second"]])
    await double.until(lambda: "preparing" in second.states)
    count = len(double.heartbeats)
    await double.until(lambda: len(double.heartbeats) > count + 2)
    assert "running" not in second.states
    (tmp_path / "go").touch()
    assert (await _finished(double, second)).outcome == Outcome.SUCCEEDED
    assert first.finish


async def test_fault_of_the_agent_fails_the_attempt_and_not_the_agent(
    double, start_agent, state_folder
):
    await start_agent()
    attempt = double.offer([])
    del attempt.claim.spec["time_limit"]
    finish = await _finished(double, attempt)
    assert (finish.outcome, finish.failure.kind) == (Outcome.FAILED, FailureKind.CRASHED)
    assert finish.failure.message == "the worker failed: KeyError: 'time_limit'"
    await double.until(lambda: not list(state_folder.attempts.iterdir()))
    healthy = double.offer([["log", "fine"]])
    assert (await _finished(double, healthy)).outcome == Outcome.SUCCEEDED


async def test_leaving_stops_at_a_checkpoint_and_reports_it(double, start_agent, state_folder):
    hands = await start_agent()
    attempt = double.offer([["log", "up"], ["until_stopped"], ["checkpoint", 3], ["exit", 3]])
    await double.until(lambda: "up" in attempt.messages)
    hands.agent.leave(Departure.SIGNAL)
    assert await hands.left() is Departure.SIGNAL
    assert attempt.finish.outcome == Outcome.PREEMPTED
    assert attempt.completed[-1] == "checkpoints/step-000003/manifest.json"
    assert list(state_folder.attempts.iterdir()) == []


async def test_what_could_not_be_reported_is_reported_by_the_next_agent(double, start_agent):
    hands = await start_agent()
    attempt = double.offer([["log", "up"], ["until_stopped"], ["exit", 3]])
    await double.until(lambda: "up" in attempt.messages)
    double.faults["events"] = [599] * 10_000
    hands.agent.leave(Departure.SIGNAL)
    await double.until(lambda: hands.agent._attempts.leases == [] or len(double.heartbeats) > 5)
    hands.agent.leave(Departure.SIGNAL)  # a second time: do not wait
    assert await hands.left() is Departure.UNREPORTED
    assert attempt.finish is None
    double.faults["events"] = []
    await start_agent(token=None)
    assert (await _finished(double, attempt)).outcome == Outcome.PREEMPTED
    assert double.registered[-1].holding[0].attempt_id == attempt.claim.attempt_id


async def test_a_finished_training_stays_finished_while_the_store_refuses(double, start_agent):
    double.faults["upload"] = [403] * 7
    await start_agent()
    attempt = double.offer([["output", "w.bin"]])
    finish = await _finished(double, attempt)
    assert (finish.outcome, finish.failure, finish.unstored) == (Outcome.SUCCEEDED, None, [])
    assert (attempt.completed, double.faults["upload"]) == (["w.bin"], [])


@pytest.mark.parametrize("status", [403, 599])
async def test_what_is_never_stored_is_told_and_kept(
    double, start_agent, agent_settings, state_folder, status
):
    double.faults["upload"] = [status] * 100_000
    await start_agent(settings=replace(agent_settings, upload_patience_seconds=0.2))
    attempt = double.offer([["output", "w.bin"]])
    finish = await _finished(double, attempt)
    assert (finish.outcome, finish.failure) == (Outcome.SUCCEEDED, None)
    lost, where = finish.unstored
    folder = state_folder.attempts / attempt.claim.attempt_id / "run"
    assert lost.startswith("w.bin: ")
    assert str(folder) in where
    assert (folder / "w.bin").read_text() == "result"
    await double.until(lambda: not state_folder.known_attempts())
    assert state_folder.past_attempts() == []  # so nothing will remove it


async def test_slots_are_free_while_an_attempt_uploads(double, start_agent):
    double.faults["upload"] = [599] * 100_000
    await start_agent()
    first = double.offer([["output", "w.bin"]], slots=[0])
    await double.until(lambda: "uploading" in first.states)
    second = double.offer([["log", "on the same slot"]], slots=[0])
    assert (await _finished(double, second)).outcome == Outcome.SUCCEEDED
    assert first.finish is None
    double.faults["upload"] = []
    assert (await _finished(double, first)).outcome == Outcome.SUCCEEDED
    assert first.completed == ["w.bin"]


async def test_an_agent_that_restarts_goes_on_with_what_is_owed(double, start_agent, state_folder):
    double.faults["upload"] = [403] * 100_000
    agent = await start_agent()
    attempt = double.offer([["output", "w.bin"]])
    folder = state_folder.attempt(attempt.claim.attempt_id)
    await double.until(
        lambda: (
            "uploading" in attempt.states
            and folder.uploaded.exists()
            and b"w.bin" in folder.uploaded.read_bytes()
        )
    )
    agent.agent.leave(Departure.FAULT)
    await agent.left()
    double.faults["upload"] = []
    await start_agent()
    finish = await _finished(double, attempt)
    assert (finish.outcome, finish.unstored) == (Outcome.SUCCEEDED, [])
    assert attempt.completed == ["w.bin"]


async def test_slots_are_used_until_the_program_ends_however_late_that_is_told(
    double, start_agent, tmp_path
):
    await start_agent()
    attempt = double.offer([["wait", str(tmp_path / "go")]])
    await double.until(lambda: "running" in attempt.states and _in_use(double))
    first = _in_use(double)[0]
    double.faults = {"events": [503] * 10, "finish": [503] * 3}
    (tmp_path / "go").touch()
    used = (await _finished(double, attempt)).used_seconds
    assert not first.ended
    assert 0 < first.used_seconds < used == attempt.used
    assert {lease.used_seconds for lease in _held(double) if lease.ended} <= {used}


async def test_heartbeats_prove_use_as_far_as_the_program_was_seen_to_run(
    double, start_agent, monkeypatch
):
    """An agent that was frozen tells of what it saw, not of the time since."""
    look, looks, goes_on = execution._exit, 0, asyncio.Event()
    goes_on.set()

    async def look_until_frozen(process):
        nonlocal looks
        looks += 1
        await goes_on.wait()
        return await look(process)

    monkeypatch.setattr(execution, "_exit", look_until_frozen)
    await start_agent()
    attempt = double.offer([["until_stopped"]])
    await double.until(lambda: "running" in attempt.states and looks > 2)
    goes_on.clear()
    seen = looks
    await double.until(lambda: looks > seen)  # the next look is the one that does not end
    before = len(_held(double)) + 1  # one may be under way
    await double.until(lambda: len(_held(double)) > before + 2)
    (known,) = {lease.used_seconds for lease in _held(double)[before:]}
    goes_on.set()
    await double.until(lambda: _held(double)[-1].used_seconds > known)


def _held(double):
    return [lease for beat in double.heartbeats for lease in beat.holding]


def _in_use(double):
    """Without those of the moment when a program was started and not looked at yet."""
    return [lease for lease in _held(double) if lease.used_seconds]


async def test_of_a_program_that_went_with_its_host_counts_what_it_wrote_last(
    double, start_agent, state_folder
):
    hands = await start_agent()
    attempt = double.offer([["log", "up"], ["until_stopped"]], time_limit=1e9)
    await double.until(lambda: "up" in attempt.messages)
    (run,) = hands.agent._attempts._runs.values()
    process = run._work._process
    hands.agent.leave(Departure.FAULT)
    await hands.left()
    for pid in sorted(process.members(), key=lambda pid: pid != process.pid):
        os.kill(pid, signal.SIGKILL)  # the supervisor first: nobody notes the end
    process._child.wait()
    folder = state_folder.attempt(attempt.claim.attempt_id)
    record = json.loads(folder.record.read_text())
    wrote = datetime.fromisoformat(attempt.lines[-1]["at"])
    record["claimed_at"] = (wrote - timedelta(seconds=10)).isoformat()
    record["began"]["seconds"] -= 3600  # the agent comes back after an hour
    folder.record.write_text(json.dumps(record))
    await start_agent(token=None)
    finish = await _finished(double, attempt)
    assert finish.failure.kind == FailureKind.KILLED
    assert finish.used_seconds == 10.0
