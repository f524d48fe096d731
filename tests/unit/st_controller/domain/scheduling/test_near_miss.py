import pytest

from st_controller.domain.scheduling.hosts import Group, Host
from st_controller.domain.scheduling.model import Shape, SlotKind, WorkerCapacity
from st_controller.domain.scheduling.near_miss import near_miss


def worker(id, count, accelerator, memory, labels=None, provider="static"):
    kind = SlotKind(accelerator, memory)
    return WorkerCapacity(id, dict.fromkeys(range(count), kind), labels or {}, provider)


FLEET = [
    worker("w1", 4, "a100-80gb", 80, {"region": "eu-west"}),
    worker("w2", 2, "cpu", 8, {"region": "us-east"}, "ec2"),
]
TWINS = [
    WorkerCapacity(
        name, {0: SlotKind("h100", memory), 1: SlotKind(name, 16)}, {"twin": name}, "static"
    )
    for name, memory in (("t4", 79.6), ("l4", 79.2))
]


@pytest.mark.parametrize(
    "shape",
    [
        Shape(),
        Shape(slots=4, accelerator="h100*|A100*", min_memory_gb=80),
        Shape(labels=(("region", "eu-*"),)),
        Shape(nodes=2, labels=(("twin", "*"),), accelerator="h*"),
        Shape(provider="ec2"),
    ],
)
def test_what_a_worker_could_run_when_empty_is_no_miss(shape):
    assert near_miss(shape, FLEET + TWINS) is None


@pytest.mark.parametrize(
    ("shape", "near"),
    [
        (Shape(accelerator="h100*"), "no accelerator is like 'h100*'; there are: a100-80gb, cpu"),
        (Shape(slots=8), "no worker has 8 slots; the largest has 4"),
        (Shape(min_memory_gb=96), "no slot has 96 GiB; the most is 80 GiB"),
        (Shape(labels=(("region", "ap-*"),)), "like 'ap-*'; there are: eu-west, us-east"),
        (Shape(labels=(("rack", "*"),)), "no label rack is like '*'; no worker has this label"),
        (Shape(provider="gcp"), "no provider is like 'gcp'; there are: ec2, static"),
        (Shape(slots=4, accelerator="cpu"), "the best fitting worker has 2 such slots"),
        (Shape(accelerator="cpu", min_memory_gb=80), "exists, but not on one worker"),
        (
            Shape(nodes=2, slots=4),
            "2 workers are asked for, and 1 could each run a part.",
        ),
        (
            Shape(nodes=2),
            "and 2 could each run a part, 1 at most with equal accelerators",
        ),
    ],
)
def test_a_miss_says_what_is_near(shape, near):
    reason = near_miss(shape, FLEET)
    assert reason.code == "unsatisfiable"
    assert near in reason.message
    assert reason.hint


def test_instances_of_a_gpu_that_is_cut_up_do_not_work_as_one():
    cut_up = [SlotKind.told({"accelerator": "H100 MIG 1g.10gb", "memory_gb": 10, "uuid": "MIG-1"})]
    whole = [SlotKind.told({"accelerator": "h100", "memory_gb": 80, "uuid": "GPU-1"})]
    fleet = [WorkerCapacity("w", dict(enumerate(cut_up * 7 + whole * 2)))]
    assert near_miss(Shape(accelerator="*mig*"), fleet) is None
    assert near_miss(Shape(slots=2), fleet) is None  # the two whole ones
    assert "(MIG) cannot work as one" in near_miss(Shape(slots=3), fleet).message
    (host,) = hosts(fleet, Shape(slots=2))
    assert host.choose(0, 2) == (7, 8)


def hosts(fleet, shape):
    for worker in fleet:
        kinds = tuple(sorted(set(worker.slots.values()), key=str))
        group = Group(None, 0, kinds, (0,) * len(kinds), {}, "static", 1.0)
        group.learn(shape)
        yield Host.of(worker, group)


def test_every_demand_that_nobody_meets_is_named():
    reason = near_miss(Shape(slots=9, accelerator="tpu"), FLEET)
    assert "accelerator" in reason.message
    assert "9 slots" in reason.message


def test_an_empty_fleet_says_how_to_begin():
    reason = near_miss(Shape(), [])
    assert reason.code == "unsatisfiable"
    assert "st-worker join" in reason.hint


def test_long_lists_are_cut():
    fleet = [worker(f"w{number}", 1, f"gpu{number:02}", 1) for number in range(20)]
    assert "gpu07 and 12 more" in near_miss(Shape(accelerator="x"), fleet).message
