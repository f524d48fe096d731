"""What is remembered of who could be served is what a look at everybody would find."""

from dataclasses import replace
from random import Random

import pytest
from queue_steps import Queue

from st_controller.domain.scheduling.model import Level


def found(queue: Queue, mask: int, *, afresh: bool) -> object:
    """The line to be served next, with what is remembered or without."""
    tenants = queue.scheduler.tenants
    if afresh:
        for node in tenants.nodes():
            node.due = node.startable = None
    picked = tenants.turns.pick(mask)
    return picked and (picked[0].turn, picked[1])


@pytest.mark.parametrize("seed", range(20))
def test_a_pick_is_the_same_with_and_without_what_is_remembered(seed: int) -> None:
    random, queue = Random(seed), Queue(ageing_interval=300.0)
    users = [f"o{n % 2}/t{n % 3}/u{n}" for n in range(9)]
    for number in range(4):
        queue.worker(f"w{number}", 4)
    for step in range(120):
        queue.pass_time(random.uniform(0.0, 20.0))
        running = list(queue.scheduler.running())
        action = random.randrange(5)
        if action < 2:
            queue.submit(
                f"job {step}",
                random.choice(users),
                random.choice(list(Level)[:5]),
                slots=random.choice((1, 2, 4)),
            )
        elif action == 2 and running:
            queue.finish(random.choice(running))
        elif action == 3:
            path = random.choice(users)
            queue.share(path, random.uniform(1, 3), max_jobs=random.randint(0, 3))
            above = path.rsplit("/", random.randint(1, 2))[0]
            queue.share(above, random.uniform(1, 3), max_slots=random.randint(0, 9))
        queue.decide()
        for _ in range(4):
            mask = random.getrandbits(len(queue.scheduler.fleet.shapes.known))
            remembered = found(queue, mask, afresh=False)
            assert remembered == found(queue, mask, afresh=True)


def test_more_shapes_than_a_mask_had_room_for_change_nothing() -> None:
    queue = Queue()
    queue.worker("w", 2)
    names = [f"job {number:03}" for number in range(150)]
    for number, name in enumerate(names):  # each of a shape of its own, more than two widenings
        queue.submit(name, f"o/t/u{number % 3}", limit=60.0 + number)
    queue.share("o/t/u1", max_jobs=1)
    started = []
    while placed := queue.placed():
        started += placed
        queue.pass_time(60.0)
        for name in placed:
            queue.finish(name)
    assert sorted(started) == names


def test_of_jobs_that_came_at_the_same_moment_the_lesser_id_goes_first() -> None:
    for names in (("a", "b", "c"), ("c", "b", "a"), ("b", "c", "a")):
        queue = Queue()
        queue.worker(slots=1)
        for place, name in enumerate(names):
            job = queue.submit(name, limit=3600.0 * (1 + place))
            queue.scheduler.enqueue(replace(job, submitted=queue.now), queue.now)
        order = []
        for _ in names:
            order += queue.placed()
            queue.finish(order[-1])

        assert order == ["a", "b", "c"]


def test_somebody_new_in_a_team_over_its_share_starts_where_there_is_room() -> None:
    queue = Queue()
    queue.worker("cpu", 2)
    queue.worker("gpu", 1, "gpu")
    queue.submit("waits for what nobody has", "o/u/pat", accelerator="tpu")
    for number in range(9):
        queue.submit(f"{number}", "o/t/ben", accelerator="cpu")
    assert len(queue.placed()) == 2
    queue.finish("0", "1", after=600)
    assert len(queue.placed()) == 2
    assert not queue.scheduler.tenants.node("o/t", queue.now).is_within_share
    queue.submit("new", "o/t/ann", accelerator="gpu")

    assert queue.placed() == ["new"]
