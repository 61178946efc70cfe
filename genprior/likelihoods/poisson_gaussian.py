"""Photon noise and read noise."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from genprior.likelihoods.base import Likelihood
from genprior.likelihoods.gaussian import log_normal
from genprior.likelihoods.poisson import around_counts, counts
from genprior.noise import Noise

WIDE = 1.5  # noise in counts from which a saddlepoint replaces the sum


@dataclass(frozen=True)
class PoissonGaussian(Likelihood):
    """y = gain k + sd n, with k ~ Poisson(z / gain) counts and n ~ N(0, 1): mean z, variance gain z + sd^2.

        p(y | z) = sum_k Poisson(k; z / gain) N(y; gain k, sd^2),   z >= 0

    The sum is over the counts within 6 sd / gain + 2 of y / gain, as a polynomial in z. Where sd is above 1.5 gain, the
    law is smooth, and its saddlepoint approximation to second order replaces it, off by 1e-3 at most.

    References: H. E. Daniels, Saddlepoint approximations in statistics, 1954. A. Foi, M. Trimeche, V. Katkovnik, K.
    Egiazarian, Practical Poissonian-Gaussian noise modeling and fitting for single-image raw-data, 2008.

    Attributes:
        gain: the value of one count, in the units of y.
        sd: standard deviation > 0 of the read noise, in the units of y.
    """

    above: ClassVar[dict[str, float]] = {"gain": 0, "sd": 0}
    gain: float | Tensor
    sd: float | Tensor

    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        k, rate = y / self.gain, (z / self.gain).clamp_min(1e-30)
        s = self.sd / self.gain
        if isinstance(s, float):
            log_p = summed(k, rate, s) if s < WIDE else saddlepoint(k, rate, s)
        else:
            s = torch.as_tensor(s).to(z)
            log_p = torch.where(s < WIDE, summed(k, rate, s.clamp_max(WIDE)), saddlepoint(k, rate, s.clamp_min(WIDE)))
        log_p = log_p - torch.as_tensor(self.gain, dtype=z.dtype, device=z.device).log()
        return torch.where(z < 0, -torch.inf, log_p)

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


def summed(k: Tensor, rate: Tensor, s: float | Tensor) -> Tensor:
    """ln sum_n Poisson(n; rate) N(k; n, s^2) over the counts n near k: a polynomial in rate, by Horner's rule."""
    half = math.ceil(6 * (s if isinstance(s, float) else WIDE)) + 2
    first = (k.round() - half).clamp_min(0)
    scale = k.clamp_min(1)
    n = first + torch.arange(2 * half + 1, dtype=k.dtype, device=k.device).reshape(-1, *[1] * k.ndim)
    terms = n * scale.log() - torch.lgamma(n + 1) + log_normal(k - n, s)
    largest = terms.amax(0)
    ratio = rate / scale
    total = torch.zeros_like(ratio)
    for c in (terms - largest).exp().flip(0):
        total = total * ratio + c
    return total.log() + first * ratio.log() + largest - rate


def saddlepoint(k: Tensor, rate: Tensor, s: float | Tensor) -> Tensor:
    """ln p(k) of a count of that rate plus noise of variance s^2, from K(t) = rate (e^t - 1) + s^2 t^2 / 2.

        K(t) - k t - ln(2 pi K2) / 2 + K4 / (8 K2^2) - 5 K3^2 / (24 K2^3)   at K1(t) = k

    with K1, …, K4 the derivatives at t, which Newton's method finds from above, never passing it, as K1 is convex.
    """
    s2 = s**2
    above = torch.minimum((k - rate) / s2, (k / rate).clamp_min(1).log())
    t = torch.where(k > rate, above, (k - rate) / (rate + s2))
    for _ in range(6):
        grown = rate * t.exp()
        t = t - (grown + s2 * t - k) / (grown + s2)
    K3 = rate * t.exp()
    K2 = K3 + s2
    second_order = K3 / (8 * K2**2) - 5 * K3**2 / (24 * K2**3)
    return K3 - rate + s2 * t.square() / 2 - k * t - (2 * math.pi * K2).log() / 2 + second_order
