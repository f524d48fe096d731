"""Linear layers in fewer bits, one function a library; each takes a frozen ``nn.Linear``.

Each gives a layer whose answer passes gradients on to its input, and has no gradient itself.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from st_trainer.quantization.libraries import library

Quantise = Callable[[nn.Linear, torch.device], nn.Module]


def by_torchao(config: str) -> Quantise:
    """Weights of torchao, by the name of a configuration."""

    def quantise(layer: nn.Linear, device: torch.device) -> nn.Module:
        torchao = library("torchao.quantization")
        torchao.quantize_(layer.to(device), getattr(torchao, config)(), filter_fn=_is_linear)
        return _forgetful(layer, layer.weight)

    return quantise


def _forgetful(layer: nn.Linear, weight: Tensor) -> nn.Module:
    made = ForgetfulLinear(
        layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta"
    )
    made.weight, made.bias = weight, layer.bias
    made.requires_grad_(requires_grad=False).train(layer.training)
    return made


def as_autocast(values: Tensor) -> Tensor:
    """``values`` in the type that autocast, where it is on, gives to linear layers.

    The libraries answer in the type of their input. What comes from a layer norm is fp32 on GPUs,
    so all that follows would be twice as large, and computed in fp32.
    """
    kind = values.device.type
    return values.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else values


class ForgetfulLinear(nn.Linear):
    """A linear layer whose weight is spread out while it is used, and at no other time.

    Left to themselves, torchao keeps what it spread out until the gradient is known, all weights in
    full once a step, and quanto every input, for a gradient of the weight that nobody asks for.
    """

    def forward(self, input: Tensor) -> Tensor:
        """``(..., in)`` to ``(..., out)``."""
        values = as_autocast(input)
        answer: Tensor = _Product.apply(values, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return answer


class _Product(torch.autograd.Function):
    """``input @ weight.T + bias`` of a frozen weight, which is spread out again going back."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Any, bias: Tensor | None) -> Tensor:
        ctx.weight = weight
        return functional.linear(values, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        return gradient @ ctx.weight.dequantize().to(gradient.dtype), None, None


def by_quanto(kind: str) -> Quantise:
    """Weights of a frozen ``QLinear`` of optimum-quanto, by the name of their type."""

    def quantise(layer: nn.Linear, device: torch.device) -> nn.Module:
        quanto = library("optimum.quanto")
        made: Any = quanto.QLinear.from_module(layer.to(device), weights=getattr(quanto, kind))
        made.freeze()
        return _forgetful(layer, made.weight)

    return quantise


def nf4_by_bitsandbytes(layer: nn.Linear, device: torch.device) -> nn.Module:
    """Blocks of 64 values, their scales in eight bits; Dettmers et al. 2023, section 3."""
    kinds = library("bitsandbytes.nn")
    made = _nf4_kind()(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        compute_dtype=layer.weight.dtype,
        quant_type="nf4",
        device="meta",
    )
    # On some CPUs it would rewrite its weights, with coarser scales, when it answers without
    # gradients: samples would change the training, and not every width could be rewritten.
    made.support_avx512bf16_for_cpu = False
    made.weight = kinds.Params4bit(
        layer.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True
    )
    return _finished(made, layer, device)


@cache
def _nf4_kind() -> Any:
    """A ``Linear4bit`` that heeds autocast."""
    kind: Any = library("bitsandbytes.nn").Linear4bit

    class Nf4Linear(kind):  # type: ignore[misc]
        def forward(self, values: Tensor) -> Tensor:
            """``(..., in)`` to ``(..., out)``."""
            answer: Tensor = super().forward(as_autocast(values))
            return answer

    return Nf4Linear


def int8_by_bitsandbytes(layer: nn.Linear, device: torch.device) -> nn.Module:
    """Rows in eight bits, inputs too where the device has the code; Dettmers et al. 2022."""
    made = _int8_kind()(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        has_fp16_weights=False,
        threshold=6.0,
        device="meta",
    )
    made.weight = library("bitsandbytes.nn").Int8Params(
        layer.weight.data, requires_grad=False, has_fp16_weights=False
    )
    return _finished(made, layer, device)


@cache
def _int8_kind() -> Any:
    """A ``Linear8bitLt`` that keeps no input, which its own backward pass has no use for either."""
    kind: Any = library("bitsandbytes.nn").Linear8bitLt

    class Int8Linear(kind):  # type: ignore[misc]
        def forward(self, values: Tensor) -> Tensor:
            """``(..., in)`` to ``(..., out)``."""
            seen = as_autocast(values)
            answer: Tensor = _Answer.apply(seen, super().forward, self._spread)  # type: ignore[no-untyped-call]
            return answer

        def _spread(self, dtype: torch.dtype) -> Tensor:
            scales = self.state.SCB.unsqueeze(1) / 127
            spread: Tensor = self.state.CB.to(dtype) * scales.to(dtype)
            return spread

    return Int8Linear


class _Answer(torch.autograd.Function):
    """What a layer answers; going back its frozen weight is spread out by another function."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, answer: Any, spread: Any) -> Tensor:
        ctx.spread = spread
        return answer(values)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        return gradient @ ctx.spread(gradient.dtype), None, None


def _finished(made: nn.Module, layer: nn.Linear, device: torch.device) -> nn.Module:
    if layer.bias is not None:
        made.bias = layer.bias
    made.train(layer.training)
    return made.to(device)  # here weights are rounded


def _is_linear(module: nn.Module, _name: str) -> bool:
    return isinstance(module, nn.Linear)
