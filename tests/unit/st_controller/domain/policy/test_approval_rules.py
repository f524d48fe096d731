"""Approval rules: the strictest demands of all that match, in whatever order they come."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_controller.domain.policy.approval_rules import (
    ApprovalRule,
    ApprovalRules,
    Condition,
    Facts,
    judge,
)
from st_controller.domain.policy.deciding import Standing, why_not_decide
from st_controller.domain.policy.governing import why_not_govern
from st_controller.domain.policy.reach import Reach
from st_controller.domain.policy.resource_rules import Subject
from st_controller.domain.scheduling.placement import name_matches

ANN = Subject("acme", "vision", "ann", "researcher")
FACTS = Facts(
    cost=5_000_000,
    slots=4,
    time_limit=7200.0,
    accelerator="a100*|h100-sxm",
    provider="*",
    config="big-run",
    family="flux",
    is_first=False,
    jobs_today=3,
)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def rule(condition, *, amount=0, pattern="", **fields):
    return ApprovalRule(
        **{
            "id": "apl_1", "name": "rule", "org": None, "condition": Condition(condition),
            "amount": amount, "pattern": pattern, "exempt_roles": frozenset(),
            "exempt_users": frozenset(), "approver": "lead", "rank": 50, "quorum": 1,
            "expires_after": 3600.0, "priority": 0, **fields,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("made", "matches"),
    [
        (rule("cost_over", amount=4_999_999), True),
        (rule("cost_over", amount=5_000_000), False),
        (rule("slot_hours_over", amount=7), True),
        (rule("slot_hours_over", amount=8), False),
        (rule("jobs_per_day_over", amount=2), True),
        (rule("jobs_per_day_over", amount=3), False),
        (rule("first_job"), False),
        (rule("accelerator", pattern="H100*"), True),
        (rule("accelerator", pattern="b200*"), False),
        (rule("provider", pattern="cloud*"), False),
        (rule("provider", pattern="*"), True),
        (rule("role", pattern="researcher"), True),
        (rule("config", pattern="big-*"), True),
        (rule("config", pattern="small-*"), False),
        (rule("family", pattern="flux*"), True),
        (rule("family", pattern="sd*"), False),
    ],
    ids=lambda value: (
        f"{value.condition}-{value.amount}-{value.pattern}"
        if isinstance(value, ApprovalRule)
        else ""
    ),
)
def test_conditions(made, matches):
    assert (judge([made], FACTS).need is not None) == matches


def test_a_job_without_a_config_matches_no_rule_of_configs():
    assert judge([rule("config", pattern="*")], FACTS._replace(config="")).need is None


rules = st.builds(
    lambda amount, rank, quorum, expires, priority, number: rule(
        "slot_hours_over", amount=amount, rank=rank, approver=f"role{rank}", quorum=quorum,
        expires_after=expires, priority=priority, id=f"apl_{number}",
    ),
    st.integers(0, 16), st.integers(0, 100), st.integers(1, 5), st.floats(60, 9999),
    st.integers(-3, 3), st.integers(0, 999),
)  # fmt: skip


@given(st.lists(rules, max_size=8, unique_by=lambda each: each.id), st.randoms())
def test_all_rules_that_match_count_in_any_order(found, random):
    matching = [each for each in found if each.amount < FACTS.slot_hours]
    need = judge(random.sample(found, len(found)), FACTS).need
    if not matching:
        assert need is None
        return
    assert need.rank == max(each.rank for each in matching)
    assert need.quorum == max(each.quorum for each in matching)
    assert need.expires_after == min(each.expires_after for each in matching)
    assert {rule_id for rule_id, _ in need.rules} == {each.id for each in matching}
    assert need == judge(found, FACTS).need


globs = st.text("ab*", min_size=1, max_size=3)
names = st.text("ab", min_size=1, max_size=3)


@given(st.lists(globs, max_size=4), st.lists(globs, min_size=1, max_size=3), names)
def test_nothing_that_needs_a_word_is_given_without_one(patterns, wanted, name):
    """Whoever waits for nobody never gets an accelerator that a rule is about."""
    found = [rule("accelerator", pattern=each, id=f"apl_{n}") for n, each in enumerate(patterns)]
    request = "|".join(wanted)
    opinion = judge(found, FACTS._replace(accelerator=request))
    needs_word = any(name_matches(each, name) for each in patterns)
    if opinion.need is None:
        group = opinion.accelerator.group
        narrowed = f"{request}&{group}" if group else request
        assert name_matches(narrowed, name) == (name_matches(request, name) and not needs_word)


@pytest.mark.parametrize(
    ("fields", "binds"),
    [({}, True), ({"org": "acme"}, True), ({"org": "other"}, False),
     ({"exempt_roles": frozenset({"researcher"})}, False),
     ({"exempt_users": frozenset({"ann"})}, False), ({"exempt_users": frozenset({"bob"})}, True)],
)  # fmt: skip
def test_whom_a_rule_binds(fields, binds):
    found = ApprovalRules((rule("first_job", **fields),))
    assert bool(found.binding(ANN)) == binds
    assert bool(found.binding(ANN)) == binds  # remembered


def standing(**fields):
    return Standing(
        **{
            "is_pending": True, "expires_at": NOW + timedelta(hours=1), "rank": 50,
            "approver": "lead", "requested_by": "usr_ann", "submitted_by": "usr_bob",
            "said": frozenset(), **fields,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "user", "rank", "code"),
    [
        ({}, "usr_lea", 50, None),
        ({}, "usr_lea", 49, "rank_too_low"),
        ({}, "usr_ann", 100, "own_job"),
        ({}, "usr_bob", 100, "own_job"),
        ({"said": frozenset({"usr_lea"})}, "usr_lea", 50, "already_said"),
        ({"is_pending": False}, "usr_lea", 50, "already_decided"),
        ({"expires_at": NOW}, "usr_lea", 50, "approval_expired"),
    ],
)
def test_who_may_decide(fields, user, rank, code):
    refused = why_not_decide(standing(**fields), user_id=user, rank=rank, now=NOW)
    assert (refused.code if refused else None) == code


@given(
    rank=st.integers(0, 99),
    widest=st.sampled_from(Reach),
    org=st.sampled_from([None, "acme", "other"]),
    binds_them=st.booleans(),
    bound=st.lists(st.integers(0, 100), max_size=4),
)
def test_a_rule_is_changed_only_from_above(rank, widest, org, binds_them, bound):
    why = why_not_govern(
        rank=rank, widest=widest, own_org="acme", org=org, binds_them=binds_them, bound=bound
    )
    reaches = widest is Reach.SYSTEM or (widest is Reach.ORG and org == "acme")
    above = not binds_them and all(each < rank for each in bound)
    assert (why is None) == (reaches and above)
    if widest is Reach.SYSTEM:
        allowed = why_not_govern(
            rank=100, widest=widest, own_org="acme", org=org, binds_them=binds_them, bound=bound
        )
        assert allowed is None
