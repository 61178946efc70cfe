"""The mean of the posterior of a noisy image, by one evaluation of the denoiser."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from genprior.checks import UnsupportedError
from genprior.likelihoods import Gaussian, Likelihood, Poisson, PoissonGaussian
from genprior.noise import Noise
from genprior.operators.linear import LinearOperator
from genprior.operators.masking import is_identity
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.samplers.base import Sampler
from genprior.samplers.turning import Leveled, turning

LEVELS = 6
DARK = 0.02  # least brightness, below which the pilot is no guide to the noise
TAILS = 0.02  # of the pixels beyond the least and the largest level
AGAIN = 0.3  # of its noise, how far from the picture y is asked once more


@dataclass(frozen=True)
class PosteriorMean(Sampler):
    """E[x | y] for y = x + noise n: what the denoiser is, at the noise level of y.

        x = y + (noise / sigma)^2 (D(y, sigma) - y),   sigma = max(noise, sigma_min)

    D(y, noise) itself from the prior's sigma_min on; below it, where no denoiser was trained, the score of sigma_min.
    Of all images the one of least expected squared error, which no mean of draws by many steps is nearer to. A point
    estimate: all samples are the same, so one is enough.

    Of photon noise, each pixel at the noise level of its own, s = sqrt(Var[y | x]) of x = D(y, mean noise): the
    denoiser at `LEVELS` levels of y, between which each pixel is interpolated. Then y is asked once more, and the
    denoiser with it: of E[z] under p(y | z) N(z; x, (AGAIN s)^2), at the mean of AGAIN s.

    References: An empirical Bayes estimator of the mean of a normal population. K. Miyasawa, 1961. Tweedie's formula
    and selection bias. B. Efron, 2011.

    Attributes:
        turns: whether the denoiser sees photon noise turned, each time in another way (see `turning`).
    """

    needs_operator: ClassVar[str | None] = "identity"

    likelihoods: ClassVar[tuple[type[Likelihood], ...]] = (Gaussian, Poisson, PoissonGaussian)
    turns: bool = False

    @property
    def calls(self) -> int:
        return 1

    def cost(self, measurement: Measurement, n: int) -> int:
        return LEVELS + 2 if isinstance(measurement.noise, Likelihood) else 1

    def floor(self, prior: Prior) -> float:
        return 0.0  # nothing is divided by the noise

    def check_operator(self, prior: Prior, operator: LinearOperator) -> None:
        if not is_identity(operator):
            raise UnsupportedError(
                f"PosteriorMean takes the measurements of denoising, y = x + noise n, not those of "
                f"{type(operator).__name__}. Choose another sampler."
            )

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> Tensor:
        if isinstance(measurement.noise, Likelihood):
            denoise = turning(prior.denoise) if self.turns else prior.denoise
            return of_photons(denoise, measurement.y, measurement.noise, prior.sigma_min)
        y, level = measurement.y, measurement.sd
        least = prior.sigma_min
        asked = level.clamp_min(least) if isinstance(level, Tensor) else max(level, least)
        return y + (level / asked) ** 2 * (prior.denoise(y, asked) - y)


def of_photons(denoise: Leveled, y: Tensor, likelihood: Likelihood, sigma_min: float) -> Tensor:
    """The picture of y, (B, C, H, W), whose noise depends on its mean; see `PosteriorMean`."""
    x = denoise(y, _mean_level(likelihood, y).clamp_min(sigma_min))
    x = level_by_level(denoise, y, _levels(likelihood, x).clamp_min(sigma_min))
    s = AGAIN * _levels(likelihood, x)
    t, _ = likelihood.moments(y, x, s.square().expand_as(y))
    return denoise(t, s.mean((1, 2, 3), keepdim=True).clamp_min(sigma_min))


def level_by_level(denoise: Leveled, y: Tensor, sigma: Tensor) -> Tensor:
    """D(y, sigma) for a noise level of each pixel, (B, 1, H, W): linear in ln sigma between `LEVELS` of them."""
    ends = torch.tensor([TAILS, 1 - TAILS], dtype=sigma.dtype, device=sigma.device)
    low, high = sigma.flatten(1).quantile(ends, dim=1).reshape(2, -1, 1, 1, 1)
    place = torch.log(sigma / low) / torch.log(high / low).clamp_min(1e-6) * (LEVELS - 1)
    place = place.clamp(0, LEVELS - 1)
    x = torch.zeros_like(y)
    for k in range(LEVELS):
        weight = (1 - (place - k).abs()).clamp_min(0)
        x = x + weight * denoise(y, low * (high / low) ** (k / (LEVELS - 1)))
    return x


def _levels(likelihood: Likelihood, x: Tensor) -> Tensor:
    """The noise at each pixel of x, (B, 1, H, W); of colour, a pixel has one level: that of the mean variance."""
    return likelihood.predicted(x.clamp_min(DARK))[1].mean(1, keepdim=True).sqrt()


def _mean_level(likelihood: Likelihood, y: Tensor) -> Tensor:
    mean = y.flatten(1).mean(1).reshape(-1, 1, 1, 1).expand_as(y)
    return likelihood.predicted(mean)[1].flatten(1).mean(1).sqrt().reshape(-1, 1, 1, 1)
