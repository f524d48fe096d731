"""A few runs of the fault campaign; ``benchmarks/fault_campaign.py`` makes hundreds.

A run that fails names its seed: ``python benchmarks/fault_campaign.py --seed SEED`` repeats it.
"""

import os
from types import SimpleNamespace

import pytest

from faults.campaign import Campaign, RunResult, _Strike
from faults.plan import WAYS, Fault, Moment, plan

SEEDS = range(1, 1 + int(os.environ.get("ST_FAULT_RUNS", "2")))


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    made = Campaign(tmp_path_factory.mktemp("campaign"))
    yield made
    made.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_every_promise_holds_when_all_is_whole_again(campaign, seed):
    result = campaign.run(seed)

    assert result.violations == [], (result.faults, result.folder)


def test_a_seed_always_means_the_same_faults_and_all_ways_are_drawn():
    plans = [plan(seed) for seed in range(400)]

    assert plans == [plan(seed) for seed in range(400)]
    drawn = {(fault.target, fault.how) for each in plans for fault in each.faults}
    assert drawn == {(target, how) for target, ways in WAYS.items() for how in ways}


def test_a_trap_that_springs_after_the_mending_breaks_nothing_anew():
    broken = []
    rig = SimpleNamespace(break_=lambda target, how, _victim: broken.append((target, how)))
    fault = Fault("agent", "stop", Moment("after", what="stream"), 1.0)
    strike = _Strike(rig, fault, None, RunResult(1, []))
    strike.act()
    strike.from_proxy()
    assert broken == [("agent", "stop")]
    assert strike.hit.is_set()
