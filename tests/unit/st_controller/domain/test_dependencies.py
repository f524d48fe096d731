from itertools import pairwise
from random import Random

import pytest

from st_controller.domain.dependencies import (
    Cycle,
    Parent,
    in_order,
    why_cancelled,
    why_waiting,
)
from st_shared.protocol.states import JobState

DONE = Parent("job_a", "a", JobState.SUCCEEDED)
RUNS = Parent("job_b", "b", JobState.RUNNING)
WAITS = Parent("job_c", "c", JobState.QUEUED)


def test_nothing_holds_back_what_has_no_open_parent():
    assert why_waiting([]) is None
    assert why_waiting([DONE]) is None


def test_the_reason_names_the_first_open_parent_and_counts_the_rest():
    reason = why_waiting([DONE, RUNS, WAITS])
    assert (reason.code, reason.message) == (
        "dependency",
        "Waits until b (job_b) and 1 more succeeded.",
    )


@pytest.mark.parametrize("end", [JobState.FAILED, JobState.CANCELLED, JobState.REJECTED])
def test_a_parent_that_is_lost_comes_first_with_what_to_do(end):
    lost = Parent("job_z", "z", end)
    reason = why_waiting([RUNS, lost])
    assert reason.code == why_cancelled(lost).code == "parent_failed"
    for told in (reason, why_cancelled(lost)):
        assert "z (job_z)" in told.message
        assert end.value in told.message
        assert "st retry job_z" in told.hint


def test_parents_come_first_and_otherwise_the_lowest():
    assert in_order({0: [], 1: [], 2: []}) == [0, 1, 2]
    assert in_order({0: [2], 1: [], 2: [1]}) == [1, 2, 0]


def test_a_cycle_is_named_from_its_beginning_to_its_beginning():
    with pytest.raises(Cycle) as found:
        in_order({0: [], 1: [2, 0], 2: [3], 3: [1]})
    path = found.value.path
    assert path[0] == path[-1]
    assert sorted(path[:-1]) == [1, 2, 3]
    waits_for = {1: [2, 0], 2: [3], 3: [1]}
    assert all(after in waits_for[before] for before, after in pairwise(path))


def test_a_long_chain_is_no_matter_of_depth():
    chain = {number: [number + 1] for number in range(5000)} | {5000: []}
    assert in_order(chain) == list(range(5000, -1, -1))


@pytest.mark.parametrize("seed", range(50))
def test_every_random_graph_is_either_ordered_or_has_a_true_cycle(seed):
    random = Random(seed)
    size = random.randint(1, 12)
    graph = {
        node: random.sample(range(size), random.randint(0, min(2, size))) for node in range(size)
    }
    try:
        order = in_order(graph)
    except Cycle as cycle:
        path = cycle.path
    else:
        places = {node: place for place, node in enumerate(order)}
        assert sorted(order) == list(range(size))
        assert all(places[up] < places[node] for node, above in graph.items() for up in above)
        return
    assert path[0] == path[-1]
    assert all(parent in graph[child] for child, parent in pairwise(path))
