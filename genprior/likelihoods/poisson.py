"""Photon noise."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from genprior.likelihoods.base import Likelihood
from genprior.likelihoods.quadrature import DROP, reach
from genprior.noise import Noise


@dataclass(frozen=True)
class Poisson(Likelihood):
    """y = gain k, with k ~ Poisson(z / gain) counts: mean z, variance gain z.

        ln p(y | z) = k ln(z / gain) - z / gain - ln k!,   k = y / gain,   z >= 0

    Where y is no multiple of the gain, k! is Gamma(k + 1). A z below 0 is impossible; sampled, it gives no counts.

    Attributes:
        gain: the value of one count, in the units of y; 1 / peak for images whose white is `peak` counts.
    """

    above: ClassVar[dict[str, float]] = {"gain": 0}
    gain: float | Tensor

    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        k, rate = y / self.gain, z / self.gain
        return torch.where(z < 0, -torch.inf, torch.xlogy(k, rate.clamp_min(0)) - rate - torch.lgamma(k + 1))

    def sample(self, z: Tensor, noise: Noise) -> Tensor:
        return self.gain * counts(z / self.gain, noise)

    def predicted(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z, self.gain * z.clamp_min(0)

    def bracket(self, y: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return around_counts(y / self.gain, m - v / self.gain, v, torch.zeros_like(m))

    def check(self, y: Tensor) -> None:
        super().check(y)
        if (y < 0).any():
            raise ValueError(
                f"Counts are not negative, and y has values down to {float(y.min()):.3g}. If there is noise besides "
                "that of counts, give PoissonGaussian(gain, sd); if a level was subtracted from y, add it again."
            )

    def shared(self, copies: int) -> "Poisson":
        return Poisson(copies * self.gain)


def counts(rate: Tensor, noise: Noise) -> Tensor:
    """Draws of k ~ Poisson(rate), by inverting the distribution function; 0 for rates below 0."""
    from scipy.stats import poisson

    u = noise.uniform(rate.double() if rate.device.type != "mps" else rate)
    drawn = poisson.ppf(u.double().cpu().numpy(), rate.detach().double().clamp_min(0).cpu().numpy())
    return torch.from_numpy(drawn).to(rate).clamp_min(0)


def around_counts(k: Tensor, m: Tensor, v: Tensor, least: Tensor) -> tuple[Tensor, Tensor]:
    """The interval that contains t^k exp(-(t - m)^2 / (2 v)) on t >= least >= 0, except for e^-DROP of it.

    To the left of the mode the curvature grows. To the right, t^k falls as k (s - ln(1 + s)) >= k s^2 / (2 (1 + s)),
    with s = t / mode - 1.
    """
    root = (m.square() + 4 * k * v).sqrt()
    mode = torch.where(m > 0, (m + root) / 2, 2 * k * v / (root - m).clamp_min(torch.finfo(m.dtype).tiny))
    mode = torch.maximum(mode, least)
    slope = (mode - m) / v - torch.where(k > 0, k / mode, 0)
    left = (2 * DROP / (1 / v + torch.where(k > 0, k / mode.square(), 0))).sqrt()
    right = reach(slope.clamp_min(0), v)
    s = right / mode.clamp_min(torch.finfo(m.dtype).tiny)
    for _ in range(3):
        s = torch.minimum(s, (2 * DROP / (k / (1 + s) + mode.square() / v)).sqrt())
    right = torch.where((k > 0) & (mode > least), torch.minimum(right, s * mode), right)
    return torch.maximum(mode - left, least), mode + right
