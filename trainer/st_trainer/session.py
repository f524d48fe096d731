"""What a run holds in memory: everything that a checkpoint keeps, and nothing else."""

import torch
from accelerate import Accelerator
from torch import nn

from st_shared.spec.training import OptimizerSpec, TrainingSpec
from st_trainer.data.folder import Samples
from st_trainer.data.sampler import Cursor, ShuffledSampler
from st_trainer.errors import BadSpecError
from st_trainer.families.family import Denoiser
from st_trainer.families.registry import REGISTRY
from st_trainer.history import LossHistory
from st_trainer.techniques.ema import Ema
from st_trainer.weights import model_config


class Session:
    """Model, average, optimiser, random numbers, order of samples and the steps done so far."""

    def __init__(self, spec: TrainingSpec, samples: Samples, denoiser: Denoiser) -> None:
        self.spec = spec
        self.samples = samples
        self.step = 0
        self.accelerator = make_accelerator(spec)
        self.ema = Ema(denoiser.module, spec.ema.decay) if spec.ema.enabled else None
        optimizer = make_optimizer(denoiser.module, spec.optimizer)
        module, self.optimizer = self.accelerator.prepare(denoiser.module.train(), optimizer)
        self.denoiser = denoiser.with_module(module)
        if self.ema:
            self.ema.module.to(self.accelerator.device)
        self.generator = torch.Generator().manual_seed(spec.seed)
        """Noise, times and dropped captions, drawn on the CPU: the same on every device."""
        self.sampler = ShuffledSampler(samples.repeats, spec.seed)
        self.history = LossHistory()

    @property
    def module(self) -> nn.Module:
        """The weights that are trained, without what accelerate wraps around them."""
        unwrapped: nn.Module = self.accelerator.unwrap_model(self.denoiser.module)
        return unwrapped

    @property
    def result(self) -> Denoiser:
        """The model that samples and the result are made from: the average, where there is one."""
        return self.denoiser.with_module(self.ema.module if self.ema else self.module)

    def move_sampler(self, cursor: Cursor) -> None:
        """Go on with the batch at ``cursor``."""
        self.sampler = ShuffledSampler(self.samples.repeats, self.spec.seed, cursor)


def new_denoiser(spec: TrainingSpec, captions: list[str]) -> Denoiser:
    """A model with random weights that follow from ``seed``."""
    family, config = REGISTRY[spec.model.family], model_config(spec.model)
    torch.manual_seed(spec.seed)
    assets = family.assets(config, captions)
    return Denoiser(family, config, assets, family.build(config, assets))


def make_accelerator(spec: TrainingSpec) -> Accelerator:
    """Device and precision of the run.

    Raises:
        BadSpecError: started by a launcher of several processes, which is not supported.
    """
    accelerator = Accelerator(mixed_precision="bf16" if spec.precision == "bf16" else "no")
    if accelerator.num_processes != 1:
        raise BadSpecError(
            f"st-train was started as {accelerator.num_processes} processes; it trains in one: "
            "start it without a launcher"
        )
    return accelerator


def make_optimizer(module: nn.Module, spec: OptimizerSpec) -> torch.optim.Optimizer:
    """AdamW over every weight; the loop sets the learning rate at each step."""
    return torch.optim.AdamW(
        module.parameters(),
        lr=spec.learning_rate,
        betas=(spec.beta1, spec.beta2),
        eps=spec.epsilon,
        weight_decay=spec.weight_decay,
        fused=True,
    )
