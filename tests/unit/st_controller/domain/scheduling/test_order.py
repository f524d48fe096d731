"""Who is served first."""

from dataclasses import replace

import pytest
from queue_steps import Queue

from st_controller.domain.scheduling.model import Level, SlotKind, WorkerCapacity

HOUR = 3600.0


def served(queue: Queue, count: int, seconds: float = 60.0) -> list[str]:
    """Ids in the order of service, one job at a time, each lasting so long."""
    order: list[str] = []
    for _ in range(count):
        placed = queue.placed()
        order += placed
        queue.finish(*placed, after=seconds)
    return order


def test_a_user_is_served_in_the_order_of_submission() -> None:
    queue = Queue()
    queue.worker()
    for name in "abcdefg":
        queue.submit(name)

    assert served(queue, 7) == list("abcdefg")


def test_a_higher_class_goes_first() -> None:
    queue = Queue()
    queue.worker()
    queue.submit("normal")
    queue.submit("critical", level=Level.CRITICAL)
    queue.submit("low", level=Level.LOW)
    queue.submit("high", level=Level.HIGH)

    assert served(queue, 4) == ["critical", "high", "normal", "low"]


def test_an_override_reorders_at_once() -> None:
    queue = Queue()
    queue.worker()
    queue.submit("first", level=Level.CRITICAL)
    last = queue.submit("last", level=Level.LOW)

    queue.scheduler.enqueue(replace(last, level=Level.FIRST), queue.now)

    assert served(queue, 2) == ["last", "first"]


def test_waiting_raises_by_a_class_an_interval() -> None:
    queue = Queue(ageing_interval=HOUR)
    queue.worker()
    queue.submit("old", "o/t/ann", Level.LOW)
    queue.pass_time(1.5 * HOUR)
    queue.submit("normal", "o/t/ann")
    queue.submit("high", "o/t/ann", Level.HIGH)

    assert served(queue, 3) == ["high", "old", "normal"]


def test_the_next_moment_is_that_of_the_next_class() -> None:
    queue = Queue(ageing_interval=60.0)
    job = queue.submit("low", level=Level.LOW)
    for raised in range(1, 5):
        moment = queue.scheduler.next_moment()
        assert moment == pytest.approx(job.waiting_since + raised * 60.0, abs=1e-4)
        queue.now = moment
        queue.decide()
    assert queue.scheduler.next_moment() is None


def test_whoever_queued_a_flood_long_ago_does_not_overtake_those_who_had_less() -> None:
    queue = Queue(ageing_interval=HOUR)
    queue.worker()
    for number in range(50):
        queue.submit(f"flood {number}", "o/t/flooder")
    order = served(queue, 10, HOUR)
    queue.submit("small", "o/t/ann", Level.LOW)
    queue.submit("ben's", "o/t/ben")

    order = served(queue, 4, HOUR)

    assert order[0] == "ben's"
    assert "small" in order


def test_equal_tenants_take_turns_and_a_weight_of_three_gets_three_times_as_much() -> None:
    queue = Queue()
    queue.share("o/t/ann", 3.0)
    queue.worker()
    for number in range(400):
        queue.submit(f"ann {number}", "o/t/ann")
        queue.submit(f"ben {number}", "o/t/ben")

    order = served(queue, 200)

    assert 148 <= sum(name.startswith("ann") for name in order) <= 152


@pytest.mark.parametrize(("big", "small"), [("big/t", "small/t"), ("o/big", "o/small")])
@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_the_share_is_hierarchical(big: str, small: str, weight: float) -> None:
    """One user of a small organisation, or team, has as much as three of a large one together."""
    queue = Queue()
    queue.worker()
    queue.share(small.removesuffix("/t"), weight)
    for number in range(200):
        for user in (f"{big}/a", f"{big}/b", f"{big}/c", f"{small}/d"):
            queue.submit(f"{user} {number}", user)

    order = served(queue, 120)

    due = 120 * weight / (1 + weight)
    assert due - 2 <= sum(name.startswith(small) for name in order) <= due + 2


