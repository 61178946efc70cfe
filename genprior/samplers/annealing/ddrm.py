"""Denoising diffusion restoration: a diffusion for each singular direction of the operator."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from genprior.checks import Fraction
from genprior.linalg import divide
from genprior.noise import Noise
from genprior.operators.linear import SVD
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.samplers.base import Sampler, begin, first_level
from genprior.samplers.integrate import geometric

Step = Callable[[Tensor, Tensor, float, float], Tensor]


@dataclass(frozen=True)
class DDRM(Sampler):
    """Diffuse each coordinate of V^T x, A = U diag(s) V^T, guided by its value in y.

    With x, x_hat, x_t and n in the coordinates of V^T, y in those of U^T, and sigma' the next level:

        s = 0              x' = x_hat + sigma' (sqrt(1 - eta_c^2) (x_t - x_hat) / sigma + eta_c n)
        s sigma' < noise   x' = x_hat + sigma' (sqrt(1 - eta^2) (y - s x_hat) / noise + eta n)
        else               x' = (1 - eta_b) x_hat + eta_b y / s + sqrt(sigma'^2 - (eta_b noise / s)^2) n

    There is no backward pass; the operator needs an `svd`. x_T starts at y / s where s sigma_T >= noise. Once sigma' is
    below noise / s, x' depends on x_t only through x_hat: as in other methods with mostly fresh noise, the variance of
    the draws is too small, the more so the more steps there are.

    References: B. Kawar, M. Elad, S. Ermon, J. Song, Denoising diffusion restoration models, 2022.

    Attributes:
        steps: evaluations of the denoiser; published: 20.
        eta: share of fresh noise where y is noisier than x_t; published: 0.85.
        eta_b: weight of y where it is less noisy; published: 1.
        eta_c: share of fresh noise where A does not see; published: 0.85.
        start: first noise level, in multiples of the prior's spread (see `begin`); None for sigma_max.
    """

    needs_operator: ClassVar[str | None] = "svd"
    steps: int = 20
    eta: Fraction = 0.85
    eta_b: Fraction = 1.0
    eta_c: Fraction = 0.85
    start: float | None = None

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> Tensor:
        svd = measurement.linear.svd()
        sigmas = geometric(first_level(prior, self.start), prior.sigma_min, self.steps)
        x = begin_at_y(svd, measurement, begin(prior, measurement, sigmas[0], noise), sigmas[0], noise)
        step = spectral_step(svd, measurement, noise, self.eta, self.eta_b, self.eta_c)
        for sigma, sigma_next in pairwise(sigmas):
            x = step(x, prior.denoise(x, sigma), sigma, sigma_next)
        return x


def begin_at_y(svd: SVD, measurement: Measurement, x: Tensor, sigma: float, noise: Noise) -> Tensor:
    """x_t with y / s + sqrt(sigma^2 - (noise / s)^2) n for its coordinates where s sigma >= noise."""
    s = svd.singular_values.to(x)
    level = torch.as_tensor(measurement.sd, dtype=x.dtype, device=x.device)
    y_bar = divide(svd.Ut(measurement.y), s)
    fresh = (sigma**2 - divide(level, s) ** 2).clamp_min(0).sqrt()
    return svd.V(torch.where(s * sigma >= level, y_bar + fresh * noise(x), svd.Vt(x)))


def spectral_step(svd: SVD, measurement: Measurement, noise: Noise, eta: float, eta_b: float, eta_c: float) -> Step:
    """(x_t, x_hat, sigma, sigma') -> x' = x_hat + a (x_t - x_hat) + b (y - s x_hat) + w n; see `DDRM`."""
    y = svd.Ut(measurement.y)
    s = svd.singular_values.to(y)
    level = torch.as_tensor(measurement.sd, dtype=y.dtype, device=y.device)
    unseen = (s == 0).to(y)
    sees_all = not unseen.any()  # one transform less in each step
    eta_noisier = eta_c * unseen + eta * (1 - unseen)
    b_noisier = math.sqrt(1 - eta**2) * (1 - unseen) / level
    b_finer = divide(eta_b, s)
    variance_finer = (b_finer * level) ** 2

    def step(x_t: Tensor, x_hat: Tensor, sigma: float, sigma_next: float) -> Tensor:
        noisier = s * sigma_next < level
        w_finer = (sigma_next**2 - variance_finer).clamp_min(0).sqrt()
        a = math.sqrt(1 - eta_c**2) * sigma_next / sigma * unseen
        b = torch.where(noisier, sigma_next * b_noisier, b_finer)
        w = torch.where(noisier, sigma_next * eta_noisier, w_finer)
        kept = 0 if sees_all else a * svd.Vt(x_t - x_hat)
        x_hat = svd.Vt(x_hat)
        return svd.V(x_hat + kept + b * (y - s * x_hat) + w * noise(x_hat))

    return step
