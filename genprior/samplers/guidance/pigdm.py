"""Pseudo-inverse guided diffusion: guidance as if p(x | x_t) were a Gaussian of one variance."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from genprior.noise import Noise
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.samplers.base import Denoiser, begin, differentiable, white_variance
from genprior.samplers.guidance.base import Guidance
from genprior.samplers.integrate import ancestral_step


@dataclass(frozen=True)
class PiGDM(Guidance):
    """Ancestral steps, each followed by one up the gradient g of ln p(y | x_t) under p(x | x_t) ~ N(x_hat, r^2 I).

        r^2 = sigma^2 spread^2 / (sigma^2 + spread^2)
        g   = J^T A^T (r^2 A A^T + noise^2 I)^-1 (y - A x_hat),   J = d x_hat / d x_t
        x'  = ancestral(x_t, x_hat) + min(r^2, sigma^2 - sigma kept) g

    J is applied by one backward pass through the denoiser; kept is the share of x_t - x_hat that the step keeps, in
    units of the next level's noise. r^2 is the variance of p(x | x_t) for white Gaussian images of the prior's spread,
    for which g is exact; the published sigma^2 / (1 + sigma^2) is that of images of variance 1. Too wide where pixels
    are correlated.

    The published weight of g is r^2, however short the step is: the more steps, the closer y is followed, far closer
    than its noise allows. sigma^2 - sigma kept is what g weighs as part of the score, and lets the steps converge, but
    overshoots where steps are long and a direction varies much more than the spread, as the mean colour of a photograph
    does. The smaller of the two does neither.

    References: J. Song, A. Vahdat, M. Mardani, J. Kautz, Pseudoinverse-guided diffusion models for inverse problems,
    2023.

    Attributes:
        steps, eta, start: see `Guidance`; published: 100 steps, eta 1.
        integrator: see `Guidance`; None for the steps above, with g as part of the score for all others.
    """

    passes: ClassVar[int] = 2
    integrator: str | None = None

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> Tensor:
        if self.integrator is not None:
            return super().sample(prior, measurement, noise)
        sigmas = self.levels(prior, max(measurement.linear.image_shape[1:]))
        x = begin(prior, measurement, sigmas[0], noise)
        spread = prior.spread
        guide = pseudo_inverse(prior.denoise, measurement, spread)
        for sigma, sigma_next in pairwise(sigmas):
            x_hat, g = guide(x, sigma)
            kept = sigma_next * math.sqrt(1 - self.eta**2 * (1 - (sigma_next / sigma) ** 2))
            weight = min(white_variance(sigma, spread), sigma**2 - sigma * kept)
            x = ancestral_step(x, x_hat, sigma, sigma_next, noise, self.eta) + weight * g
        return x

    def guided(self, prior: Prior, measurement: Measurement) -> Denoiser:
        guide = pseudo_inverse(prior.denoise, measurement, prior.spread)

        def denoise_given_y(x_t: Tensor, sigma: float) -> Tensor:
            x_hat, g = guide(x_t, sigma)
            return x_hat + sigma**2 * g

        return denoise_given_y


def pseudo_inverse(denoise: Denoiser, measurement: Measurement, spread: float):
    """(x_t, sigma) -> (E[x | x_t], grad ln p(y | x_t)), the latter that of white images of that spread; see `PiGDM`."""
    y, A = measurement.y, measurement.linear

    def guide(x_t: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        x_hat, vjp = differentiable(denoise, x_t, sigma)
        variance = white_variance(sigma, spread)
        v = A.solve(y - A(x_hat), measurement.sd**2 / variance) / variance
        return x_hat, vjp(A.adjoint(v))

    return guide
