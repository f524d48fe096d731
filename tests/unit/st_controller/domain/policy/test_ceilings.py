"""Which limits lie within which, and whose own take the place of those of a role."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_controller.domain.policy.ceilings import above_ceilings, exceeded, of_user
from st_controller.domain.policy.quotas import Action, Kind, Quota

USER = "org/team/ann"


def limit(path="org", amount=10, role="", kind=Kind.RUNNING_JOBS, action=Action.BLOCK) -> Quota:
    return Quota(f"{path} {role} {kind} {action}", path, kind, amount, action, role)


@pytest.mark.parametrize("path", ["", "org", "org/team"])
def test_a_user_has_what_their_role_has_around_them(path) -> None:
    found = limit(path, role="researcher")
    assert of_user(USER, "researcher", (), [found]) == [found]
    assert of_user(USER, "lead", (), [found]) == []
    assert of_user("org2/team/ann", "researcher", (), [found]) == ([found] if not path else [])


def test_one_of_their_own_takes_the_place_of_its_kind_and_action_alone() -> None:
    default = limit(role="researcher")
    warned = limit(role="researcher", action=Action.WARN)
    other = limit(role="researcher", kind=Kind.COST_DAILY)
    own = limit(USER, 3)
    assert of_user(USER, "researcher", [own], [default, warned, other]) == [own, warned, other]


def test_limits_of_a_role_lie_within_the_pools_around_them_and_wider_ones_of_the_role() -> None:
    pool, each = limit("org", 5), limit("org", 6, "researcher")
    assert above_ceilings(each, [pool]) == [(pool, each)]
    assert above_ceilings(pool, [each]) == [(pool, each)]
    inner = limit("org/team", 7, "researcher")
    assert above_ceilings(inner, [each]) == [(each, inner)]
    assert not above_ceilings(limit("org/team", 7, "lead"), [each])
    assert not above_ceilings(limit(USER, 7), [each])  # who may give more is asked elsewhere
    assert not above_ceilings(pool, [limit("org2", 9, "researcher")])


def test_what_a_user_would_have_beyond_their_role_is_found() -> None:
    default = limit(role="researcher")
    assert exceeded(limit(USER, 11), "researcher", [default]) == [default]
    assert not exceeded(limit(USER, 10), "researcher", [default])
    assert not exceeded(limit(USER, 11), "lead", [default])
    assert not exceeded(limit(USER, 11, action=Action.WARN), "researcher", [default])


AMOUNTS = st.lists(st.integers(0, 20), max_size=3)


@given(AMOUNTS, st.one_of(st.none(), st.integers(0, 20)))
def test_the_least_holds(amounts, own) -> None:
    paths = ("", "org", "org/team")
    defaults = [limit(path, n, "researcher") for path, n in zip(paths, amounts, strict=False)]
    mine = [] if own is None else [limit(USER, own)]
    found = [replace(quota, path=USER) for quota in of_user(USER, "researcher", mine, defaults)]
    expected = own if own is not None else min(amounts, default=None)
    assert min((quota.amount for quota in found), default=None) == expected
