"""What a run holds in memory: everything that a checkpoint keeps, and nothing else."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch
from torch import nn

from st_shared.spec.families import FAMILIES
from st_shared.spec.training import TrainingSpec
from st_shared.spec.validation import ValidationSpec
from st_trainer.adapters.adapter import trained
from st_trainer.adapters.registry import make_adapter
from st_trainer.caching.encodings import Encodings
from st_trainer.data.sampler import Cursor, ShuffledSampler
from st_trainer.data.samples import Samples
from st_trainer.execution.offloading import offloaded
from st_trainer.execution.prepare import prepared
from st_trainer.families.family import REFERENCE, Condition, Denoiser
from st_trainer.families.first_frame import FromPicture
from st_trainer.history import LossHistory
from st_trainer.optimizers.fused import FusedBackward
from st_trainer.optimizers.groups import parameter_groups
from st_trainer.optimizers.registry import make_optimizer, peak_rate
from st_trainer.ranks import Ranks, make_accelerator
from st_trainer.strategies.context_parallel import share_tokens
from st_trainer.strategies.registry import strategy_of
from st_trainer.techniques.registry import make_techniques


class Session:
    """Model, adapter, techniques, optimiser, random numbers, order of samples, steps done."""

    def __init__(
        self,
        spec: TrainingSpec,
        samples: Samples,
        denoiser: Denoiser,
        drawn: ValidationSpec | None = None,
        held_out: Samples | None = None,
        encodings: Encodings | None = None,
    ) -> None:
        self.spec = spec
        self.drawn = drawn or spec.validation
        """``spec.validation`` with the places of its pictures on this machine."""
        self.samples = samples
        self.held_out = held_out
        """Samples whose loss is measured, and that are never trained on."""
        self.step = 0
        self.accelerator = make_accelerator(spec)
        self.adapter = make_adapter(spec)
        denoiser = prepared(denoiser, self.adapter, spec, self.accelerator.device)
        self.techniques = make_techniques(spec)
        for technique in self.techniques:
            technique.attach(denoiser)
        groups = parameter_groups(trained(denoiser.module), spec)
        optimizer = make_optimizer(groups, spec.optimizer, peak_rate(spec))
        self.fused = FusedBackward(optimizer) if spec.optimizer.fused_backward else None
        self.ranks = Ranks(self.accelerator, spec.distributed.context_parallel)
        self.strategy = strategy_of(spec.distributed)(spec, self.accelerator)
        denoiser = replace(denoiser, objective_spec=spec.objective, listener=self.adapter.listener)
        if self.ranks.together > 1:
            share_tokens(denoiser, spec.distributed, self.ranks.count)
        ready = self.strategy.prepare(denoiser, self.fused or optimizer)
        self.denoiser, self.optimizer = ready.denoiser, ready.optimizer
        self.answer = ready.answer
        """What a step asks for the model's answer, so that gradients are those of all ranks."""
        self.offloading = offloaded(denoiser.module, spec.memory.offload, self.accelerator.device)
        self.encodings = encodings or Encodings(denoiser, spec.cache.at_once)
        """What samples and captions are encoded with, and what is remembered of that."""
        self.encodings.device = self.accelerator.device
        if not spec.adapter.text_encoder:  # then gradients must reach it
            self.denoiser = replace(self.denoiser, remembered=self.encodings.texts)
        if isinstance(denoiser.family, FromPicture):
            self.denoiser = replace(self.denoiser, begun=self.encodings.begun)
        self.generator = torch.Generator().manual_seed(spec.seed)
        """Noise, times and dropped captions, drawn on the CPU: the same on every device."""
        if not self.ranks.is_first:  # dropout in the model differs from rank to rank
            torch.manual_seed(spec.seed + self.ranks.rank)
        self.move_sampler(Cursor())
        self.history = LossHistory()
        for technique in self.techniques:
            technique.begin(self)

    @property
    def module(self) -> nn.Module:
        """The model that is trained, without what a strategy wraps around it."""
        return self.strategy.module

    @contextmanager
    def evaluating(self) -> Iterator[Denoiser]:
        """The model that samples and the result are made from, such as the average."""
        with ExitStack() as stack:
            for technique in self.techniques:
                stack.enter_context(technique.evaluating(self))
            module = self.module
            module.eval()
            try:
                yield self.denoiser.with_module(module)
            finally:
                module.train()
                self.strategy.settle()
                self.encodings.rest()

    def encode(
        self, captions: Sequence[str], indexes: Sequence[int], samples: Samples | None = None
    ) -> Condition:
        """The condition of the samples at ``indexes``, with ``captions``, on their device.

        They are those that are trained on, or others, ``samples``.
        """
        samples = samples or self.samples
        condition = self.denoiser.encode(captions, samples.facts(indexes))
        condition |= self.adapter.told(samples, indexes, self.encodings)
        if FAMILIES[self.spec.model.family].edits:
            condition[REFERENCE] = self.encodings.control(samples, indexes)
        condition |= self.encodings.begins(samples, indexes)
        return {name: tensor.to(self.accelerator.device) for name, tensor in condition.items()}

    def agree(self, flag: bool) -> bool:
        """Whether any of the ranks that come here says so: all, or the first alone.

        What only the first does is done by all where weights are spread.
        """
        return self.ranks.any(flag) if self.strategy.is_spread else flag

    @property
    def batch_size(self) -> int:
        """Samples of one step, of all ranks together."""
        return self.spec.batch_size * self.spec.accumulation * self.ranks.share.parts

    def move_sampler(self, cursor: Cursor) -> None:
        """Go on with the batch at ``cursor``."""
        samples = self.samples
        self.sampler = ShuffledSampler(
            samples.repeats, self.spec.seed, cursor, samples.buckets, samples.shares
        )
