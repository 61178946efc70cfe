"""SITCOM: at every noise level, fit the input of the denoiser until its output fits y."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from genprior.checks import Count, NonNegative, Positive
from genprior.linalg import inner
from genprior.noise import Noise
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.samplers.adam import Adam
from genprior.samplers.base import Sampler, begin
from genprior.samplers.integrate import variance_preserving


@dataclass(frozen=True)
class SITCOM(Sampler):
    """Fit v near x_t such that x_hat(v) fits y, and add the noise of the next level to x_hat(v).

        v  = argmin_v |y - A(x_hat(v))|^2 + weight |v - x_t|^2 / (1 + (sigma / unit)^2), by Adam from v = x_t
        x' = x_hat(v) + sigma' n

    in the paper's variance-preserving coordinates v / sqrt(1 + (sigma / unit)^2), with unit = 2 spread, the half range
    of images on [-1, 1]. An image stops once |y - A(x_hat)|^2 falls to noise^2 times the number of values that A sees.
    The last iterate is returned, never one chosen by its distance to the truth.

    Not calibrated: only the randomness of the last noise levels remains.

    References: I. Alkhouri, S. Liang, C.-H. Huang, J. Dai, Q. Qu, S. Ravishankar, R. Wang, SITCOM: step-wise triple-
    consistent diffusion sampling for inverse problems, 2025.

    Attributes:
        steps: N, noise levels; published: 20.
        iterations: K, steps of Adam at each level; published: 20 to 30.
        rate: of Adam, in the paper's coordinates; published: 0.01.
        weight: lambda; published: 1.
    """

    linear: ClassVar[bool] = False
    steps: int = 20
    iterations: Count = 20
    rate: Positive = 0.01
    weight: NonNegative = 1.0

    @property
    def calls(self) -> int:
        return self.steps * (self.iterations + 1)

    @property
    def evaluations(self) -> int:
        return self.steps * (2 * self.iterations + 1)

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> Tensor:
        y, A = measurement.y, measurement.operator
        unit = 2 * prior.spread
        sigmas = variance_preserving(prior.sigma_max, prior.sigma_min, self.steps, unit)
        known = measurement.seen
        enough = measurement.sd**2 * inner(known, known)
        x = begin(prior, measurement, sigmas[0], noise)
        for sigma, sigma_next in pairwise(sigmas):
            dilation = math.sqrt(1 + (sigma / unit) ** 2)
            v = x
            adam = Adam(self.rate * unit * dilation)
            for _ in range(self.iterations):
                with torch.enable_grad():
                    v_t = v.detach().requires_grad_()
                    residual = known * (y - A(prior.denoise(v_t, sigma)))
                    data = inner(residual, residual)
                    loss = (data + self.weight * inner(v_t - x, v_t - x) / dilation**2).sum()
                (gradient,) = torch.autograd.grad(loss, v_t)
                # Dimensionless, as Adam's eps is.
                step = adam(gradient * dilation / unit)
                v = torch.where(data.detach() <= enough, v, v - step)
            x_hat = prior.denoise(v, sigma)
            x = x_hat + sigma_next * noise(x) if sigma_next else x_hat
        return x
