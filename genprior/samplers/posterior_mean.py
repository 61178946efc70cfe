"""The posterior mean of a noisy image, by one evaluation of the denoiser; for photon noise, by a few."""

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

LOOKS = 7
DARK = 0.02  # least brightness, below which the picture is no guide to the noise


@dataclass(frozen=True)
class PosteriorMean(Sampler):
    """E[x | y] for y = x + noise n: the denoiser at the noise level of y.

        x = y + (noise / sigma)^2 (D(y, sigma) - y),   sigma = max(noise, sigma_min)

    D(y, noise) itself from the prior's sigma_min on; below it, where no denoiser was trained, the score of sigma_min.
    Of all images the one of least expected squared error, which no mean of draws by many steps is nearer to. A point
    estimate: all samples are the same, so one is enough.

    Photon noise is made white about x, what is known of the picture so far, and y is looked at again in this way:

        x_k = x + (s / s_0) (D(x + (s_0 / s) (y - x), s_0) - x),   s = sqrt(Var[y | x]),   s_0 = rms s

    for k = 1, ..., `LOOKS`, with x the mean of x_1, ..., x_(k-1), at first D(y, noise of the mean). The denoiser sees
    the picture itself, and noise of one level in each channel; what a stabilising transform does to all of the grey
    scale, this does about the picture. Where x is right, x_k is; where a white prior decides, it leaves half of what
    one noise level for all gets wrong in ln s^2.

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
        return 1 + LOOKS if isinstance(measurement.noise, Likelihood) else 1

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
    mean = y.mean((1, 2, 3), keepdim=True).expand_as(y)
    x = denoise(y, _rms(_deviation(likelihood, mean)).clamp_min(sigma_min))
    looks = torch.zeros_like(y)
    for k in range(LOOKS):
        s = _deviation(likelihood, x)
        s_0 = _rms(s).clamp_min(sigma_min)
        looks = looks + x + s / s_0 * (denoise(x + s_0 / s * (y - x), s_0) - x)
        x = looks / (k + 1)
    return x


def _deviation(likelihood: Likelihood, x: Tensor) -> Tensor:
    """Of y given the picture x, pixel by pixel and channel by channel."""
    return likelihood.predicted(x.clamp_min(DARK))[1].sqrt()


def _rms(s: Tensor) -> Tensor:
    return s.square().mean((1, 2, 3), keepdim=True).sqrt()
