"""Jobs that train nothing: a real agent, real HTTP, real processes."""

import asyncio
import os
from dataclasses import replace

import psutil
import pytest

from st_shared.clock import utc_now
from st_shared.protocol.content import model_kept_as
from st_shared.protocol.states import FailureKind, Outcome
from st_worker.agent import Departure
from st_worker.notes import Notes
from st_worker.prepare import prepare_script
from st_worker.record import AttemptRecord
from st_worker.settings import SCRIPT_COMMAND
from st_worker.status import read_status
from st_worker.trainer import TrainerProcess

pytestmark = pytest.mark.anyio


async def _finished(double, attempt):
    await double.until(lambda: attempt.finish)
    return attempt.finish


def _command(double, script, **options):
    return double.offer(command={"run": script}, **options)


def _is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def test_a_script_ships_its_lines_and_its_outputs(double, start_agent, state_folder):
    await start_agent()
    script = "seq 700; echo result > $ST_RUN_DIR/outputs/answer.txt"
    attempt = _command(double, script)
    finish = await _finished(double, attempt)
    assert finish.outcome == Outcome.SUCCEEDED
    assert attempt.messages[0].startswith("attempt 1 on ")
    assert attempt.messages[1:] == [str(number) for number in range(1, 701)]
    assert [line["seq"] for line in attempt.lines] == list(range(1, finish.last_seq + 1))
    assert attempt.states[-2:] == ["running", "uploading"]
    assert attempt.completed == ["outputs/answer.txt"]
    assert attempt.artifacts["outputs/answer.txt"]["file"].kind == "output"
    key = f"{attempt.claim.attempt_id}/outputs/answer.txt"
    assert double.objects[key] == b"result\n"
    await double.until(lambda: not list(state_folder.attempts.iterdir()))


async def test_a_script_knows_its_attempt_and_none_of_our_secrets(
    double, start_agent, monkeypatch, state_folder
):
    monkeypatch.setenv("ST_JOIN_TOKEN", "hidden")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    await start_agent()
    attempt = _command(double, "env; pwd")
    await _finished(double, attempt)
    *shown, folder = attempt.messages[1:]
    known = dict(line.split("=", 1) for line in shown if line.startswith("ST_"))
    work = state_folder.attempt(attempt.claim.attempt_id).work
    assert known == {
        "ST_JOB_ID": attempt.claim.job_id,
        "ST_ATTEMPT_ID": attempt.claim.attempt_id,
        "ST_ATTEMPT": "1",
        "ST_RUN_DIR": str(work),
        "ST_ATTEMPT_FOLDER": str(state_folder.attempt(attempt.claim.attempt_id).run),
    }
    assert folder == str(work)
    assert not any("hidden" in line for line in shown)


async def test_a_failed_script_tells_its_code_and_its_last_lines(double, start_agent):
    await start_agent()
    script = "seq 100; echo x > outputs/report; echo 'no such table' >&2; exit 4"
    attempt = _command(double, script)
    finish = await _finished(double, attempt)
    assert finish.outcome == Outcome.FAILED
    assert (finish.failure.kind, finish.failure.exit_code) == (FailureKind.CRASHED, 4)
    first, *said = finish.failure.message.splitlines()
    assert first == "the script ended with exit code 4"
    assert said == [*(str(number) for number in range(82, 101)), "no such table"]
    assert attempt.messages[-1] == "the script ended with exit code 4"
    assert attempt.completed == ["outputs/report"]


@pytest.mark.parametrize(
    ("reason", "outcome"), [("cancel", Outcome.CANCELLED), ("preempt", Outcome.PREEMPTED)]
)
async def test_an_order_ends_a_script_and_all_that_it_started(double, start_agent, reason, outcome):
    await start_agent()
    attempt = _command(double, "sleep 1000 & echo $!; sleep 1000")
    await double.until(lambda: len(attempt.messages) > 1)
    double.order_stop(attempt, reason)
    finish = await _finished(double, attempt)
    assert finish.outcome == outcome
    assert _is_gone(int(attempt.messages[1]))


async def test_a_deaf_script_is_killed_after_the_grace(double, start_agent):
    await start_agent()
    script = "trap '' TERM; setsid sleep 1000 & echo $!; echo $$; while :; do sleep 1000; done"
    attempt = _command(double, script)
    await double.until(lambda: len(attempt.messages) > 2)
    double.order_stop(attempt, "cancel")
    finish = await _finished(double, attempt)
    assert finish.outcome == Outcome.CANCELLED
    assert all(_is_gone(int(pid)) for pid in attempt.messages[1:3])


async def test_a_job_says_how_long_it_may_take_to_stop(double, start_agent, agent_settings):
    await start_agent(settings=replace(agent_settings, preempt_grace_seconds=3600))
    attempt = double.offer(
        command={"run": "trap '' TERM; echo $$; while :; do sleep 1000; done"}, grace=0.2
    )
    await double.until(lambda: len(attempt.messages) > 1)
    double.order_stop(attempt, "preempt")
    assert (await _finished(double, attempt)).outcome == Outcome.PREEMPTED
    assert _is_gone(int(attempt.messages[1]))


