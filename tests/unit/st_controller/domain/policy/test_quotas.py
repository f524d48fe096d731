"""Limits, their actions, ceilings above them, and renewal of what is held."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from st_controller.domain.policy import ceilings, forecast, quotas
from st_controller.domain.policy.estimates import MARGIN, Amounts, Asked, estimate, of_time, to_hold
from st_controller.domain.policy.prices import Price, PriceList
from st_controller.domain.policy.quotas import RULES, Action, Counter, Kind, Quota
from st_controller.domain.policy.renewal import STRIDE, Running, renew
from st_shared.spec.job import JobSpec

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


def quota(path="", amount=10, kind=Kind.COST_MONTHLY, action=Action.BLOCK) -> Quota:
    return Quota(f"{path}{kind}{action}", path, kind, amount, action)


def place(*standing: Quota) -> quotas.Place:
    (found,) = quotas.places(standing, UTC)
    return found


def test_each_kind_has_a_meter_and_a_period() -> None:
    assert RULES.keys() == set(Kind)


@given(st.sampled_from(Kind), st.integers(0, 10**15))
def test_amounts_survive_being_written(kind, amount) -> None:
    amount -= amount % 3_600 if kind is Kind.SLOT_HOURS_MONTHLY else 0
    assert abs(quotas.smallest(kind, quotas.spoken(kind, amount)) - amount) <= 1


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [("cost_daily", "0.0000001"), ("running_jobs", "1.5"), ("storage_bytes", "-1"),
     ("slot_hours_monthly", "0.00000001"), ("submissions_per_day", "NaN")],
)  # fmt: skip
def test_what_is_no_amount_is_refused(kind, wrong) -> None:
    with pytest.raises(ValueError, match=r"give a|too many"):
        quotas.smallest(Kind(kind), Decimal(wrong))


def test_counters_are_locked_from_the_root_down() -> None:
    paths = ["b/a/x", "", "a/b", "b", "a", "a/b/y", "b/a", "a-a"]
    found = quotas.places([quota(path) for path in paths], UTC)
    assert [each.path for each in found] == ["", "a", "a/b", "a/b/y", "a-a", "b", "b/a", "b/a/x"]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("ab"), st.sampled_from("ab"))))
def test_chains_of_tenants_in_their_order_lock_in_the_order_of_all(tenants) -> None:
    seen: list = []
    for tenant in sorted(tenants):
        for depth in range(4):
            order = place(quota("/".join(tenant[:depth]))).order
            if order not in seen:
                seen.append(order)
    assert seen == sorted(seen)


def test_the_lowest_that_blocks_is_the_ceiling_and_others_only_speak() -> None:
    here = place(
        quota(amount=9), quota(amount=5, action=Action.WARN), quota(amount=7, action=Action.NOTIFY)
    )
    assert here.ceiling is not None
    assert here.ceiling.amount == 9
    assert [p.quota.action for p in here.passed(Counter(4, 2), 1)] == ["warn"]
    assert not here.passed(Counter(4, 1), 1)


def test_a_limit_above_the_ceiling_it_lies_under_is_found_both_ways() -> None:
    org = quota("org", 100)
    team = quota("org/team", 150)
    assert ceilings.above_ceilings(team, [org]) == [(org, team)]
    assert ceilings.above_ceilings(org, [team, quota("org/two", 120), quota("org2", 999)]) == [
        (org, team), (org, quota("org/two", 120)),
    ]  # fmt: skip
    assert not ceilings.above_ceilings(quota("org/team", 100), [org])
    assert not ceilings.above_ceilings(team, [quota("org", 100, action=Action.WARN)])
    assert not ceilings.above_ceilings(team, [quota("org", 100, Kind.COST_DAILY)])
    assert ceilings.above_ceilings(quota("org/team/u", 101), [quota("", 100)])


def test_what_runs_is_limited_by_the_lowest_that_blocks() -> None:
    found = quotas.running_limits(
        [quota("org", 5, Kind.RUNNING_JOBS), quota("org", 2, Kind.RUNNING_SLOTS),
         quota("a", 5, Kind.RUNNING_JOBS, Action.WARN), quota("b", 5)]
    )  # fmt: skip
    assert found == {"org": {quotas.Meter.RUNNING_JOBS: 5, quotas.Meter.RUNNING_SLOTS: 2}}


def test_refusals_name_the_quota_what_is_left_and_when_it_begins_anew() -> None:
    here = place(quota("org/team", 10_000_000))
    said = quotas.refused(here, Counter(7_000_000, 2_500_000), 1_000_000, NOW)
    assert said.message == (
        "The quota cost_monthly of org/team is 10: 7 used, 2.5 held: 0.5 left, 1 asked for. "
        "It begins anew at 2026-04-01T00:00+00:00."
    )


def spec(**resources) -> JobSpec:
    return JobSpec.model_validate(
        {"name": "n", "command": {"run": "true"}, "time_limit": "2h", "resources": resources}
    )


def test_an_estimate_takes_the_declared_then_the_learned_then_the_limit() -> None:
    prices = PriceList.at(NOW, [Price("h100*", "*", 6_000_000, NOW), Price("*", "*", 1, NOW)])
    asked = Asked.by(spec(slots=2, nodes=3, accelerator="h100*"))
    assert estimate(asked, prices, None) == Amounts(72_000_000, 12 * 3_600_000)
    assert estimate(asked, prices, 3600.0).micros == 36_000_000
    assert estimate(asked, prices, 9e9).micros == 72_000_000
    declared = asked._replace(expected=60.0)
    assert estimate(declared, prices, 3600.0).micros == 600_000
    short = asked._replace(expected=1.0)
    assert to_hold(short, prices, estimate(short, prices, None)).micros == 600_000


class TestRenewal:
    RATE = 3_600_000  # a micro-unit a millisecond

    def room(self, *limits: int, used=0, held=0):
        here = [place(quota("/".join("abc"[:depth]), limit)) for depth, limit in enumerate(limits)]
        return here, {each: Counter(used, held) for each in here}

    def test_what_lasts_is_not_renewed(self) -> None:
        held = of_time(self.RATE, 1, MARGIN)
        assert not renew(Running(held, self.RATE, 1), *self.room(0)).more

    def test_a_stride_is_added_where_there_is_room(self) -> None:
        found = renew(Running(Amounts(), self.RATE, 1), *self.room(10**9))
        assert found.more == Amounts(of_time(self.RATE, 1, MARGIN + STRIDE).micros)

    def test_less_where_less_is_left_and_the_narrowest_counts(self) -> None:
        found = renew(Running(Amounts(), self.RATE, 1), *self.room(10**9, 90_000, 100_000))
        assert (found.more.micros, found.exhausted) == (90_000, None)

    def test_without_room_for_the_margin_it_is_over(self) -> None:
        here, counters = self.room(10**9, 100_000, used=50_000, held=100)
        found = renew(Running(Amounts(), self.RATE, 1), here, counters)
        assert (found.exhausted, found.more) == (here[1], Amounts())

    @given(
        st.integers(-(10**6), 10**6), st.integers(0, 10**7), st.integers(0, 10**7),
        st.integers(0, 10**7),
    )  # fmt: skip
    def test_no_renewal_passes_a_ceiling(self, held, limit, used, rate) -> None:
        here, counters = self.room(limit, used=used)
        found = renew(Running(Amounts(held), rate, 1), here, counters)
        assert found.more.micros >= 0
        assert found.more.micros <= max(0, limit - used)
        assert bool(found.exhausted) <= (held < of_time(rate, 1, MARGIN).micros)


def test_a_forecast_says_when_nothing_is_left_at_todays_pace() -> None:
    said = {"now": NOW, "renews": NOW + timedelta(days=1)}
    assert forecast.runs_out(used=50, limit=100, pace=0.01, **said) == NOW + timedelta(seconds=5000)
    assert forecast.runs_out(used=50, limit=100, pace=0.0001, **said) is None
    assert forecast.runs_out(used=50, limit=100, pace=0, **said) is None
    assert forecast.runs_out(used=100, limit=100, pace=0, **said) == NOW
    assert forecast.pace(7200, NOW - timedelta(hours=2), NOW) == 1
    assert forecast.pace(3600, NOW - timedelta(minutes=1), NOW) == 1
