"""EDM: one network over many orders of noise, held at unit scale by preconditioning.

Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models". Times are
sigmas, the spread of the noise that was added.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from st_shared.spec.objective import ObjectiveSpec
from st_trainer.objectives.losses import over_samples
from st_trainer.objectives.objective import Objective
from st_trainer.objectives.timesteps import even_shares


@dataclass(frozen=True)
class EdmRange:
    """Constants of a family; the defaults are those of Karras et al. 2022, table 1."""

    sigma_data: float = 0.5
    lowest: float = 0.002
    highest: float = 80.0
    log_mean: float = -1.2
    log_spread: float = 1.2
    rho: float = 7.0


class Edm(Objective):
    """``x_0 = c_skip x + c_out F(c_in x)``; the network's answer ``F`` is what is compared."""

    usual_sampling = "log_normal"

    def __init__(self, spec: ObjectiveSpec, range_: EdmRange | None = None) -> None:
        super().__init__(spec)
        self.range = range_ or EdmRange()

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``c_in, c_skip, c_out``; table 1, column "Ours"."""
        data = self.range.sigma_data
        total = sigma.square() + data**2
        return total.rsqrt(), data**2 / total, sigma * data * total.rsqrt()

    def draw(self, count: int, tokens: int, generator: torch.Generator | None = None) -> Tensor:
        """``ln sigma`` is normal, unless the specification names another distribution."""
        if (self.spec.timestep_sampling or "log_normal") != "log_normal":
            return super().draw(count, tokens, generator)
        spec = self.spec.timesteps
        ends = self.from_share(torch.tensor([spec.lowest, spec.highest], dtype=torch.float64))
        mean, spread = self.range.log_mean, self.range.log_spread
        low, high = torch.special.ndtr((ends.log() - mean) / spread)
        shares = low + (high - low) * even_shares(count, spec, generator)
        sigmas: Tensor = (mean + spread * torch.special.ndtri(shares)).exp()
        return sigmas.clamp(float(ends[0]), float(ends[1])).float()

    def from_share(self, shares: Tensor) -> Tensor:
        """Sigmas between the lowest and the highest; equation 5, share 1 being the highest."""
        power = 1 / self.range.rho
        low, high = self.range.lowest**power, self.range.highest**power
        sigmas: Tensor = (low + shares * (high - low)) ** self.range.rho
        return sigmas

    def share(self, times: Tensor) -> Tensor:
        """The inverse of equation 5."""
        power = 1 / self.range.rho
        low, high = self.range.lowest**power, self.range.highest**power
        shares: Tensor = (times**power - low) / (high - low)
        return shares

    def scaled(self, noisy: Tensor, times: Tensor) -> Tensor:
        """``c_in x``."""
        return over_samples(self.coefficients(times)[0], noisy) * noisy

    def noisy(self, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """``x = x_0 + sigma noise``."""
        return clean + over_samples(times, clean) * noise

    def target(self, clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """``(x_0 - c_skip x) / c_out``; equation 8."""
        _, skip, out = (over_samples(each, clean) for each in self.coefficients(times))
        return (clean - skip * self.noisy(clean, noise, times)) / out

    def clean(self, predicted: Tensor, noisy: Tensor, times: Tensor) -> Tensor:
        """``c_skip x + c_out F``; equation 7."""
        _, skip, out = (over_samples(each, noisy) for each in self.coefficients(times))
        return skip * noisy + out * predicted

    def ratio(self, times: Tensor) -> Tensor:
        """Sigma itself: the signal is not scaled."""
        return times

    def sharpness(self, times: Tensor) -> Tensor:
        """``1 / c_out²``."""
        return 1 / self.coefficients(times)[2].square()

    def weight(self, times: Tensor) -> Tensor | None:
        """``lambda c_out²``, lambda = ``(sigma² + data²) / (sigma data)²``; 1 as in the paper."""
        if self.spec.loss.snr_gamma is not None:
            return super().weight(times)
        data = self.range.sigma_data
        usual = (times.square() + data**2) / (times * data).square()
        return usual / self.sharpness(times)

    def path(self, steps: int, tokens: int) -> Tensor:
        """Equation 5, ending at 0."""
        del tokens
        shares = torch.linspace(1, 0, steps) if steps > 1 else torch.ones(1)
        return torch.cat([self.from_share(shares), torch.zeros(1)])

    def start(self, noise: Tensor, tokens: int) -> Tensor:
        """Noise of the highest sigma."""
        del tokens
        return self.range.highest * noise

    def step(self, noisy: Tensor, predicted: Tensor, time: Tensor, following: Tensor) -> Tensor:
        """Euler's step along ``(x - x_0) / sigma``; algorithm 1 without its correction."""
        clean = self.clean(predicted, noisy, time.reshape(1).to(noisy))
        return clean + following / time * (noisy - clean)