async def test_a_script_whose_start_was_not_recorded_is_not_run_twice(
    double, start_agent, state_folder, tmp_path
):
    attempt = _command(double, f"echo ran >> {tmp_path}/ran; exit 3")
    claim = attempt.claim
    attempt.is_claimed = True
    folder = state_folder.attempt(claim.attempt_id)
    folder.create()
    AttemptRecord(claim=claim, claimed_at=utc_now()).save(folder)
    Notes(folder.journal).log("attempt 1")
    prepare_script(folder, claim.spec["command"]["run"])
    command = [*SCRIPT_COMMAND, str(folder.run)]
    process = TrainerProcess.start(folder.run, command, os.environ, folder.output)
    await double.until(process.exit)
    await start_agent()
    finish = await _finished(double, attempt)
    assert finish.failure.exit_code == 3
    assert (tmp_path / "ran").read_text() == "ran\n"


async def test_a_script_ends_at_its_time_limit(double, start_agent, bring_to_its_limit):
    first = await start_agent()
    attempt = _command(double, "echo up; sleep 1000")
    await double.until(lambda: "up" in attempt.messages)
    started = await first.let_go()
    bring_to_its_limit(attempt)
    await start_agent(token=None)
    finish = await _finished(double, attempt)
    started.wait()
    assert finish.outcome == Outcome.FAILED
    assert finish.failure.kind == FailureKind.TIME_LIMIT
    assert finish.failure.message == "the job's time limit was reached"


async def test_an_empty_noop_is_over_after_claim_and_finish(double, start_agent, state_folder):
    await start_agent()
    attempt = double.offer(noop={"seconds": 0})
    finish = await _finished(double, attempt)
    assert (finish.outcome, finish.last_seq) == (Outcome.SUCCEEDED, 0)
    assert (attempt.states, attempt.lines) == ([], [])
    await double.until(lambda: not list(state_folder.attempts.iterdir()))


async def test_a_noop_takes_its_seconds_and_starts_no_process(double, start_agent, state_folder):
    await start_agent(slots=2)
    attempt = double.offer(noop={"seconds": 1000}, slots=[0])
    await double.until(lambda: attempt.states == ["running"])
    (shown,) = read_status(state_folder)["attempts"]
    assert (shown["phase"], shown["pid"]) == ("running", None)
    finish = await _finished(double, double.offer(noop={"seconds": 0.3}, slots=[1]))
    assert (finish.outcome, finish.used_seconds >= 0.3) == (Outcome.SUCCEEDED, True)


async def test_noops_on_one_slot_follow_each_other(double, start_agent):
    await start_agent(slots=2)
    first = double.offer(noop={"seconds": 1000}, slots=[0])
    await double.until(lambda: first.states)  # offers of the same moment have no order
    second = double.offer(noop={"seconds": 0}, slots=[0])
    third = double.offer(noop={"seconds": 0}, slots=[1])
    await _finished(double, third)
    assert second.finish is None
    double.order_stop(first, "cancel")
    assert (await _finished(double, first)).outcome == Outcome.CANCELLED
    assert (await _finished(double, second)).outcome == Outcome.SUCCEEDED


@pytest.mark.parametrize(
    ("reason", "outcome"), [("cancel", Outcome.CANCELLED), ("preempt", Outcome.PREEMPTED)]
)
async def test_an_order_ends_a_noop(double, start_agent, reason, outcome):
    await start_agent()
    attempt = double.offer(noop={"seconds": 1000})
    await double.until(lambda: attempt.states)
    double.order_stop(attempt, reason)
    assert (await _finished(double, attempt)).outcome == outcome


async def test_a_noop_ends_at_its_time_limit(double, start_agent):
    await start_agent()
    finish = await _finished(double, double.offer(noop={"seconds": 1000}, time_limit=0.2))
    assert finish.failure.kind == FailureKind.TIME_LIMIT


async def test_a_noop_that_is_taken_over_counts_from_its_claim(double, start_agent, state_folder):
    first = await start_agent()
    attempt = double.offer(noop={"seconds": 1000})
    await double.until(lambda: attempt.states)
    first.agent.leave(Departure.FAULT)
    await first.left()
    folder = state_folder.attempt(attempt.claim.attempt_id)
    record = AttemptRecord.load(folder)
    began = record.began.model_copy(update={"seconds": record.began.seconds - 1001})
    record.model_copy(update={"began": began}).save(folder)
    await start_agent()
    assert (await _finished(double, attempt)).outcome == Outcome.SUCCEEDED


async def test_the_controller_is_told_once_of_each_dataset_in_the_cache(
    double, start_agent, state_folder, pack_dataset
):
    held = state_folder.datasets / ("a" * 64)
    held.mkdir()
    (state_folder.datasets / "lost+found").mkdir()
    await start_agent()
    await double.until(lambda: len(double.heartbeats) > 1)
    assert double.registered[-1].inventory.cached == ["a" * 64]
    assert all(beat.cached is None for beat in double.heartbeats)
    dataset = pack_dataset("digits", {"a.png": b"a"})
    await _finished(double, double.offer([], datasets=[dataset]))
    told = sorted(["a" * 64, dataset.digest])
    await double.until(lambda: [b.cached for b in double.heartbeats if b.cached] == [told])
    count = len(double.heartbeats)
    await double.until(lambda: len(double.heartbeats) > count + 3)
    assert [beat.cached for beat in double.heartbeats if beat.cached is not None] == [told]
    held.rmdir()
    await double.until(lambda: double.heartbeats[-1].cached == [dataset.digest])


