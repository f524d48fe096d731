"""What each of several processes holds: by hand, and by what torch makes of it."""

from math import prod

import pytest
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from st_shared.spec import TrainingSpec
from st_trainer.planning.exchange import of_step
from st_trainer.planning.imagined import group_of
from st_trainer.planning.sharing import Weight, borders, held
from st_trainer.planning.trace import Trace

FROZEN = Weight((10, 6), 2, is_trained=False, unit=0)
LEARNED = Weight((5, 3), 4, is_trained=True, unit=0)
REST = Weight((7,), 4, is_trained=True)
WEIGHTS = [FROZEN, LEARNED, REST]
CARRIED = 11
LEARNS = 15 + 7
"""Numbers that are trained."""


def spec_of(precision="fp32", accumulation=1, optimizer=None, ema=None, **distributed_):
    return TrainingSpec.model_validate(
        {
            "model": {"family": "sd1", "base": "b"},
            "datasets": [{"path": "x"}],
            "precision": precision,
            "accumulation": accumulation,
            "optimizer": optimizer or {"name": "adamw"},
            "ema": ema or {},
            "distributed": distributed_,
        }
    )


def test_ddp_replicates_all_and_keeps_buckets_of_gradients():
    alone, two = (held(spec_of(), WEIGHTS, CARRIED, count) for count in (1, 2))
    whole = 4 * LEARNS
    assert (two.adapter, two.gradients, two.average) == (whole, whole, whole)
    assert (two.optimizer, two.buffers) == (2 * whole, whole)
    assert alone.buffers == 0


def test_fsdp2_leaves_rows_that_are_filled_up_but_states_of_those_that_are_there():
    ranks = [held(spec_of(strategy="fsdp2"), WEIGHTS, CARRIED, 3, rank) for rank in range(3)]
    rows = (2 * 3 + 3) * 4  # of 5 rows 2, of 7 numbers 3
    assert {each.base for each in ranks} == {4 * 6 * 2 + CARRIED}
    assert {(each.adapter, each.gradients) for each in ranks} == {(rows, rows)}
    assert [each.average for each in ranks] == [rows, rows, (1 * 3 + 1) * 4]
    assert [each.optimizer for each in ranks] == [2 * each.average for each in ranks]
    assert borders([LEARNED, REST], 3) == [0, 2]


@pytest.mark.parametrize(("rows", "processes"), [(5, 2), (7, 4), (2, 4), (12, 4), (9, 6)])
@pytest.mark.parametrize("rank", [0, 1])
def test_torch_cuts_weights_as_foretold(rows, processes, rank):
    module = nn.Linear(3, rows)
    whole = [Weight(tuple(each.shape), 4, is_trained=True) for each in module.parameters()]
    with group_of(processes, rank):
        fully_shard(module, mesh=init_device_mesh("cpu", (processes,)))
        found = [each.to_local() for each in module.parameters() if isinstance(each, DTensor)]
        stored = [each.untyped_storage().nbytes() for each in found]
    assert [tuple(each.shape) for each in found] == [each.rows(processes, rank) for each in whole]
    assert stored == [4 * prod(each.rows(processes)) for each in whole]


def test_what_fsdp2_gathers_lies_beside_the_parts():
    block, rest = 60 * 2 + 15 * 4, 7 * 4
    gradients = 15 * (4 + 4)
    spec = spec_of(strategy="fsdp2")
    assert held(spec, WEIGHTS, 0, 2).buffers == rest + 2 * block + gradients
    more = [*WEIGHTS, Weight((10, 6), 2, is_trained=False, unit=1)]
    kept = spec_of(strategy="fsdp2", reshard_after_forward=False)
    assert held(spec, more, 0, 2).buffers == rest + 2 * block + gradients
    assert held(kept, more, 0, 2).buffers == rest + block + 60 * 2 + block + gradients
    half = spec_of("bf16", strategy="fsdp2")
    assert held(half, WEIGHTS, 0, 2).buffers == 14 + 2 * 75 * 2 + 15 * (2 + 4)


def test_gradients_are_whole_until_those_of_the_last_batch_are_there():
    once, twice = (
        held(spec_of(accumulation=count, strategy="fsdp2"), WEIGHTS, 0, 2) for count in (1, 2)
    )
    assert twice.gradients == once.gradients + 4 * LEARNS


@pytest.mark.parametrize("stage", [1, 2])
def test_zero_spreads_masters_states_and_from_stage_2_on_gradients(stage):
    spec = spec_of(strategy="deepspeed", zero_stage=stage, options={"reduce_bucket_size": 100})
    found = held(spec, WEIGHTS, CARRIED, 4)
    part = 6 * 4  # 22 numbers in four parts of an even length
    assert found.base == FROZEN.size + CARRIED
    assert (found.adapter, found.optimizer, found.average) == (4 * part, 3 * part, part)
    assert found.gradients == (4 * LEARNS if stage == 1 else part)
    assert (found.buffers, found.start, found.host) == (400, 0, 0)


