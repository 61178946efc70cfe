"""The denoising diffusion null-space model: y replaces the denoised image in the range of A^T."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from genprior.checks import Count, Fraction
from genprior.noise import Noise
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.samplers.annealing.ddrm import spectral_step
from genprior.samplers.annealing.repaint import stretches
from genprior.samplers.base import Sampler, begin, first_level
from genprior.samplers.integrate import geometric


@dataclass(frozen=True)
class DDNM(Sampler):
    """DDNM+: correct x_hat in the range of A^T, as far as the noise of y fits into that of the next level.

        x_y = x_hat - S A^+ (A x_hat - y),   x' = x_y + P n

    S and P are diagonal in the basis of A = U diag(s) V^T, so that x' has the noise sigma' in every coordinate:

        s = 0              S = 0                                  P n = sigma' (sqrt(1 - eta^2) eps + eta n)
        s sigma' < noise   S = s sigma' sqrt(1 - eta^2) / noise   P n = eta sigma' n
        else               S = 1                                  P n = sqrt(sigma'^2 - (noise / s)^2) n

    with eps = (x_t - x_hat) / sigma. The operator needs an `svd`. These are the steps of `DDRM` with eta_b = 1 and one
    eta, and they err as those do. What differs is their number, the start at pure noise, and time travel: each stretch
    of `travel` steps runs `repeats` times, each repeat after adding the noise that leads back to where the stretch
    began. We omit the paper's other form, one S and P for all coordinates, which gives the unseen ones too little noise
    when y is noisy.

    References: Y. Wang, J. Yu, J. Zhang, Zero-shot image restoration using denoising diffusion null-space model, 2023.

    Attributes:
        steps: noise levels; published: 100.
        eta: share of fresh noise; published: 0.85.
        travel: steps of a stretch; published: 1.
        repeats: of each stretch; published: 1, and 3 for hard tasks.
        start: first noise level, in multiples of the prior's spread, with x started from the measurement (see `begin`);
            None for sigma_max.
    """

    needs_operator: ClassVar[str | None] = "svd"
    steps: int = 100
    eta: Fraction = 0.85
    travel: Count = 1
    repeats: Count = 1
    start: float | None = None

    @property
    def calls(self) -> int:
        return self.steps * self.repeats

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> Tensor:
        step = spectral_step(measurement.linear.svd(), measurement, noise, self.eta, 1.0, self.eta)
        sigmas = geometric(first_level(prior, self.start), prior.sigma_min, self.steps)
        x = begin(prior, measurement, sigmas[0], noise)
        for stretch in stretches(sigmas, self.travel):
            for repeat in range(self.repeats):
                if repeat:
                    x = x + math.sqrt(stretch[0] ** 2 - stretch[-1] ** 2) * noise(x)
                for sigma, sigma_next in pairwise(stretch):
                    x = step(x, prior.denoise(x, sigma), sigma, sigma_next)
        return x
