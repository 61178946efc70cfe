"""Photon noise and read noise."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from genprior.likelihoods.base import Likelihood
from genprior.likelihoods.poisson import around_counts, counts
from genprior.noise import Noise

HALF = 16  # terms on each side of the largest


@dataclass(frozen=True)
class PoissonGaussian(Likelihood):
    """y = gain k + sd n, with k ~ Poisson(z / gain) counts and n ~ N(0, 1): mean z, variance gain z + sd^2.

        p(y | z) = sum_k Poisson(k; z / gain) N(y; gain k, sd^2),   z >= 0

    The sum is over 33 terms around the largest, every one where they are few; where the law of k given y is wide, they
    are that far apart, as a trapezoidal sum of a smooth function may be.

    References: A. Foi, M. Trimeche, V. Katkovnik, K. Egiazarian, Practical Poissonian-Gaussian noise modeling and
    fitting for single-image raw-data, 2008.

    Attributes:
        gain: of one count, in the units of y.
        sd: standard deviation > 0 of the rest, in the units of y.
    """

    above: ClassVar[dict[str, float]] = {"gain": 0, "sd": 0}
    gain: float | Tensor
    sd: float | Tensor

    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        k, rate = y / self.gain, (z / self.gain).clamp_min(0)
        s2 = torch.as_tensor(self.sd / self.gain, dtype=z.dtype, device=z.device).square()
        # the counts that both laws like, and how far from there: of Gaussians of variance s2 and rate
        middle = ((k * rate + rate * s2) / (rate + s2)).clamp_min(0).round()
        apart = (0.4 * (rate * s2 / (rate + s2)).sqrt()).clamp_min(1)
        first = (middle - HALF * apart).clamp_min(0).round()
        terms = []
        for j in range(2 * HALF + 1):
            n = first + j * apart
            terms.append(torch.xlogy(n, rate) - torch.lgamma(n + 1) - (k - n).square() / (2 * s2))
        total = torch.stack(terms).logsumexp(0) + apart.log() - rate
        return torch.where(z < 0, -torch.inf, total - math.log(2 * math.pi) / 2 - torch.as_tensor(self.sd).log())

    def sample(self, z: Tensor, noise: Noise) -> Tensor:
        return self.gain * counts(z / self.gain, noise) + self.sd * noise(z)

    def predicted(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z, self.gain * z.clamp_min(0) + self.sd**2

    def bracket(self, y: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        # nearly a law of counts, those of z + shift
        shift = self.sd**2 / self.gain * torch.ones_like(m)
        k = ((y + shift) / self.gain).clamp_min(0)
        low, high = around_counts(k, m + shift - v / self.gain, v, shift)
        return low - shift, high - shift

    def shared(self, copies: int) -> "PoissonGaussian":
        return PoissonGaussian(copies * self.gain, math.sqrt(copies) * self.sd)
