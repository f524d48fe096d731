"""A campaign in slices: what was made is not made again, and what failed is not hidden."""

from faults.campaign import RunResult
from faults.ledger import Ledger
from faults.plan import plan


def run(seed, *violations):
    return RunResult(seed, [str(fault) for fault in plan(seed).faults], list(violations))


def done(ledger, *seeds):
    return [seed for seed in seeds if ledger.is_done(plan(seed))]


def test_a_slice_goes_on_after_the_one_before_and_makes_again_what_failed(tmp_path):
    path = tmp_path / "campaign.json"
    first = Ledger(path, "aaa", resume=True)
    first.keep(run(1))
    first.keep(run(2, "a line is lost"))

    second = Ledger(path, "bbb", resume=True)
    assert done(second, 1, 2, 3) == [1]
    second.keep(run(2))
    second.keep(run(3))

    third = Ledger(path, "ccc", resume=True)
    assert done(third, 1, 2, 3) == [1, 2, 3]
    assert [third.runs[seed].revision for seed in (1, 2, 3)] == ["aaa", "bbb", "bbb"]
    assert third.runs[2].failed_before == ["aaa: a line is lost"]


def test_a_run_counts_only_while_its_seed_means_the_same(tmp_path):
    ledger = Ledger(tmp_path / "campaign.json", "aaa", resume=False)
    other = RunResult(1, ["something else"])
    ledger.keep(other)
    assert done(ledger, 1) == []


def test_without_resume_nothing_of_before_counts(tmp_path):
    path = tmp_path / "campaign.json"
    Ledger(path, "aaa", resume=False).keep(run(1))
    assert done(Ledger(path, "aaa", resume=False), 1) == []
