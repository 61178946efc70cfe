"""RED-diff: variational inference with a point mass, and the denoisers of all noise levels as regularisers."""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from genprior.checks import NonNegative, Positive
from genprior.noise import Noise
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.samplers.adam import Adam
from genprior.samplers.base import Sampler, start
from genprior.samplers.integrate import variance_preserving


@dataclass(frozen=True)
class REDDiff(Sampler):
    """Descend on mu by Adam, one step per noise level, from sigma_max to sigma_min; a point estimate, not a draw.

        x_t = mu + sigma n
        g   = D / m J(mu)^T (A(mu) - y) + weight (mu - x_hat(x_t))

    D and m are the numbers of values of x and of y, J is the derivative of A. In the published loss,
    mean (y - A(mu))^2 / 2 + weight s mean <eps - n, mu> with s the level in units of the images' half range,
    s (eps - n) is mu - x_hat in those units.

    The law of mu is a point mass: where A does not see, draws differ by the jitter of Adam, not by p(x | y). As
    published, the noise level of y does not enter; the bound behind the method would weight the first term by
    1 / noise^2. `weight` stands in for that, and as the second term vanishes with sigma whatever its weight, mu fits
    the noise of y in the end.

    References: M. Mardani, J. Song, J. Kautz, A. Vahdat, A variational perspective on solving inverse problems with
    diffusion models, 2024.

    Attributes:
        steps: of Adam, betas 0.9 and 0.99; published: 1000.
        rate: of Adam, in multiples of the prior's spread; published: 0.1 on [-1, 1], where the spread is about 0.5.
        weight: lambda, of the denoisers against the data; published: 0.25.
    """

    linear: ClassVar[bool] = False
    steps: int = 1000
    rate: Positive = 0.2
    weight: NonNegative = 0.25

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> Tensor:
        y, A = measurement.y, measurement.operator
        # The published levels, for images on [-1, 1].
        unit = 2 * prior.spread
        sigmas = variance_preserving(prior.sigma_max, prior.sigma_min, self.steps, unit)
        # The published start, A^+ y, has unbounded noise where a blur passes little.
        mu = start(prior, measurement)
        adam = Adam(self.rate * prior.spread, betas=(0.9, 0.99))
        ratio = math.prod(A.image_shape) / math.prod(A.measurement_shape)
        for sigma in sigmas[:-1]:
            x_hat = prior.denoise(mu + sigma * noise(mu), sigma)
            z, vjp = A.vjp(mu)
            fit = ratio * vjp(z - y)
            # Dimensionless, as Adam's eps is.
            mu = mu - adam((fit + self.weight * (mu - x_hat)) / unit)
        return mu
