"""The mean of the posterior of a noisy image, by one evaluation of the denoiser."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from genprior.checks import UnsupportedError
from genprior.noise import Noise
from genprior.operators.base import LinearOperator
from genprior.operators.masking import is_identity
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.samplers.base import Sampler


@dataclass(frozen=True)
class PosteriorMean(Sampler):
    """E[x | y] for y = x + noise n: what the denoiser is, at the noise level of y.

        x = y + (noise / sigma)^2 (D(y, sigma) - y),   sigma = max(noise, sigma_min)

    D(y, noise) itself from the prior's sigma_min on; below it, where no denoiser was trained, the score of sigma_min.
    Of all images the one of least expected squared error, which no mean of draws by many steps is nearer to. A point
    estimate: all samples are the same, so one is enough.

    References: An empirical Bayes estimator of the mean of a normal population. K. Miyasawa, 1961. Tweedie's formula
    and selection bias. B. Efron, 2011.
    """

    needs_operator: ClassVar[str | None] = "identity"

    @property
    def calls(self) -> int:
        return 1

    def floor(self, prior: Prior) -> float:
        return 0.0  # nothing is divided by the noise

    def check_operator(self, prior: Prior, operator: LinearOperator) -> None:
        if not is_identity(operator):
            raise UnsupportedError(
                f"PosteriorMean takes the measurements of denoising, y = x + noise n, not those of "
                f"{type(operator).__name__}. Choose another sampler."
            )

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> Tensor:
        y, level = measurement.y, measurement.sd
        least = prior.sigma_min
        asked = level.clamp_min(least) if isinstance(level, Tensor) else max(level, least)
        return y + (level / asked) ** 2 * (prior.denoise(y, asked) - y)
