"""What a strategy cannot do is refused by name, before anything is trained."""

import sys
from typing import ClassVar

import pytest
import torch
from torch import nn

from st_shared.spec.distributed import DistributedSpec
from st_trainer.errors import BadSpecError
from st_trainer.families.family import Denoiser
from st_trainer.ranks import join
from st_trainer.strategies.context_parallel import share_tokens
from st_trainer.strategies.strategy import Answering
from st_trainer.strategies.zero import configuration, load_deepspeed
from st_trainer.weights import open_denoiser


def test_other_processes_than_were_asked_for_are_refused():
    with pytest.raises(BadSpecError, match="processes: 2 are asked for, but 1 were started"):
        join(DistributedSpec(processes=2))


def test_processes_that_cannot_be_dealt_over_samples_are_refused():
    with pytest.raises(BadSpecError, match="context_parallel: 2 does not divide the 1 processes"):
        join(DistributedSpec(context_parallel=2))


def test_deepspeed_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("DS_SKIP_CUDA_CHECK", "1")
    with pytest.raises(BadSpecError, match=r"pip install 'st-fleet\[deepspeed\]'"):
        load_deepspeed()


def test_deepspeed_is_told_what_the_specification_says(tiny_spec):
    asked = {"strategy": "deepspeed", "zero_stage": 3, "offload_optimizer": "cpu"}
    asked["options"] = {"overlap_comm": False}
    told = configuration(tiny_spec(batch_size=3, distributed=asked))
    assert told["train_micro_batch_size_per_gpu"] == 3
    assert told["gradient_clipping"] == 1.0
    zero = told["zero_optimization"]
    assert (zero["stage"], zero["overlap_comm"]) == (3, False)
    assert zero["offload_optimizer"]["device"] == "cpu"
    assert "offload_param" not in zero


def test_tokens_are_shared_only_where_the_model_has_a_plan(tiny_spec):
    denoiser = open_denoiser(tiny_spec(), lambda: ["shade"])
    with pytest.raises(BadSpecError, match="no plan for PixelDit"):
        share_tokens(denoiser, DistributedSpec(context_parallel=2), 2)


class Planned(nn.Module):
    """A model with a plan and three heads; as much of one as is looked at."""

    _cp_plan: ClassVar = {"": {}}

    class config:  # noqa: N801
        num_attention_heads = 3


def test_ring_is_refused_without_a_gpu_and_heads_that_cannot_be_dealt(monkeypatch):
    denoiser = Denoiser(None, None, {}, Planned())
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    ring = DistributedSpec(context_parallel=2, context_parallel_kind="ring")
    with pytest.raises(BadSpecError, match="on GPUs alone: use ulysses"):
        share_tokens(denoiser, ring, 2)
    with pytest.raises(BadSpecError, match="3 heads over 2 processes"):
        share_tokens(denoiser, DistributedSpec(context_parallel=2), 2)


def test_tokens_that_cannot_be_shared_are_a_mistake_in_the_specification():
    class Uneven:
        module, dtype = nn.Linear(1, 1), torch.float32

        def predict(self, *_):
            raise AssertionError("Tensor size ... must be divisible by mesh size")

    with pytest.raises(BadSpecError, match="change their sizes"):
        Answering(Uneven())(torch.ones(1), torch.ones(1), {})
