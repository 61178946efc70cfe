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
DARK = 0.02  # brightness below which the picture does not predict the noise


@dataclass(frozen=True)
class PosteriorMean(Sampler):
    """E[x | y] for y = x + noise n: the denoiser at the noise level of y.

        x = y + (noise / sigma)^2 (D(y, sigma) - y),   sigma = max(noise, sigma_min)

    From the prior's sigma_min on, this is D(y, noise) itself; below it, where the denoiser was not trained, it uses the
    score at sigma_min. No image has a smaller expected squared error, so no mean of draws by many steps does better. A
    point estimate: all samples are the same, so one is enough.

    Photon noise is whitened about x, the current estimate of the picture, and y is denoised again:

        x_k = x + (s / s_0) (D(x + (s_0 / s) (y - x), s_0) - x),   s = sqrt(Var[y | x]),   s_0 = rms s

    for k = 1, ..., `LOOKS`, with x the mean of x_1, ..., x_(k-1), at first D(y, noise at the mean of y). The denoiser
    sees the picture itself, with noise of the same level in every channel: this stabilises the noise about the picture,
    as a stabilising transform does over the whole grey scale. Where x is right, x_k is; where a white prior decides,
    half of the error in ln s^2 remains that a single noise level for all would make.

    References: An empirical Bayes estimator of the mean of a normal population. K. Miyasawa, 1961. Tweedie's formula
    and selection bias. B. Efron, 2011.

    Attributes:
        turns: whether the denoiser sees images with photon noise turned, in another way each time (see `turning`).
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
    """Estimate the picture from y, (B, C, H, W), whose noise depends on its mean; see `PosteriorMean`."""
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
    """The standard deviation of y given the picture x, for each pixel and channel."""
    return likelihood.predicted(x.clamp_min(DARK))[1].sqrt()


def _rms(s: Tensor) -> Tensor:
    return s.square().mean((1, 2, 3), keepdim=True).sqrt()
