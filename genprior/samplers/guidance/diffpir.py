"""DiffPIR: denoise, fit the measurement by a proximal step, add noise again."""

import math
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from genprior.checks import Positive, Range
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.samplers.base import Denoiser, first_level
from genprior.samplers.guidance.base import Guidance
from genprior.samplers.integrate import geometric, thinned


@dataclass(frozen=True)
class DiffPIR(Guidance):
    """Half-quadratic splitting along the noise levels of a diffusion.

        x_hat = E[x | x_t]
        x_y   = argmin_x |y - A x|^2 + weight noise^2 / sigma^2 |x - x_hat|^2
        x_next = x_y + sigma_next (sqrt(1 - eta) (x_t - x_y) / sigma + sqrt(eta) n)

    The result is closer to a point of high probability than to a draw. The defaults are chosen for the squared error of
    photographs; `DiffPIR(steps=100, weight=7, eta=0.3)` is closer to the published ones.

    References: Y. Zhu et al., Denoising diffusion models for plug-and-play image restoration, 2023.

    Attributes:
        steps: evaluations of the denoiser; published: 100 (20 for noiseless inpainting).
        weight: lambda, the weight of the denoised image against the measurement; published: 1 to 15, by task.
        eta: share of fresh noise, the published zeta: 0.1 for deblurring, 0.25 for super-resolution, 1 for inpainting.
        start: noise level, in multiples of the prior's spread, below which levels are evenly spaced in ln sigma; None
            for sigma_max. The published t_start; 4, which is sigma = 1 for photographs, saves half of the steps.
        coarse: how many of the steps come before, each at twice the noise of the next; they settle what nearby pixels
            do not determine, such as the colour of a large hole. None for as many as a hole of half the image's side
            needs, whose mean has the noise sigma / its side, but at most a quarter of the steps. Published: 0.
        density: the most steps per factor of e in sigma; the others go to high noise (see `thinned`). None for levels
            evenly spaced in ln sigma. Each step draws its noise anew, so many steps at low noise wear away details that
            only the prior knows: on blurs and super-resolution, `DiffPIR(steps=100, density=3, weight=0.7)` is better
            than 100 evenly spaced steps (docs/results.md). Published: none.
        integrator: see `Guidance`; "fresh" is the step above.
    """

    steps: int = 40
    weight: Positive = 1.0
    start: float | None = 4.0
    coarse: Annotated[int, Range(0)] | None = None
    density: Annotated[float, Range(1e-3)] | None = None
    integrator: str | None = "fresh"

    def levels(self, prior: Prior, side: int) -> list[float]:
        """The noise levels, and 0, for images of longer side `side`; none of the coarse ones is above sigma_max."""
        level = first_level(prior, self.start)
        wanted = math.ceil(math.log2(max(1.0, side * prior.spread / 2 / level)))
        count = min(wanted, self.steps // 4) if self.coarse is None else min(self.coarse, self.steps - 1)
        coarse = [level * 2**k for k in range(count, 0, -1)]
        coarse = [sigma for sigma in coarse if sigma <= prior.sigma_max]
        rest = self.steps - len(coarse)
        if self.density is None:
            return coarse + geometric(level, prior.sigma_min, rest)
        return coarse + thinned(level, prior.sigma_min, rest, self.density)

    def guided(self, prior: Prior, measurement: Measurement) -> Denoiser:
        y, A = measurement.y, measurement.linear

        def denoise_given_y(x_t: Tensor, sigma: float) -> Tensor:
            return A.prox(prior.denoise(x_t, sigma), y, sigma**2 / (self.weight * measurement.sd**2))

        return denoise_given_y
