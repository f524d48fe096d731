"""What is charged: as the worker measured it, within what the controller saw."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from st_controller.domain import use

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = 25.0


@dataclass
class _Member:
    claimed: float | None
    used_seconds: float = 0.0
    released: float | None = None
    nodes: int = 1

    @property
    def claimed_at(self):
        return None if self.claimed is None else NOW + timedelta(seconds=self.claimed)

    @property
    def released_at(self):
        return None if self.released is None else NOW + timedelta(seconds=self.released)


@pytest.mark.parametrize(
    ("known", "told", "seen", "behind", "proof"),
    [
        (5.0, 10.0, 10.2, 0.0, 10.0),  # the way of the message is not charged
        (5.0, None, 10.2, 0.0, 10.2),  # an older worker measures nothing
        (5.0, 10.0, 600.0, 1.0, 10.0),  # it lay about while the controller stood still
        (5.0, 10.0, 600.0, 25.0, 575.0),  # a clock that stands still, or a lie
        (5.0, 599.0, 600.0, 25.0, 599.0),  # it has caught up
        (5.0, 0.0, 10.0, 0.0, 5.0),  # what is proven stays so
        (5.0, 1e9, 10.0, 0.0, 10.0),  # nor is the future charged
        (5.0, 1.0, -3600.0, 0.0, 5.0),  # the clock of the controller was set back
    ],
)
def test_a_heartbeat_proves_use(known, told, seen, behind, proof):
    assert use.proven(known, told, seen, LEASE, behind) == pytest.approx(proof)


@pytest.mark.parametrize(
    ("known", "told", "seen", "used"),
    [
        (55.0, 60.0, 660.0, 60.0),  # told ten minutes late, because nobody listened
        (55.0, 1.0, 60.0, 55.0),  # heartbeats said that it ran
        (55.0, 90.0, 60.0, 60.0),
    ],
)
def test_the_worker_tells_the_end_within_what_was_seen(known, told, seen, used):
    assert use.ended(known, told, seen) == used


def test_members_are_charged_from_the_last_claim_to_the_last_end():
    members = [_Member(0.0, 10.0, nodes=2), _Member(4.0, 20.0, nodes=2)]
    released = use.released(members, NOW + timedelta(hours=1))
    assert released == NOW + timedelta(seconds=24)
    for member in members:
        member.released = 24.0
    assert [use.span(members, each) for each in members] == [
        (NOW + timedelta(seconds=4), released)
    ] * 2


def test_while_members_run_each_is_charged_as_far_as_it_is_proven():
    members = [_Member(0.0, 2.0, nodes=2), _Member(4.0, 20.0, nodes=2)]
    since = NOW + timedelta(seconds=4)
    assert use.span(members, members[0]) == (since, since)
    assert use.span(members, members[1]) == (since, NOW + timedelta(seconds=24))


@pytest.mark.parametrize(
    "members",
    [[_Member(None, released=10.0)], [_Member(0.0, 5.0, 10.0, 2), _Member(None, nodes=2)]],
)
def test_what_not_all_have_claimed_costs_nothing(members):
    assert use.span(members, members[0]) is None