async def test_short_jobs_that_come_together_are_claimed_and_finished_together(
    double, start_agent, agent_settings
):
    attempts = [double.offer(noop={"seconds": 0}, slots=[slot]) for slot in range(4)]
    attempts[2].is_stale = True
    double.gates = {"claim": asyncio.Event(), "finish": asyncio.Event()}
    patient = replace(agent_settings, joint_timeout_seconds=120)
    controller = (await start_agent(slots=4, settings=patient)).agent._controller
    await double.until(lambda: double.came["claim"] + len(controller._claims._waiting) == 4)
    double.gates.pop("claim").set()
    await double.until(lambda: double.came["finish"] + len(controller._finishes._waiting) == 3)
    double.gates.pop("finish").set()
    await double.until(lambda: all(one.finish for one in attempts if not one.is_stale))
    assert not attempts[2].is_claimed
    assert {one.finish.outcome for one in attempts if one.finish} == {Outcome.SUCCEEDED}
    alone = 7 - sum(double.batches)  # of four claims and three ends
    assert alone <= 2
    assert alone + len(double.batches) <= 4  # the first of each kind, and one for the others


async def test_a_call_for_many_that_fails_is_followed_by_calls_for_each(double, start_agent):
    double.faults["claim"] = [503, 599]
    attempts = [double.offer(noop={"seconds": 0}, slots=[slot]) for slot in range(3)]
    double.faults["finish"] = [503]
    await start_agent(slots=3)
    await double.until(lambda: all(one.finish for one in attempts))


async def test_a_script_has_its_secrets_and_nothing_that_it_says_tells_them(
    double, start_agent, state_folder
):
    await start_agent()
    double.secrets = {"hub": "hf_never_seen", "pem": "line one of it\nline two of it"}
    script = 'echo a=$HF_TOKEN; echo "$KEY"; env | grep hf_; echo $HF_TOKEN >&2; exit 3'
    named = {"HF_TOKEN": "hub", "KEY": "pem"}
    attempt = _command(double, script, secrets=named)
    finish = await _finished(double, attempt)
    assert attempt.messages[1:6] == [
        "a=[secret HF_TOKEN]",
        "[secret KEY]",
        "[secret KEY]",
        "HF_TOKEN=[secret HF_TOKEN]",
        "[secret HF_TOKEN]",
    ]
    assert finish.failure.exit_code == 3
    said = finish.model_dump_json() + repr(attempt.lines)
    assert "hf_never_seen" not in said
    assert "line two" not in said
    assert "hf_never_seen" not in attempt.claim.model_dump_json()


async def test_a_secret_that_is_gone_ends_the_job_with_that_sentence(double, start_agent):
    await start_agent()
    attempt = _command(double, "true", secrets={"HF_TOKEN": "gone"})
    finish = await _finished(double, attempt)
    assert (finish.outcome, finish.failure.kind) == (Outcome.FAILED, FailureKind.BAD_SPEC)


async def test_secrets_are_asked_for_again_until_they_come(double, start_agent):
    double.secrets = {"hub": "hf_never_seen"}
    double.faults["secrets"] = [503]
    await start_agent()
    attempt = _command(double, "test $HF_TOKEN = hf_never_seen", secrets={"HF_TOKEN": "hub"})
    assert (await _finished(double, attempt)).outcome == Outcome.SUCCEEDED


async def test_models_are_fetched_into_a_folder_of_their_organisation(
    double, start_agent, monkeypatch, state_folder
):
    monkeypatch.setenv("HF_HOME", "/home/somebody/.cache/huggingface")
    monkeypatch.setenv("HF_HUB_CACHE", "/models")
    await start_agent()
    fetch = (
        'echo "$HF_HOME ${HF_HUB_CACHE-none}"; ls -1 $HF_HOME;'
        " mkdir -p $HF_HOME/hub/models--acme--gated/snapshots/a1;"
        " touch $HF_HOME/hub/models--acme--gated/snapshots/a1/model_index.json"
    )
    ours, theirs = "acme", "globex"
    seen = []
    for org in (ours, theirs, ours):
        attempt = _command(double, fetch, org=org)
        await _finished(double, attempt)
        seen.append(attempt.messages[1:])
    models = state_folder.cache_root / "models"
    assert seen == [
        [f"{models / ours} none"],
        [f"{models / theirs} none"],  # it finds nothing of ours
        [f"{models / ours} none", "hub"],
    ]
    known = {model_kept_as(org, "acme/gated") for org in (ours, theirs)}
    await double.until(lambda: any(set(beat.cached or ()) == known for beat in double.heartbeats))
