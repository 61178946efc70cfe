"""Draws from a posterior learned for one operator, in one pass of the chain."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from genprior.noise import Noise
from genprior.operators.linear import LinearOperator
from genprior.operators.measurement import Measurement
from genprior.posteriors.amortized import check_operator, is_learned, observe
from genprior.priors.base import Prior
from genprior.samplers.base import Sampler
from genprior.samplers.integrate import ancestral, geometric

if TYPE_CHECKING:
    from genprior.priors.amortized import LearnedPosterior


@dataclass(frozen=True)
class Amortized(Sampler):
    """Ancestral sampling with a learned E[x | x_t, y], from centre + sigma_max n to x ~ p(x | y).

    Training, for one operator, has paid the cost of inference: draws take neither guidance nor gradients. Exact as
    steps grow, up to the error of the network.

    References: C. Saharia et al., Image super-resolution via iterative refinement, 2021. C. Saharia et al., Palette:
    image-to-image diffusion models, 2022.

    Attributes:
        steps: noise levels.
    """

    needs: ClassVar[str] = "denoise_given"
    steps: int = 50

    @classmethod
    def takes(cls, prior: Prior) -> bool:
        return is_learned(prior)

    def check_operator(self, prior: "LearnedPosterior", operator: LinearOperator) -> None:
        check_operator(prior, operator)

    def floor(self, prior: Prior) -> float:
        return 0.0  # nothing is divided by the noise

    def sample(self, prior: "LearnedPosterior", measurement: Measurement, noise: Noise) -> Tensor:
        observed = observe(prior, measurement)
        sigmas = geometric(prior.sigma_max, prior.sigma_min, self.steps)
        start = measurement.y.new_empty(len(measurement.y), *measurement.operator.image_shape)
        x = prior.centre + sigmas[0] * noise(start)
        return ancestral(lambda x_t, sigma: prior.denoise_given(x_t, sigma, observed), x, sigmas, noise)
