"""Rounding to steps."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from genprior.likelihoods.base import Likelihood
from genprior.likelihoods.quadrature import within
from genprior.noise import Noise


@dataclass(frozen=True)
class Quantised(Likelihood):
    """y is the centre of the cell that contains z; cells are one step wide.

        p(y | z) = 1 where y - step / 2 <= z <= y + step / 2, else 0

    Attributes:
        step: in the units of y.
    """

    above: ClassVar[dict[str, float]] = {"step": 0}
    step: float | Tensor

    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        rounding = 4 * torch.finfo(z.dtype).eps * y.abs()
        inside = (z - y).abs() <= self.step / 2 + rounding
        return torch.zeros_like(z).masked_fill(~inside, -torch.inf)

    def sample(self, z: Tensor, noise: Noise) -> Tensor:
        """The nearest multiple of the step; no noise is drawn."""
        return self.step * (z / self.step).round()

    def predicted(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z, and the variance of a uniform law on the cell."""
        return z, self.step**2 / 12 * torch.ones_like(z)

    def bracket(self, y: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return within(y - self.step / 2, y + self.step / 2, m, v)

    def tilted(self, y: Tensor, z: Tensor, m: Tensor, v: Tensor) -> Tensor:
        return -(z - m).square() / (2 * v)  # the bracket is in the cell

    def shared(self, copies: int) -> "Quantised":
        return self
