"""Whose things an actor reaches; SQL says the same (tests/integration: test_visibility)."""

from dataclasses import replace

import pytest

from st_controller.domain.policy.reach import Owner, Reach
from st_controller.errors import NotFound, NotPermitted
from st_controller.services.actor import Actor

ANN = Actor(
    user_id="ann",
    username="ann",
    permissions=frozenset({"job.view.all", "job.submit", "admin.workers"}),
    org="acme",
    team="vision",
    teams=frozenset({"vision", "audio"}),
    role="x",
    rank=10,
    widest=Reach.OWN,
)
OWN = Owner("ann", "acme", "gone")
TEAM = Owner("ben", "acme", "audio")
ORG = Owner("cid", "acme", "text")
ELSEWHERE = Owner("dan", "other", "vision")
LEFT_BEHIND = Owner("ann", "other", "vision")
ALL = [OWN, TEAM, ORG, ELSEWHERE, LEFT_BEHIND]


@pytest.mark.parametrize(
    ("widest", "seen"),
    [
        (Reach.OWN, [OWN]),
        (Reach.TEAM, [OWN, TEAM]),
        (Reach.ORG, [OWN, TEAM, ORG]),
        (Reach.SYSTEM, ALL),
    ],
)
def test_a_permission_goes_as_far_as_the_role(widest, seen):
    actor = replace(ANN, widest=widest)
    assert [owner for owner in ALL if actor.reaches(owner, "job.view.all")] == seen
    assert [owner for owner in ALL if actor.reaches(owner, "job.cancel.all")] == [OWN]


def test_reach_is_none_without_the_permission_and_whole_for_what_all_share():
    assert ANN.reach("job.cancel.all") is None
    assert ANN.reach("job.submit") is Reach.OWN
    assert ANN.reach("admin.workers") is Reach.SYSTEM


def test_what_is_not_seen_does_not_exist_and_what_is_seen_is_refused():
    with pytest.raises(NotFound, match="there is no job x"):
        ANN.must_reach(TEAM, "job x", "job.view.all")
    with pytest.raises(NotPermitted, match=r"job\.cancel\.all"):
        ANN.must_cover(TEAM, "job.cancel.all")
    ANN.must_reach(OWN, "job x", "job.view.all")
    ANN.must_cover(OWN, "job.cancel.all")