def test_an_idle_share_is_lent_and_taken_back() -> None:
    queue = Queue()
    queue.worker(slots=4)
    for number in range(8):
        queue.submit(f"ann {number}", "o/t/ann")
    lent = queue.placed()
    assert len(lent) == 4
    for number in range(8):
        queue.submit(f"ben {number}", "o/t/ben")
    queue.finish(*lent[:2], after=60)

    assert queue.placed() == ["ben 0", "ben 1"]


def test_a_newcomer_neither_monopolises_nor_starves() -> None:
    queue = Queue(catch_up=HOUR)
    queue.worker()
    for number in range(2000):
        queue.submit(f"ann {number}", "o/t/ann")
    served(queue, 500, 600.0)
    for number in range(200):
        queue.submit(f"ben {number}", "o/t/ben")

    order = served(queue, 60, 600.0)

    ben = sum(name.startswith("ben") for name in order)
    assert 28 <= ben <= 36
    assert order[0].startswith("ben")


def test_usage_is_what_was_really_held_and_decays() -> None:
    queue = Queue(half_life=HOUR, horizon=0.0)
    queue.worker(slots=2, price=4.0)
    queue.submit("job", "o/t/ann", slots=2)
    queue.placed()
    queue.finish("job", after=10.0)

    used, _ = queue.scheduler.usage(queue.now)["o/t/ann"]
    assert abs(used - 80.0) < 0.2
    queue.pass_time(HOUR)
    assert abs(queue.scheduler.usage(queue.now)["o"][0] - used / 2) < 1e-6


@pytest.mark.parametrize("user", ["o/t/ann", "o/t/ben"])
@pytest.mark.parametrize("limit", [HOUR, 2 * HOUR], ids=["like the others", "of its own shape"])
@pytest.mark.parametrize("light", ["runs", "cannot run"])
def test_a_job_rises_among_those_of_a_team_that_has_more_than_its_share(
    user: str, limit: float, light: str
) -> None:
    """A team beside it that wants little, or what nobody has, keeps it above the average."""
    queue = Queue(ageing_interval=HOUR)
    queue.worker(slots=4)
    accelerator = "h200" if light == "cannot run" else "cpu"
    queue.submit("light", "o/u/pat", accelerator=accelerator, limit=999 * HOUR)

    def flood(rounds: int, name: str) -> list[str]:
        order: list[str] = []
        for turn in range(rounds):
            for number in range(4):
                queue.submit(f"{name} {turn} {number}", "o/t/ben", limit=HOUR)
            order += queue.placed()
            running = [each for each in queue.scheduler.running() if each != "light"]
            queue.finish(*running, after=600.0)
        return order

    assert len(flood(6, "before")) > 18
    queue.submit("low", user, Level.LOW, limit=limit)
    assert not queue.scheduler.tenants.node("o/t", queue.now).is_within_share

    assert "low" in flood(24, "after")


def test_a_team_over_its_share_competes_with_others_at_the_levels_asked_for() -> None:
    queue = Queue(ageing_interval=HOUR)
    queue.worker()
    for number in range(6):
        queue.submit(f"ben {number}", "o/t/ben")
    served(queue, 3, 600.0)
    queue.submit("patient", "o/t/ann", Level.LOW, waited=9 * HOUR)
    for number in range(3):
        queue.submit(f"pat {number}", "o/u/pat")

    assert served(queue, 4, 600.0) == ["pat 0", "pat 1", "pat 2", "patient"]


def team_over_its_share() -> Queue:
    """A team of three of whom ben has had the least and cat the most, beside one that waits."""
    queue = Queue(ageing_interval=HOUR, horizon=0.0)
    queue.worker()
    queue.submit("waits for what nobody has", "o/u/pat", accelerator="tpu")
    had = {"ann": 20_000.0, "ben": 10_000.0, "cat": 60_000.0}
    used = {f"o/t/{name}": (usage, 0.0) for name, usage in had.items()}
    queue.scheduler.load_usage(used | {"o/t": (90_000.0, 0.0)}, queue.now)
    return queue


