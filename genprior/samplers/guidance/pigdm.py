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

    One backward pass through the denoiser applies J; the step keeps (x_t - x_hat) kept / sigma, with kept the part of
    sigma' that is not fresh noise. r^2 is the variance of p(x | x_t) for white Gaussian images of the prior's spread,
    for which g is exact; the published sigma^2 / (1 + sigma^2) is that of images of variance 1. r^2 is too wide
    where pixels are correlated.

    The published weight of g is r^2, however short the step: the more steps, the more closely the draws follow y, far
    more than its noise allows. sigma^2 - sigma kept is the weight of g as part of the score; it lets the steps
    converge, but overshoots where steps are long and a direction varies much more than the spread, such as the mean
    colour of a photograph. The smaller of the two does neither.

    References: J. Song, A. Vahdat, M. Mardani, J. Kautz, Pseudoinverse-guided diffusion models for inverse problems,
    2023.

    Attributes:
        steps, eta, start: see `Guidance`; published: 100 steps, eta 1.
        integrator: see `Guidance`; None for the steps above; all others take g as part of the score.
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