def test_zero_3_spreads_all_and_gathers_what_is_used_soon():
    options = {"reduce_bucket_size": 100, "stage3_param_persistence_threshold": 15}
    options |= {"stage3_max_reuse_distance": 20, "stage3_prefetch_bucket_size": 5}
    spec = spec_of(strategy="deepspeed", zero_stage=3, options=options)
    large = [*WEIGHTS, Weight((100,), 2, is_trained=False)]
    found = held(spec, large, CARRIED, 4)
    part = (4 + 2) * 4
    assert found.base == (15 + 25) * 2 + CARRIED
    assert (found.adapter, found.gradients, found.average) == (part, part, part)
    assert found.optimizer == 2 * part
    small, soon = 4 * LEARNS, 10 + 5 + 100  # of 160 numbers, 320 bytes
    assert found.buffers == 400 + small + 320 * soon // 160
    assert found.start == sum(each.size for each in large) + CARRIED


CPU = {"offload_parameters": "cpu"}


@pytest.mark.parametrize(
    "asked",
    [
        {"strategy": "fsdp2", **CPU},
        {"strategy": "deepspeed", "zero_stage": 2, "offload_optimizer": "cpu"},
        {"strategy": "deepspeed", "zero_stage": 3, "offload_optimizer": "cpu"},
        {"strategy": "deepspeed", "zero_stage": 3, "offload_optimizer": "cpu", **CPU},
    ],
    ids=["fsdp2", "zero 2", "zero 3", "zero 3 and weights"],
)
def test_what_is_offloaded_lies_on_the_host(asked):
    there = {key: each for key, each in asked.items() if not key.startswith("offload")}
    stays, goes = (held(spec_of(**each), WEIGHTS, CARRIED, 2) for each in (there, asked))
    weights = stays.base + stays.adapter - CARRIED
    part = stays.average
    expected = {
        "fsdp2": weights + stays.gradients + stays.optimizer + part,
        "zero 2": stays.optimizer + part + 2 * part + 15 * 4,
        "zero 3": stays.optimizer + part + 3 * part,
        "zero 3 and weights": weights + stays.optimizer + part + 3 * part,
    }
    name = {"fsdp2": "fsdp2"}.get(asked["strategy"], f"zero {asked.get('zero_stage')}")
    name += " and weights" if name == "zero 3" and "offload_parameters" in asked else ""
    assert goes.host == expected[name]
    assert (goes.optimizer, goes.average, goes.gradients) == (0, 0, 0)
    offloads_weights = "offload_parameters" in asked
    assert goes.base == (CARRIED if offloads_weights else stays.base)
    assert goes.adapter == (0 if offloads_weights else stays.adapter)


def test_an_average_that_is_kept_by_the_host_is_counted_there():
    spec = spec_of(ema={"device": "cpu"}, strategy="fsdp2")
    found = held(spec, WEIGHTS, 0, 2)
    assert (found.average, found.host) == (0, (9 + 4) * 4)
    assert held(spec_of(ema={"enabled": False}), WEIGHTS, 0, 2).average == 0


@pytest.mark.parametrize(
    ("asked", "sent", "moved"),
    [
        ({}, 2 * 88, 0),
        ({"strategy": "fsdp2"}, 2 * 208 + 88, 0),
        ({"strategy": "fsdp2", "reshard_after_forward": False}, 208 + 88, 0),
        ({"strategy": "fsdp2", **CPU}, 2 * 208 + 88, 2 * 52 + 22),
        ({"strategy": "deepspeed", "zero_stage": 1}, 2 * 88, 0),
        ({"strategy": "deepspeed", "offload_optimizer": "cpu"}, 2 * 88, 2 * 22),
        ({"strategy": "deepspeed", "zero_stage": 3}, 2 * 208 + 88, 0),
    ],
)
def test_bytes_that_a_step_sends(asked, sent, moved):
    """208 bytes of weights, of which 88 are trained, in a ring of four."""
    found = of_step(spec_of(**asked), WEIGHTS, 4)
    assert (found.exchanged, found.transferred) == (sent * 3 // 4, moved)
    assert of_step(spec_of(**asked), WEIGHTS, 1).exchanged == 0


def test_bytes_that_tokens_send_are_counted():
    ops = torch.ops._c10d_functional
    with group_of(4), Trace() as trace:
        name = distributed.group.WORLD.group_name
        ops.wait_tensor(ops.all_to_all_single(torch.ones(8), [2] * 4, [2] * 4, name))
        assert trace.work.exchanged == 24
        ops.wait_tensor(ops.all_gather_into_tensor(torch.ones(8), 4, name))
        assert trace.work.exchanged == 24 + 96
        ops.wait_tensor(ops.reduce_scatter_tensor(torch.ones(8), "sum", 4, name))
        assert trace.work.exchanged == 24 + 96 + 24