def test_those_of_one_class_go_by_their_share_in_a_team_over_its_own() -> None:
    queue = team_over_its_share()
    queue.submit("risen", "o/t/ann", waited=9 * HOUR)
    queue.submit("fresh", "o/t/ben")
    queue.submit("low", "o/t/cat", Level.LOW, limit=2 * HOUR)

    assert served(queue, 3) == ["fresh", "risen", "low"]


def test_who_has_risen_no_further_than_others_ask_for_goes_after_them() -> None:
    queue = team_over_its_share()
    queue.submit("as high", "o/t/ann", Level.LOW, limit=2 * HOUR, waited=1.5 * HOUR)
    queue.submit("fresh", "o/t/ben")

    assert served(queue, 2) == ["fresh", "as high"]


def test_who_has_risen_further_goes_first_in_a_team_over_its_share() -> None:
    queue = team_over_its_share()
    for user, hours in (("ann", 9.0), ("ben", 2.5)):
        queue.submit(user, f"o/t/{user}", Level.LOW, limit=2 * HOUR, waited=hours * HOUR)
    queue.submit("fresh", "o/t/cat")

    assert queue.placed() == ["ann"]


def test_one_that_has_risen_goes_first_each_time_usage_is_settled() -> None:
    queue = team_over_its_share()
    for number in range(3):
        queue.submit(f"risen {number}", "o/t/ann", Level.LOW, limit=2 * HOUR, waited=9 * HOUR)
        queue.submit(f"fresh {number}", "o/t/cat")

    assert served(queue, 4, seconds=14.0) == ["risen 0", "fresh 0", "fresh 1", "risen 1"]


@pytest.mark.parametrize(("limited", "most"), [("o", 2), ("o/t", 2), ("o/t/ann", 1)])
@pytest.mark.parametrize("fits_too", [False, True])
def test_who_has_risen_in_a_team_over_its_share_exceeds_no_limit(
    limited: str, most: int, fits_too: bool
) -> None:
    queue = team_over_its_share()
    queue.worker("large", 8)
    queue.share(limited, max_slots=most)
    queue.submit("runs", "o/t/cat", limit=9 * HOUR)
    assert queue.placed() == ["runs"]
    queue.submit("wide", "o/t/ann", Level.LOW, slots=2, waited=9 * HOUR)
    queue.submit("wide too", "o/t/ben", slots=2)
    queue.submit("fits", "o/t/ben", limit=9 * HOUR)
    if fits_too:
        queue.submit("has risen, too", "o/t/ann", Level.LOW, limit=5 * HOUR, waited=8 * HOUR)
    queue.placed()

    assert "wide" not in queue.scheduler.held
    assert ("has risen, too" if fits_too else "fits") in queue.scheduler.held


def test_what_is_told_of_its_use_is_charged_and_no_more() -> None:
    queue = Queue(half_life=1e9, horizon=0.0)
    queue.worker(slots=2)
    queue.submit("job", "o/t/ann", slots=2)
    queue.placed()
    began = queue.now
    queue.pass_time(100.0)
    queue.scheduler.finish("job", queue.now, used=(began + 20.0, began + 50.0))

    assert queue.scheduler.usage(queue.now)["o/t/ann"][0] == pytest.approx(60.0)


