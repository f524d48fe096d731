"""Next-token prediction: each token is told from those before it.

Samples are whole numbers ``(B, S)`` or ``(B, S, K)``, predictions are logits with one more
dimension, ``(B, S, V)`` or ``(B, S, K, V)``: those at place ``i`` were made from the tokens before
``i`` alone, which the family sees to. A time is the number of tokens that are known.
"""

import torch
from torch import Tensor
from torch.nn import functional

from st_trainer.objectives.objective import Objective

IGNORED = -100
"""Token that does not count, such as padding."""


class Autoregressive(Objective):
    """Cross-entropy of the true tokens; Bengio et al. 2003, equation 1."""

    def draw(self, count: int, tokens: int, generator: torch.Generator | None = None) -> Tensor:
        """Every token is known: the model is taught by the true ones."""
        del generator
        return torch.full((count,), tokens)

    def noisy(self, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """The tokens themselves."""
        del noise, times
        return clean

    def target(self, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """The tokens themselves."""
        del noise, times
        return clean

    def clean(self, predicted: Tensor, noisy: Tensor, times: Tensor) -> Tensor:
        """The likeliest tokens."""
        del noisy, times
        return predicted.argmax(-1)

    def ratio(self, times: Tensor) -> Tensor:
        """There is no noise."""
        return torch.zeros_like(times)

    def sharpness(self, times: Tensor) -> Tensor:
        """Errors are compared as they are."""
        return torch.ones_like(times)

    def path(self, steps: int, tokens: int) -> Tensor:
        """One token after the other; ``steps`` is not asked."""
        del steps
        return torch.arange(tokens + 1)

    def start(self, noise: Tensor, tokens: int) -> Tensor:
        """Nothing is known: zeros."""
        del tokens
        return torch.zeros_like(noise, dtype=torch.long)

    def step(self, noisy: Tensor, predicted: Tensor, time: Tensor, following: Tensor) -> Tensor:
        """The likeliest tokens from ``time`` to ``following`` become known."""
        known = noisy.clone()
        places = slice(int(time), int(following))
        known[:, places] = predicted[:, places].argmax(-1)
        return known

    def loss(
        self, predicted: Tensor, target: Tensor, times: Tensor, weights: Tensor | None = None
    ) -> Tensor:
        """Mean cross-entropy over the tokens that count, in nats, a scalar in fp32.

        ``weights``: ``(B,)``, or of the shape of ``target``.
        """
        del times
        logits = predicted.float().movedim(-1, 1)
        errors = functional.cross_entropy(logits, target, ignore_index=IGNORED, reduction="none")
        counted = (target != IGNORED).float()
        if weights is not None:
            counted = counted * weights.view(*weights.shape, *[1] * (target.dim() - weights.dim()))
        return (errors * counted).sum() / counted.sum().clamp(min=1e-12)
