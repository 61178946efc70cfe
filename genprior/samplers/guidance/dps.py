"""Diffusion posterior sampling: an ancestral step, then a gradient step on the residual's norm."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from genprior.checks import NonNegative, Positive
from genprior.linalg import divide, norm
from genprior.noise import Noise
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.samplers.base import Sampler, begin, differentiable
from genprior.samplers.integrate import ancestral_step, variance_preserving


@dataclass(frozen=True)
class DPS(Sampler):
    """Draw by ancestral steps, each followed by a gradient step of fixed scale down |y - A(x_hat)|.

        z_next <- ancestral(z_t, x_hat) - zeta grad_{z_t} |y - A(x_hat(z_t))|

    in the variance-preserving coordinates z = x_t / sqrt(1 + (sigma / unit)^2) and with lengths in multiples of `unit`,
    as published; the norm is that of each image. The noise level of y does not enter: the method is not calibrated, and
    its best zeta depends on operator and noise. The published clipping of x_hat is omitted.

    References: H. Chung, J. Kim, M. McCann, M. Klasky, J. C. Ye, Diffusion posterior sampling for general noisy inverse
    problems, 2023.

    Attributes:
        zeta: step size; published for 256 x 256 images: 0.3 for super-resolution and blur, 0.5 for inpainting.
        steps: published: 1000.
        unit: half the range of x; the paper's images live on [-1, 1], ours on [0, 1].
    """

    passes: ClassVar[int] = 2
    linear: ClassVar[bool] = False
    zeta: NonNegative = 0.3
    steps: int = 1000
    unit: Positive = 0.5

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> Tensor:
        y, A, known = measurement.y, measurement.operator, measurement.seen
        sigmas = variance_preserving(prior.sigma_max, prior.sigma_min, self.steps, self.unit)
        x = begin(prior, measurement, sigmas[0], noise)
        for sigma, sigma_next in pairwise(sigmas):
            x_hat, vjp = differentiable(prior.denoise, x, sigma)
            z, vjp_A = A.vjp(x_hat)
            residual = known * (y - z)
            pull = vjp(vjp_A(divide(residual, norm(residual))))
            del vjp  # and the graph with it, before the next evaluation
            x = ancestral_step(x, x_hat, sigma, sigma_next, noise)
            x = x + self.zeta * self.unit * self._dilation(sigma) * self._dilation(sigma_next) * pull
        return x

    def _dilation(self, sigma: float) -> float:
        """|x_t| / |z_t|: one factor for the coordinates of the gradient, and one for those of the step."""
        return math.sqrt(1 + (sigma / self.unit) ** 2)