def test_each_slot_of_a_mixed_worker_is_charged_by_its_own_price() -> None:
    queue = Queue(half_life=1e9)
    kinds = SlotKind("H100", 80), SlotKind("T4", 16), SlotKind("T4", 16)
    cheap = {1: 1.0, 2: 1.0}
    mixed = WorkerCapacity("mixed", dict(enumerate(kinds)), price=10.0, prices=cheap)
    queue.scheduler.put_worker(mixed, queue.now)
    queue.submit("cheap", "o/t/ann", slots=2, accelerator="t4")
    queue.submit("dear", "o/t/ben", accelerator="h100")
    assert len(queue.placed()) == 2
    queue.finish("cheap", "dear", after=10.0)

    used = queue.scheduler.usage(queue.now)
    assert used["o/t/ann"][0] == pytest.approx(20.0)
    assert used["o/t/ben"][0] == pytest.approx(100.0)
    assert queue.scheduler.tenants.fleet_rate == 12.0
    queue.scheduler.drop_worker("mixed", queue.now)
    assert queue.scheduler.tenants.fleet_rate == 0.0


def test_an_offer_that_nobody_took_is_not_charged() -> None:
    queue = Queue()
    queue.worker()
    queue.submit("job")
    queue.placed()
    queue.pass_time(10)
    queue.scheduler.finish("job", queue.now, charge=False)

    assert all(abs(used) < 1e-6 for used, _ in queue.scheduler.usage(queue.now).values())


def test_usage_outlives_a_scheduler() -> None:
    queue = Queue()
    queue.worker()
    for number in range(10):
        queue.submit(f"ann {number}", "o/t/ann")
    served(queue, 5)

    heir = Queue()
    heir.now = queue.now
    heir.scheduler.load_usage(queue.scheduler.usage(queue.now), heir.now)
    heir.worker()
    heir.submit("ann", "o/t/ann")
    heir.submit("ben", "o/t/ben")

    assert heir.placed() == ["ben"]


def test_a_job_that_comes_back_keeps_its_turn_and_waits_for_its_pause() -> None:
    queue = Queue()
    queue.worker()
    first = queue.submit("first")
    queue.submit("second")
    queue.submit("third")
    assert queue.placed() == ["first"]
    queue.finish("first", after=60)

    queue.scheduler.enqueue(
        replace(first, not_before=queue.now + 30, waiting_since=queue.now), queue.now
    )

    assert queue.placed() == ["second"]
    queue.finish("second", after=60)
    assert queue.placed() == ["first"]


def test_nothing_starts_before_its_moment() -> None:
    queue = Queue()
    queue.worker()
    queue.submit("later", not_before=queue.now + 100)

    assert queue.placed() == []
    assert queue.scheduler.next_moment() == queue.now + 100
    queue.pass_time(100)
    assert queue.placed() == ["later"]


def test_whoever_has_just_been_served_is_not_within_its_share_before_that_shows_in_its_use() -> (
    None
):
    queue = Queue()
    queue.worker(slots=2)
    for number in range(2):
        queue.submit(f"ann {number}", "o/t/ann")
        queue.submit(f"ben {number}", "o/t/ben")
    queue.scheduler.load_usage({"o/t/ben": (100.0, 0.0)}, queue.now)

    assert queue.placed() == ["ann 0", "ben 0"]


@pytest.mark.parametrize(("lead", "left"), [(HOUR, 1.0), (100 * HOUR, 0.25)])
def test_decay_forgives_no_lead_among_those_who_all_wait_unless_it_is_beyond_catching_up(
    lead: float, left: float
) -> None:
    queue = Queue(half_life=10 * HOUR, catch_up=4 * HOUR)
    queue.worker()
    queue.submit("first", "other/t/carl", limit=24 * HOUR)
    queue.placed()
    for user in ("ann", "ben"):
        queue.submit(user, f"o/t/{user}", Level.LOW)
    before = {"o/t/ann": (10 * HOUR + lead, 0.0), "o/t/ben": (10 * HOUR, 0.0)}
    queue.scheduler.load_usage(before, queue.now)
    for _ in range(120):
        queue.pass_time(HOUR / 6)
        queue.placed()

    used = queue.scheduler.usage(queue.now)

    assert sum(used["o/t/ann"]) - sum(used["o/t/ben"]) == pytest.approx(left * lead, rel=0.05)
    assert used["o/t/ann"][0] == pytest.approx((10 * HOUR + lead) / 4)
