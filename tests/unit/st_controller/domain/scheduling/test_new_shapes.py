"""A request of a new shape: what is known of a fleet is the same as if it had always been known."""

from random import Random

from st_controller.domain.scheduling.fleet import Fleet
from st_controller.domain.scheduling.model import Shape, SlotKind, WorkerCapacity

KINDS = [SlotKind("cpu", 16.0), SlotKind("NVIDIA A100", 80.0), SlotKind("NVIDIA H100", 80.0)]


def shape(random: Random) -> Shape:
    return Shape(
        slots=random.choice((1, 2, 4)),
        accelerator=random.choice(("*", "cpu", "NVIDIA *", "NVIDIA H100", "none")),
        nodes=random.choice((1, 1, 2)),
        labels=random.choice(((), (("rack", "1"),), (("rack", "?"),), (("zone", "b"),))),
        limit=random.choice((3600.0, 7200.0)),
        content_gb=random.choice((0.0, 0.0, 10.0, 80.0)),
    )


def worker(random: Random, number: int) -> WorkerCapacity:
    kind, size = random.choice(KINDS), random.choice((1, 2, 4))
    labels = {"rack": random.choice("12"), "zone": random.choice("ab")}
    room = random.choice((5.0, 20.0, 100.0, float("inf")))
    slots = dict.fromkeys(range(size), kind)
    return WorkerCapacity(f"w{number}", slots, labels, content_room_gb=room)


def known(fleet: Fleet) -> tuple:
    count = len(fleet.shapes.known)
    rivals = [fleet.reach.rivals(number) for number in range(count)]
    slots = [fleet.reach.slots_for(number) for number in range(count)]
    return fleet.openings.mask, fleet.reach.satisfiable, rivals, slots


def test_shapes_that_come_one_by_one_leave_what_they_would_leave_together():
    for seed in range(60):
        random = Random(seed)
        shapes = [shape(random) for _ in range(12)]
        workers = [worker(random, number) for number in range(random.randint(0, 6))]
        grown, fresh = Fleet(), Fleet()
        for each in workers:
            grown.put(each)
        for each in shapes:
            grown.number(each)
            known(grown)  # so that everything is remembered when the next one comes
        for each in shapes:
            fresh.number(each)
        for each in workers:
            fresh.put(each)
        assert known(grown) == known(fresh), seed
