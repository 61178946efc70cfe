"""Pseudo-inverse guided diffusion: guidance as if p(x | x_t) were a Gaussian of one variance."""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from genprior.noise import Noise
from genprior.operators.base import Measurement, as_number
from genprior.priors.base import Prior
from genprior.samplers.base import Denoiser, Sampler, begin, first_level
from genprior.samplers.integrate import ancestral_step, geometric


@dataclass(frozen=True)
class PiGDM(Sampler):
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
        steps: noise levels; published: 100.
        eta: share of fresh noise; published: 1.
        start: first noise level, in multiples of the prior's spread, with x begun from the measurement (see `begin`);
            None for sigma_max.
    """

    steps: int = 100
    eta: float = 1.0
    start: float | None = None

    def __post_init__(self):
        super().__post_init__()
        as_number("eta", self.eta, 0, 1)

    @property
    def evaluations(self) -> int:
        return 2 * self.steps

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> Tensor:
        sigmas = geometric(first_level(prior, self.start), prior.sigma_min, self.steps)
        x = begin(prior, measurement, sigmas[0], noise)
        spread = prior.spread
        guide = pseudo_inverse(prior.denoise, measurement, spread)
        for sigma, sigma_next in pairwise(sigmas):
            x_hat, g = guide(x, sigma)
            kept = sigma_next * math.sqrt(1 - self.eta**2 * (1 - (sigma_next / sigma) ** 2))
            weight = min(_variance(sigma, spread), sigma**2 - sigma * kept)
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
    y, A = measurement.y, measurement.operator

    def guide(x_t: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            x_hat = denoise(x_t, sigma)
        mean = x_hat.detach()
        variance = _variance(sigma, spread)
        v = A.solve(y - A(mean), measurement.noise**2 / variance) / variance
        (g,) = torch.autograd.grad(x_hat, x_t, A.adjoint(v))
        return mean, g

    return guide


def _variance(sigma: float, spread: float) -> float:
    return (sigma * spread) ** 2 / (sigma**2 + spread**2)
