import pytest

from st_shared.protocol.states import FAILURES, FailureKind, Outcome
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
        (TrainerExit(code=8), None, Outcome.FAILED, FailureKind.PEER_LOST),
        (TrainerExit(code=9), None, Outcome.FAILED, FailureKind.DEVICE_FAULT),
        (TrainerExit(code=137), None, Outcome.FAILED, FailureKind.KILLED),
        (TrainerExit(code=137, oom_kills=1), None, Outcome.FAILED, FailureKind.OUT_OF_MEMORY),
        (TrainerExit(signal=9, oom_kills=2), None, Outcome.FAILED, FailureKind.OUT_OF_MEMORY),
        (TrainerExit(signal=11, oom_kills=2), None, Outcome.FAILED, FailureKind.KILLED),
        (TrainerExit(code=1, oom_kills=1), None, Outcome.FAILED, FailureKind.CRASHED),
    ],
)
def test_exit_and_order_give_the_outcome(ended, stop, outcome, kind):
    ending = ending_of(ended, stop, "said")
    assert ending.outcome == outcome
    assert (ending.failure.kind if ending.failure else None) == kind


def test_a_process_that_nccl_ends_for_want_of_another_casts_no_doubt_on_its_slots():
    said = "[rank1]: Watchdog caught collective operation timeout: WorkNCCL(SeqNum=3)"
    assert ending_of(TrainerExit(code=134), None, said).failure.kind == FailureKind.PEER_LOST
    said += "\n[rank0]: CUDA error: uncorrectable ECC error encountered"
    assert ending_of(TrainerExit(code=134), None, said).failure.kind == FailureKind.DEVICE_FAULT


NCCL_WAITED = "[rank1]: Watchdog caught collective operation timeout: WorkNCCL(SeqNum=3)"


@pytest.mark.parametrize(
    ("ended", "said"), [(TrainerExit(code=8), "said"), (TrainerExit(code=134), NCCL_WAITED)]
)
@pytest.mark.parametrize(
    ("stop", "in_gang", "outcome"),
    [
        ("preempt", True, Outcome.PREEMPTED),
        ("shutdown", True, Outcome.PREEMPTED),
        ("cancel", True, Outcome.CANCELLED),
        ("time_limit", True, Outcome.FAILED),
        (None, True, Outcome.FAILED),
        ("preempt", False, Outcome.FAILED),  # there was nobody to go first
    ],
)
def test_a_member_that_stops_and_misses_another_has_seen_it_go_first(
    ended, said, stop, in_gang, outcome
):
    assert ending_of(ended, stop, said, in_gang=in_gang).outcome is outcome


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


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("CUDA error: uncorrectable ECC error encountered", FailureKind.DEVICE_FAULT),
        ("HIP error: hardware exception", FailureKind.DEVICE_FAULT),
        ("CUDA error: device-side assert triggered", FailureKind.CRASHED),
        ("CUDA error: an illegal memory access was encountered", FailureKind.CRASHED),
        ("RuntimeError: CUDA error: unspecified launch failure", FailureKind.CRASHED),
        ("NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.", FailureKind.DEVICE_FAULT),
        ("uncorrectable ECC error encountered", FailureKind.DEVICE_FAULT),
        ("Watchdog caught collective operation timeout: WorkNCCL", FailureKind.PEER_LOST),
        ("OSError: [Errno 28] No space left on device", FailureKind.DISK_FULL),
        ("KeyError: 'xid'", FailureKind.CRASHED),
    ],
)
def test_the_last_words_of_a_crash_name_its_kind(said, kind):
    for ending in (ending_of, ending_of_script):
        assert ending(TrainerExit(code=1), None, said).failure.kind == kind


def test_a_member_of_a_gang_that_stopped_because_another_was_told_to_is_preempted():
    assert ending_of(TrainerExit(code=3), None, "", in_gang=True).outcome == Outcome.PREEMPTED
    assert ending_of(TrainerExit(code=1), None, "", in_gang=True).outcome == Outcome.FAILED


def test_every_kind_of_failure_has_its_rule():
    assert set(FAILURES) == set(FailureKind)
    assert {kind for kind in FailureKind if not kind.is_retryable} == {
        FailureKind.BAD_SPEC,
        FailureKind.BAD_DATA,
        FailureKind.NOT_FINITE,
        FailureKind.TIME_LIMIT,
    }
    assert [kind for kind in FailureKind if kind.suspects_slots] == [FailureKind.DEVICE_FAULT]
