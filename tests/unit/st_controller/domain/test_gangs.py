import pytest

from st_controller.domain.gangs import MemberEnd, after_member, deciding, is_excused
from st_shared.protocol.states import FailureKind, Outcome

WELL = MemberEnd(0, Outcome.SUCCEEDED)


def failed(node, kind):
    return MemberEnd(node, Outcome.FAILED, kind)


@pytest.mark.parametrize(
    ("ends", "counts"),
    [
        ([WELL, MemberEnd(1, Outcome.LOST)], 0),
        ([WELL, failed(1, FailureKind.PEER_LOST)], 0),
        ([failed(0, FailureKind.PEER_LOST), failed(1, FailureKind.DISK_FULL)], 1),
        ([failed(0, FailureKind.CRASHED), MemberEnd(1, Outcome.LOST)], 1),
        ([failed(0, FailureKind.NOT_FINITE), MemberEnd(1, Outcome.LOST)], 0),
        # It stopped because of the other, which nobody had left: a link that broke costs a try.
        ([MemberEnd(0, Outcome.PREEMPTED), failed(1, FailureKind.PEER_LOST)], 1),
        ([failed(0, FailureKind.KILLED), MemberEnd(1, Outcome.PREEMPTED)], 0),
        ([MemberEnd(0, Outcome.EXPIRED), failed(1, FailureKind.TRANSFER)], 1),
        ([MemberEnd(0, Outcome.PREEMPTED), MemberEnd(1, Outcome.CANCELLED)], 1),
        ([MemberEnd(0, Outcome.LOST), MemberEnd(1, Outcome.SUCCEEDED)], 0),
        ([failed(0, FailureKind.CRASHED), failed(1, FailureKind.CRASHED)], 0),
    ],
)
def test_the_end_that_says_most_is_the_attempts(ends, counts):
    assert deciding(ends).node == counts


def test_every_end_has_its_rank():
    for outcome in Outcome:
        assert deciding([MemberEnd(1, outcome)]).outcome is outcome


@pytest.mark.parametrize(
    ("outcome", "others"),
    [
        (Outcome.SUCCEEDED, "go on"),
        (Outcome.LOST, "drop"),
        (Outcome.EXPIRED, "drop"),
        (Outcome.FAILED, "yield"),
        (Outcome.PREEMPTED, "yield"),
        (Outcome.CANCELLED, "yield"),
    ],
)
def test_what_the_others_do(outcome, others):
    ended = MemberEnd(1, outcome)
    assert after_member(ended, leader_succeeded=False) == others
    assert after_member(ended, leader_succeeded=True) == "go on"


@pytest.mark.parametrize("being_stopped", [True, False])
@pytest.mark.parametrize("kind", [*FailureKind, None])
@pytest.mark.parametrize("outcome", Outcome)
def test_who_only_missed_another_is_excused_while_the_gang_is_being_stopped(
    outcome, kind, being_stopped
):
    missed = outcome is Outcome.FAILED and kind is FailureKind.PEER_LOST
    ended = MemberEnd(1, outcome, kind)
    assert is_excused(ended, being_stopped=being_stopped) == (missed and being_stopped)
