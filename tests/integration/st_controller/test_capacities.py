"""How the scheduler sees workers that nobody told it of: a part of all at each look."""

import pytest

from st_controller.services import capacities, workers
from st_controller.services.capacities import Capacities
from st_controller.services.live_queue import News
from st_controller.services.slot_prices import SlotPrices
from st_shared.protocol.states import WorkerDesired

PARTS = 3


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr(capacities, "_LEAST", 1)


@pytest.fixture
def seen():
    return Capacities(SlotPrices())


def looks(steps, seen, count=PARTS):
    """Ids of workers with other slots, and of those that take no jobs any more."""
    changed, gone = [], set()
    for _ in range(count):
        with steps.db.read() as session:
            found = seen.look_on(session, PARTS)
        changed += [each.id for each in found.changed]
        gone |= found.gone
    return changed, gone


def test_all_are_seen_part_by_part_and_what_has_not_changed_is_not_told(steps, seen):
    ids = sorted(steps.join(f"w{number}") for number in range(7))
    with steps.db.read() as session:
        seen.look(session)
    assert looks(steps, seen, PARTS + 1) == ([], set())
    steps.order(ids[0], WorkerDesired.CORDONED)
    steps.order(ids[6], WorkerDesired.CORDONED)
    assert looks(steps, seen, PARTS + 1) == ([], {ids[0], ids[6]})
    steps.order(ids[6], WorkerDesired.ACTIVE)
    assert looks(steps, seen, PARTS + 1) == ([ids[6]], set())


def test_a_part_ends_what_was_there_and_begins_anew_after_the_last(steps, seen):
    ids = sorted(steps.join(f"w{number}") for number in range(3))
    assert [looks(steps, seen, 1)[0] for _ in range(3)] == [[each] for each in ids]
    for each in ids:
        steps.order(each, WorkerDesired.CORDONED)
    assert looks(steps, seen, 2) == ([], set(ids))
    assert looks(steps, seen, 1) == ([], set())


def test_a_worker_of_which_nobody_told_is_found_within_the_parts_of_a_round(steps):
    steps.submit()
    steps.place()
    steps.join()
    assert sum(steps.rounds.place(steps.lead, News(some_workers=True)) for _ in range(2)) == 1


def test_slots_that_cost_less_than_the_dearest_of_a_worker_have_their_own_prices(steps):
    worker_id = steps.join(own={"provider": "cloud-a"})
    with steps.db.write() as tx:
        worker = workers.get_worker(tx.session, worker_id, lock=True)
        names = ("NVIDIA T4", "NVIDIA H100", "NVIDIA L4", "NVIDIA H100")
        slots = [
            {"index": index, "accelerator": name, "memory_gb": 16.0}
            for index, name in enumerate(names)
        ]
        worker.inventory = worker.inventory | {"slots": slots}
    prices = SlotPrices({"*h100*": 10.0, "cloud-b/*": 9.0, "cloud-a/*t4*": 0.5})
    with steps.db.read() as session:
        (found,) = Capacities(prices).look(session).changed

    assert found.price_of(range(4)) == 0.5 + 10.0 + 1.0 + 10.0
    assert found.price == 10.0
