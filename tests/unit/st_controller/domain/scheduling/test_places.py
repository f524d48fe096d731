"""Where jobs are placed."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from queue_steps import Queue

from st_controller.domain.scheduling.model import Grant, RunningJob, SlotKind, WorkerCapacity


def test_slot_count_memory_accelerator_labels_and_provider_are_matched() -> None:
    queue = Queue()
    queue.worker("few", 1, "NVIDIA A100", 80, region="eu-west", provider="ec2")
    queue.worker("small", 2, "NVIDIA A100", 40, region="eu-west", provider="ec2")
    queue.worker("other", 2, "NVIDIA L4", 80, region="eu-west", provider="ec2")
    queue.worker("far", 2, "NVIDIA A100", 80, region="us-east", provider="ec2")
    queue.worker("own", 2, "NVIDIA A100", 80, region="eu-west")
    queue.worker("right", 2, "NVIDIA A100", 80, region="eu-west", provider="ec2")
    queue.submit(
        "job",
        slots=2,
        accelerator="*h100*|*a100*",
        min_memory_gb=64.0,
        labels=(("region", "eu-*"),),
        provider="ec?",
    )

    assert queue.where() == {"job": [("right", (0, 1))]}


def test_the_tightest_worker_is_taken() -> None:
    queue = Queue()
    queue.worker("wide", 8)
    queue.worker("tight", 1)
    queue.submit("job")

    assert queue.where() == {"job": [("tight", (0,))]}


def test_among_equals_the_one_that_holds_the_dataset_then_the_cheapest() -> None:
    queue = Queue()
    queue.worker("dear", 2, price=3.0)
    queue.worker("cheap", 2, price=1.0)
    queue.worker("holder", 2, price=9.0, holds=("sha",))
    queue.submit("wants it", slots=2, wants=("sha",))
    queue.submit("does not", slots=2)

    assert queue.where() == {"wants it": [("holder", (0, 1))], "does not": [("cheap", (0, 1))]}


def test_a_tight_fit_goes_before_content_and_price() -> None:
    queue = Queue()
    queue.worker("holder", 8, price=0.1, holds=("sha",))
    queue.worker("tight", 1, price=9.0)
    queue.submit("job", wants=("sha",))

    assert queue.where() == {"job": [("tight", (0,))]}


def test_slots_with_little_memory_are_taken_first_on_a_mixed_worker() -> None:
    queue = Queue()
    large, small = SlotKind("NVIDIA A100", 80), SlotKind("NVIDIA A100", 40)
    queue.scheduler.put_worker(WorkerCapacity("mixed", {0: large, 1: small, 2: large}), queue.now)
    queue.submit("any", slots=2, accelerator="*a100*")

    assert queue.where() == {"any": [("mixed", (1, 0))]}


def test_what_fits_nowhere_does_not_block_the_rest() -> None:
    queue = Queue()
    queue.worker("w", 2)
    queue.submit("large", slots=8)
    queue.submit("small")

    assert queue.placed() == ["small"]


def test_a_worker_that_joins_takes_what_waited() -> None:
    queue = Queue()
    queue.submit("job", accelerator="*h100*")
    assert queue.placed() == []
    queue.worker("w", 1, "NVIDIA H100")
    assert queue.placed() == ["job"]


def test_a_label_that_was_never_asked_for_tells_workers_apart_once_it_is() -> None:
    queue = Queue()
    for number in range(3):
        queue.worker(f"w{number}", rack=f"r{number}")
    queue.submit("first")
    assert len(queue.placed()) == 1
    queue.submit("there", labels=(("rack", "r2"),))

    assert queue.where() == {"there": [("w2", (0,))]}


def test_a_worker_that_takes_no_more_jobs_keeps_those_it_has() -> None:
    queue = Queue()
    queue.worker("w", 2)
    queue.submit("runs")
    assert queue.placed() == ["runs"]
    queue.scheduler.drop_worker("w", queue.now)
    queue.submit("waits")
    assert queue.placed() == []
    queue.worker("w", 2)
    assert queue.where() == {"waits": [("w", (1,))]}
    queue.finish("runs", "waits")
    assert queue.scheduler.fleet.get("w").vector == (2,)  # type: ignore[union-attr]


def test_a_gang_is_placed_whole_on_equal_workers_or_not_at_all() -> None:
    queue = Queue()
    queue.worker("a", 2, "NVIDIA A100")
    queue.worker("b", 2, "NVIDIA H100")
    queue.submit("gang", slots=2, nodes=2, accelerator="*100*")
    assert queue.placed() == []
    queue.worker("c", 2, "NVIDIA H100")

    assert queue.where() == {"gang": [("b", (0, 1)), ("c", (0, 1))]}


def test_whoever_holds_more_of_what_is_wanted_goes_first() -> None:
    queue = Queue()
    queue.worker("base", 2, price=1.0, holds=("base",))
    queue.worker("data", 2, price=1.0, holds=("data",))
    queue.worker("both", 2, price=9.0, holds=("base", "data"))
    queue.submit("a", slots=2, wants=("base", "data"))
    queue.submit("b", slots=2, wants=("base", "data"))
    queue.submit("c", slots=2, wants=("base", "data"))

    assert {name: grant[0] for name, (grant,) in queue.where().items()} == {
        "a": "both",
        "b": "base",
        "c": "data",
    }


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_gang_is_placed_by_the_rules_of_a_single_worker(nodes: int) -> None:
    """Best fit, then what is held, then price: whatever accelerators, and whoever came first."""
    for fields in ({"slots": 8}, {}, {"holds": ("data",), "price": 9.0}):
        queue = Queue()
        for number in range(nodes):
            queue.worker(f"dear {number}", 2, "NVIDIA H100", price=5.0)
        for number in range(nodes):
            queue.worker(f"other {number}", accelerator="NVIDIA A100", **{"slots": 2} | fields)
        queue.submit("job", slots=2, nodes=nodes, wants=("data",))
        chosen = "dear" if "slots" in fields else "other"

        assert [name for name, _ in queue.where()["job"]] == [f"{chosen} {n}" for n in range(nodes)]


def test_members_of_a_gang_are_the_tightest_of_equal_accelerators() -> None:
    queue = Queue()
    for name, slots in (("wide", 8), ("tight 0", 2), ("less tight", 3), ("tight 1", 2)):
        queue.worker(name, slots, price=float(9 - slots))
    queue.submit("gang", nodes=2, slots=2)

    assert [name for name, _ in queue.where()["gang"]] == ["tight 0", "tight 1"]


def test_members_of_a_gang_are_those_that_hold_what_it_wants() -> None:
    queue = Queue()
    for number in range(6):
        queue.worker(f"w{number}", 2, holds=("data",) if number in {2, 5} else (), price=number)
    queue.worker("tight", 1, holds=("data",))
    queue.submit("gang", nodes=3, slots=2, wants=("data",))

    assert [name for name, _ in queue.where()["gang"]] == ["w2", "w5", "w0"]


def test_workers_of_a_gang_are_equal_in_what_it_may_use() -> None:
    """What else a worker has is of no account, nor what its driver keeps of the memory."""
    queue = Queue()
    for name, memory, other in (("a", 79.65, "NVIDIA T4"), ("b", 79.19, "cpu")):
        kinds = SlotKind("NVIDIA H100", memory), SlotKind(other, 16)
        queue.scheduler.put_worker(WorkerCapacity(name, dict(enumerate(kinds))), queue.now)
    queue.submit("anything", nodes=2)
    assert queue.placed() == []
    queue.submit("gang", nodes=2, accelerator="*h100*", min_memory_gb=70.0)

    assert queue.where() == {"gang": [("a", (0,)), ("b", (0,))]}


def test_a_worker_that_makes_a_gang_possible_counts_though_nothing_is_free_there() -> None:
    queue = Queue()
    queue.worker("a", 2)
    runs = queue.submit("runs", slots=2)
    assert queue.placed() == ["runs"]
    queue.submit("gang", nodes=2, slots=2)
    assert queue.placed() == []
    too = replace(runs, id="runs too")
    queue.scheduler.adopt(RunningJob(too, (Grant("b", (0, 1)),), queue.now), queue.now)
    queue.worker("b", 2)
    assert queue.placed() == []

    assert "gang" in queue.scheduler.reservations


@given(
    needs=st.lists(st.integers(1, 4), max_size=20),
    capacities=st.lists(st.integers(1, 8), max_size=6),
)
def test_no_slot_is_given_twice_and_nothing_that_fits_is_left(
    needs: list[int], capacities: list[int]
) -> None:
    queue = Queue()
    for place, count in enumerate(capacities):
        queue.worker(f"w{place}", count)
    for place, need in enumerate(needs):
        queue.submit(f"j{place}", slots=need)

    found = queue.where()

    taken = [
        (worker, slot) for grants in found.values() for worker, slots in grants for slot in slots
    ]
    assert len(taken) == len(set(taken))
    left = {
        f"w{place}": count - sum(worker == f"w{place}" for worker, _ in taken)
        for place, count in enumerate(capacities)
    }
    kept = {host.id for r in queue.scheduler.reservations for host in r.hosts}
    room = max((count for worker, count in left.items() if worker not in kept), default=0)
    waiting = [need for place, need in enumerate(needs) if f"j{place}" not in found]
    assert all(need > room for need in waiting)


def test_slots_of_all_workers_that_could_run_a_shape_are_counted_as_they_come_and_go() -> None:
    queue = Queue()
    job = queue.submit("job", slots=2, accelerator="a100")
    fleet = queue.scheduler.fleet
    number = fleet.number(job.shape)
    counted = []
    for name, slots in (("a", 2), ("b", 2), ("c", 4), ("d", 1)):
        queue.worker(name, slots, "a100")
        counted.append(fleet.reach.slots_for(number))
    queue.scheduler.drop_worker("b", queue.now)

    assert [*counted, fleet.reach.slots_for(number)] == [2, 4, 8, 8, 6]


def test_other_slots_of_a_worker_are_given_once_somebody_else_uses_those() -> None:
    """As many as before, so that nothing else about the worker has changed."""
    queue = Queue()
    queue.worker("w", 3, busy={0: "a process"})
    queue.worker("w", 3, busy={2: "a process"})
    queue.submit("job", slots=2)

    assert queue.where() == {"job": [("w", (0, 1))]}


def test_what_runs_on_a_worker_outlasts_slots_that_come_and_go() -> None:
    queue = Queue()
    queue.worker("w", 4)
    queue.submit("runs", slots=2)
    assert queue.where() == {"runs": [("w", (0, 1))]}
    queue.worker("w", 4, busy={1: "a process"})
    queue.submit("beside", slots=2)
    assert queue.where() == {"beside": [("w", (2, 3))]}
    queue.finish("runs")
    queue.submit("next")
    assert queue.where() == {"next": [("w", (0,))]}
    queue.worker("w", 6)
    queue.submit("last", slots=3)
    assert queue.where() == {"last": [("w", (1, 4, 5))]}
