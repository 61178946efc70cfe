"""Saturation: values beyond two ends are recorded as the ends."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from genprior.likelihoods.base import Likelihood
from genprior.likelihoods.gaussian import log_normal
from genprior.likelihoods.quadrature import within
from genprior.noise import Noise


@dataclass(frozen=True)
class Clipped(Likelihood):
    """y = min(max(z + sd n, low), high), n ~ N(0, 1).

        p(y | z) = N(y; z, sd^2)            low < y < high
        P(y = low | z) = Phi((low - z) / sd),   P(y = high | z) = Phi((z - high) / sd)

    The tilted law is that of w = z + sd n, a Gaussian on an interval or a point, followed by that of z given w.

    Attributes:
        low, high: the ends, in the units of y.
        sd: standard deviation > 0 of the noise, in the units of y.
    """

    above: ClassVar[dict[str, float]] = {"sd": 0}
    low: float | Tensor
    high: float | Tensor
    sd: float | Tensor

    def __post_init__(self):
        super().__post_init__()
        if not (torch.as_tensor(self.low) < torch.as_tensor(self.high)).all():
            raise ValueError(f"Clipped's low is below its high; got {self.low} and {self.high}.")

    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        below, beyond = (end / self.sd for end in (self.low - z, z - self.high))
        at_low, at_high = torch.special.log_ndtr(below), torch.special.log_ndtr(beyond)
        return torch.where(y <= self.low, at_low, torch.where(y >= self.high, at_high, log_normal(y - z, self.sd)))

    def sample(self, z: Tensor, noise: Noise) -> Tensor:
        low, high = (torch.as_tensor(end, dtype=z.dtype, device=z.device) for end in (self.low, self.high))
        return (z + self.sd * noise(z)).clamp(low, high)

    def predicted(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z clipped, and the variance of the noise."""
        mean = torch.minimum(torch.maximum(z, torch.as_tensor(self.low).to(z)), torch.as_tensor(self.high).to(z))
        return mean, self.sd**2 * torch.ones_like(z)

    def moments(self, y: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        mean, variance = super().moments(y, m, v + self.sd**2)
        share = v / (v + self.sd**2)
        return m + share * (mean - m), share**2 * variance + share * self.sd**2

    def conditional(self, y: Tensor, m: Tensor, v: Tensor, noise: Noise) -> Tensor:
        w = super().conditional(y, m, v + self.sd**2, noise)
        share = v / (v + self.sd**2)
        return m + share * (w - m) + (share * self.sd**2).sqrt() * noise(y)

    def bracket(self, y: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return within(torch.where(y <= self.low, -torch.inf, y), torch.where(y >= self.high, torch.inf, y), m, v)

    def tilted(self, y: Tensor, z: Tensor, m: Tensor, v: Tensor) -> Tensor:
        return -(z - m).square() / (2 * v)

    def check(self, y: Tensor) -> None:
        super().check(y)
        beyond = (y < self.low) | (y > self.high)
        if beyond.any():
            raise ValueError(
                f"{int(beyond.sum())} values of y lie beyond {self.low} to {self.high}, to which Clipped clips them; "
                f"they reach from {float(y.min()):.3g} to {float(y.max()):.3g}. Give the ends that clipped y."
            )

    def shared(self, copies: int) -> "Clipped":
        return Clipped(self.low, self.high, math.sqrt(copies) * self.sd)
