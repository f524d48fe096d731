import pytest

from st_shared.protocol.states import FailureKind, Outcome
from st_worker.outcome import (
    MESSAGE_CHARACTERS,
    ending_by_order,
    ending_of,
    ending_of_script,
    failed,
)
from st_worker.trainer import TrainerExit

VANISHED = TrainerExit()


@pytest.mark.parametrize(
    ("ended", "stop", "outcome", "kind"),
    [
        (TrainerExit(code=0), None, Outcome.SUCCEEDED, None),
        (TrainerExit(code=0), "preempt", Outcome.SUCCEEDED, None),
        (TrainerExit(code=0), "time_limit", Outcome.SUCCEEDED, None),
        (TrainerExit(code=0), "cancel", Outcome.CANCELLED, None),
        (TrainerExit(code=3), "cancel", Outcome.CANCELLED, None),
        (VANISHED, "cancel", Outcome.CANCELLED, None),
        (TrainerExit(code=3), "preempt", Outcome.PREEMPTED, None),
        (TrainerExit(code=3), "shutdown", Outcome.PREEMPTED, None),
        (TrainerExit(signal=15), "preempt", Outcome.PREEMPTED, None),
        (VANISHED, "shutdown", Outcome.PREEMPTED, None),
        (TrainerExit(code=1), "preempt", Outcome.FAILED, FailureKind.CRASHED),
        (TrainerExit(code=3), "time_limit", Outcome.FAILED, FailureKind.TIME_LIMIT),
        (TrainerExit(signal=9), "time_limit", Outcome.FAILED, FailureKind.TIME_LIMIT),
        (TrainerExit(code=3), None, Outcome.FAILED, FailureKind.KILLED),
        (TrainerExit(signal=9), None, Outcome.FAILED, FailureKind.KILLED),
        (VANISHED, None, Outcome.FAILED, FailureKind.KILLED),
        (TrainerExit(error="cannot start"), None, Outcome.FAILED, FailureKind.CRASHED),
        (TrainerExit(error="cannot start"), "preempt", Outcome.FAILED, FailureKind.CRASHED),
        (TrainerExit(code=1), None, Outcome.FAILED, FailureKind.CRASHED),
        (TrainerExit(code=2), None, Outcome.FAILED, FailureKind.BAD_SPEC),
        (TrainerExit(code=4), None, Outcome.FAILED, FailureKind.BAD_DATA),
        (TrainerExit(code=5), None, Outcome.FAILED, FailureKind.NOT_FINITE),
        (TrainerExit(code=6), None, Outcome.FAILED, FailureKind.OUT_OF_MEMORY),
        (TrainerExit(code=7), None, Outcome.FAILED, FailureKind.DISK_FULL),
        (TrainerExit(code=99), None, Outcome.FAILED, FailureKind.CRASHED),
    ],
)
def test_exit_and_order_give_the_outcome(ended, stop, outcome, kind):
    ending = ending_of(ended, stop, "said")
    assert ending.outcome == outcome
    assert (ending.failure.kind if ending.failure else None) == kind


@pytest.mark.parametrize(
    ("stop", "outcome"),
    [
        ("cancel", Outcome.CANCELLED),
        ("preempt", Outcome.PREEMPTED),
        ("shutdown", Outcome.PREEMPTED),
        ("time_limit", Outcome.FAILED),
    ],
)
def test_order_before_the_start(stop, outcome):
    assert ending_by_order(stop).outcome == outcome


@pytest.mark.parametrize(
    ("ended", "stop", "outcome", "kind"),
    [
        (TrainerExit(code=0), None, Outcome.SUCCEEDED, None),
        (TrainerExit(code=0), "preempt", Outcome.SUCCEEDED, None),
        (TrainerExit(code=0), "cancel", Outcome.CANCELLED, None),
        (TrainerExit(code=1), "preempt", Outcome.PREEMPTED, None),
        (TrainerExit(signal=15), "shutdown", Outcome.PREEMPTED, None),
        (VANISHED, "preempt", Outcome.PREEMPTED, None),
        (TrainerExit(signal=9), "time_limit", Outcome.FAILED, FailureKind.TIME_LIMIT),
        (TrainerExit(code=2), None, Outcome.FAILED, FailureKind.CRASHED),
        (TrainerExit(code=3), None, Outcome.FAILED, FailureKind.CRASHED),
        (TrainerExit(code=7), None, Outcome.FAILED, FailureKind.CRASHED),
        (TrainerExit(signal=9), None, Outcome.FAILED, FailureKind.KILLED),
        (VANISHED, None, Outcome.FAILED, FailureKind.KILLED),
        (TrainerExit(error="cannot start"), "preempt", Outcome.FAILED, FailureKind.CRASHED),
    ],
)
def test_exit_codes_of_scripts_mean_nothing_but_failure(ended, stop, outcome, kind):
    ending = ending_of_script(ended, stop, "said")
    assert ending.outcome == outcome
    assert (ending.failure.kind if ending.failure else None) == kind
    if kind is FailureKind.CRASHED and ended.code:
        assert ending.failure.message == f"the script ended with exit code {ended.code}\nsaid"
        assert ending.failure.exit_code == ended.code


def test_long_message_keeps_its_end():
    failure = failed(FailureKind.CRASHED, "a" * 50_000 + "the reason").failure
    assert len(failure.message) == MESSAGE_CHARACTERS
    assert failure.message.startswith("...")
    assert failure.message.endswith("the reason")
