"""White Gaussian noise."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from genprior.likelihoods.base import Likelihood
from genprior.likelihoods.quadrature import DROP
from genprior.noise import Noise


@dataclass(frozen=True)
class Gaussian(Likelihood):
    """y = z + sd n, n ~ N(0, 1): the meaning of a number given as noise.

    Attributes:
        sd: standard deviation >= 0, in the units of y.
    """

    sd: float | Tensor

    def __post_init__(self):
        super().__post_init__()
        if not (torch.as_tensor(self.sd) >= 0).all():
            raise ValueError(f"Gaussian's sd is a standard deviation, finite and >= 0; got {self.sd}.")

    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        return log_normal(y - z, self.sd)

    def sample(self, z: Tensor, noise: Noise) -> Tensor:
        return z + self.sd * noise(z)

    def predicted(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z, self.sd**2 * torch.ones_like(z)

    def bracket(self, y: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        mean, variance = self.moments(y, m, v)
        return mean - (2 * DROP * variance).sqrt(), mean + (2 * DROP * variance).sqrt()

    def moments(self, y: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        share = v / (v + self.sd**2)
        return m + share * (y - m), (share * self.sd**2).expand_as(y)

    def conditional(self, y: Tensor, m: Tensor, v: Tensor, noise: Noise) -> Tensor:
        mean, variance = self.moments(y, m, v)
        return mean + variance.sqrt() * noise(y)

    def shared(self, copies: int) -> "Gaussian":
        return Gaussian(math.sqrt(copies) * self.sd)


def log_normal(a: Tensor, sd: float | Tensor) -> Tensor:
    """ln N(a; 0, sd^2)."""
    scale = torch.as_tensor(sd, dtype=a.dtype, device=a.device)
    return -(a / scale).square() / 2 - scale.log() - math.log(2 * math.pi) / 2
