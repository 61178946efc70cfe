"""Moment matching posterior sampling: guidance by the denoiser's own posterior covariance."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from genprior.linalg import cg
from genprior.noise import Noise
from genprior.operators.base import Measurement, as_integer, as_number
from genprior.priors.base import Prior
from genprior.samplers.base import Denoiser, Sampler, begin, first_level
from genprior.samplers.integrate import ancestral, geometric
from genprior.samplers.seen import seen


@dataclass(frozen=True)
class MMPS(Sampler):
    """Ancestral sampling with E[x | x_t, y] under the Gaussian p(x | x_t) ~ N(x_hat, V) of matched moments.

        V = Cov[x | x_t] = sigma^2 d x_hat / d x_t
        E[x | x_t, y] = x_hat + V A^T (noise^2 I + A V A^T)^-1 (y - A x_hat)

    V is applied by one backward pass through the denoiser, the inverse by conjugate gradients. Exact for Gaussian
    priors, once iterations and steps suffice. Of a network V may have negative directions: where the iterations meet
    one they stop, image by image; the published ones go on, and may diverge.

    References: F. Rozet, G. Andry, F. Lanusse, G. Louppe, Learning diffusion priors from observations by expectation
    maximization, 2024.

    Attributes:
        steps: noise levels; the paper used 100 to 250.
        iterations: of conjugate gradients, each one backward pass; published: 1 to 5.
        eta: share of fresh noise, 1 as published.
        start: first noise level, in multiples of the prior's spread, with x begun from the measurement (see `begin`);
            None for sigma_max. For photographs 4 saves half of the steps.
    """

    steps: int = 100
    iterations: int = 3
    eta: float = 1.0
    start: float | None = None

    def __post_init__(self):
        super().__post_init__()
        as_integer("iterations", self.iterations, 1, math.inf)
        as_number("eta", self.eta, 0, 1)

    @property
    def evaluations(self) -> int:
        return self.steps * (2 + self.iterations)

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> Tensor:
        sigmas = geometric(first_level(prior, self.start), prior.sigma_min, self.steps)
        x = begin(prior, measurement, sigmas[0], noise)
        return ancestral(self.guided(prior, measurement), x, sigmas, noise, self.eta)

    def guided(self, prior: Prior, measurement: Measurement) -> Denoiser:
        return moment_matching(prior.denoise, measurement, self.iterations)


def moment_matching(denoise: Denoiser, measurement: Measurement, iterations: int) -> Denoiser:
    """E[x | x_t] -> E[x | x_t, y] by moment matching; see `MMPS`."""
    y, A, known = measurement.y, measurement.operator, seen(measurement)

    def denoise_given_y(x_t: Tensor, sigma: float) -> Tensor:
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            x_hat = denoise(x_t, sigma)

        def V(u: Tensor) -> Tensor:
            (product,) = torch.autograd.grad(x_hat, x_t, u, retain_graph=True)
            return sigma**2 * product

        def covariance(v: Tensor) -> Tensor:
            return measurement.noise**2 * v + A(V(A.adjoint(v)))

        mean = x_hat.detach()
        # Of a network V may be no covariance: what it says beyond a direction where it is negative is left out.
        least = measurement.noise**2 / 2
        v = cg(covariance, known * (y - A(mean)), iterations=iterations, least=least)
        return mean + V(A.adjoint(v))

    return denoise_given_y
