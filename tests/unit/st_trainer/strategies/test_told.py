"""What a strategy tells the libraries that carry it out, and which one it is."""

from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import CPUOffloadPolicy

from st_shared.spec.distributed import DistributedSpec
from st_trainer import ranks
from st_trainer.errors import BadSpecError
from st_trainer.families.family import Denoiser
from st_trainer.ranks import join, make_accelerator, threads_here
from st_trainer.strategies import context_parallel
from st_trainer.strategies.context_parallel import share_tokens
from st_trainer.strategies.fully_sharded import FullySharded
from st_trainer.strategies.registry import strategy_of
from st_trainer.strategies.replicated import Replicated
from st_trainer.strategies.zero import ZeroReplicated, ZeroSharded, configuration

FSDP2 = {"strategy": "fsdp2"}
DEEPSPEED = {"strategy": "deepspeed"}


@pytest.mark.parametrize(
    ("asked", "strategy"),
    [
        ({}, Replicated),
        (FSDP2, FullySharded),
        ({**DEEPSPEED, "zero_stage": 1}, ZeroReplicated),
        ({**DEEPSPEED, "zero_stage": 2}, ZeroReplicated),
        ({**DEEPSPEED, "zero_stage": 3}, ZeroSharded),
    ],
)
def test_each_name_is_its_strategy(asked, strategy):
    assert strategy_of(DistributedSpec(**asked)) is strategy


@pytest.mark.parametrize(
    ("precision", "told"), [("fp32", "no"), ("bf16", "bf16"), ("fp16", "fp16")]
)
def test_replicas_are_told_the_precision(tiny_spec, precision, told):
    assert Replicated.arguments(tiny_spec(precision=precision)) == {"mixed_precision": told}


def test_weights_that_are_spread_are_computed_with_in_bf16_and_added_up_in_fp32(tiny_spec):
    told = FullySharded.arguments(tiny_spec(precision="bf16", distributed=FSDP2))
    policy = told["fsdp_plugin"].mixed_precision_policy
    assert told["mixed_precision"] == "bf16"
    assert (policy.param_dtype, policy.reduce_dtype) == (torch.bfloat16, torch.float32)
    assert not policy.cast_forward_inputs  # times would be rounded


def test_weights_that_are_spread_are_given_back_unless_they_are_to_be_kept(tiny_spec):
    plain = FullySharded.arguments(tiny_spec(distributed=FSDP2))
    kept = FullySharded.arguments(tiny_spec(distributed={**FSDP2, "reshard_after_forward": False}))
    assert plain["mixed_precision"] == "no"
    assert plain["fsdp_plugin"].mixed_precision_policy.param_dtype is None
    assert plain["fsdp_plugin"].reshard_after_forward is True
    assert kept["fsdp_plugin"].reshard_after_forward is False


def test_weights_lie_on_the_host_between_uses_only_where_asked(tiny_spec):
    on_host = {**FSDP2, "offload_parameters": "cpu"}
    for asked, offloaded in ((FSDP2, False), (on_host, True)):
        plugin = FullySharded.arguments(tiny_spec(distributed=asked))["fsdp_plugin"]
        assert isinstance(plugin.cpu_offload, CPUOffloadPolicy) is offloaded


def test_deepspeed_counts_no_parts_and_clips_only_where_asked(tiny_spec):
    spec = tiny_spec(accumulation=4, distributed=DEEPSPEED, optimizer={"max_grad_norm": None})
    told = configuration(spec)
    assert told["gradient_accumulation_steps"] == 1  # the loop counts, and divides
    assert told["gradient_clipping"] == 0.0
    assert told["zero_optimization"] == {"stage": 2}


def test_deepspeed_offloads_weights_where_asked(tiny_spec):
    both = {"offload_parameters": "cpu", "offload_optimizer": "cpu"}
    asked = {**DEEPSPEED, "zero_stage": 3, **both}
    zero = configuration(tiny_spec(distributed=asked))["zero_optimization"]
    assert zero["offload_param"]["device"] == zero["offload_optimizer"]["device"] == "cpu"


class Sharing(nn.Module):
    """A model with a plan; as much of one as is told."""

    _cp_plan: ClassVar = {"": {}}
    config = SimpleNamespace(num_attention_heads=6)

    def enable_parallelism(self, *, config):
        self.told = config


@pytest.mark.parametrize(
    ("kind", "shape", "degrees"), [("ulysses", (3, 1, 2), (1, 2)), ("ring", (3, 2, 1), (2, 1))]
)
def test_neighbours_share_tokens_and_the_others_other_samples(monkeypatch, kind, shape, degrees):
    meshes, module = [], Sharing()
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: kind == "ring")
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 6)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: None)
    monkeypatch.setattr(
        context_parallel,
        "init_device_mesh",
        lambda device, shape, mesh_dim_names: meshes.append((device, shape, mesh_dim_names)),
    )
    monkeypatch.setattr(context_parallel, "class_named", lambda _: SimpleNamespace)
    asked = DistributedSpec(context_parallel=2, context_parallel_kind=kind)
    share_tokens(Denoiser(None, None, {}, module), asked, 6)
    assert meshes == [("cpu", shape, ("data", "ring", "ulysses"))]
    assert (module.told.ring_degree, module.told.ulysses_degree) == degrees
    assert torch.accelerator.device_count() == 6  # it was another for Diffusers alone


def test_processes_of_which_some_have_not_joined_are_refused(monkeypatch):
    """Each of both checks by itself: the other stands in the way of none."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(ranks, "PartialState", lambda **_: SimpleNamespace(num_processes=1))
    with pytest.raises(BadSpecError, match="2 processes were started, but 1 have joined"):
        join(DistributedSpec())


def test_an_accelerator_that_knows_fewer_processes_is_refused(monkeypatch, tiny_spec):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(ranks, "join", lambda _: None)
    monkeypatch.setattr(ranks, "Accelerator", lambda **_: SimpleNamespace(num_processes=1))
    with pytest.raises(BadSpecError, match="accelerate knows of 1 processes of 2"):
        make_accelerator(tiny_spec())


@pytest.mark.parametrize(
    ("here", "cores", "threads"), [(1, 8, 8), (4, 8, 2), (16, 8, 1), (1, 64, 16)]
)
def test_processes_of_a_machine_divide_its_cores(monkeypatch, here, cores, threads):
    monkeypatch.setattr(ranks.os, "cpu_count", lambda: cores)
    assert threads_here({"LOCAL_WORLD_SIZE": str(here)}) == threads
