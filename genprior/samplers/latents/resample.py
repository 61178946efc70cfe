"""ReSample: latents that fit y, returned to the chain by a draw between them and the chain."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from genprior.checks import Count, NonNegative, Positive, Range, UnsupportedError
from genprior.linalg import inner
from genprior.noise import Noise
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.samplers.adam import Adam
from genprior.samplers.base import Sampler
from genprior.samplers.integrate import euler, variance_preserving
from genprior.samplers.latents.latent_hmc import decoder_variance
from genprior.samplers.latents.psld import length


@dataclass(frozen=True)
class ReSample(Sampler):
    """Follow the probability flow with DPS steps through the decoder, at times fitting the latent to y.

        z_next <- flow(z_t, w_hat) - omega / (1 + (sigma / spread)^2) grad_{z_t} |y - A G(w_hat)|,  w_hat = E[w | w_t]

    in the coordinates of `PSLD`. After the first third of the steps, after every `every`-th one, `ahead` further steps
    of the flow take w_t to w_0, a fit to y takes w_0 to w_y, and w_t is drawn anew between w_t and w_y:

        w_y = E(argmin_x |y - A x|^2 / noise^2 + |x - G(w_0)|^2 / spread^2)     in the second third of the steps,
        w_y = argmin_w |y - A G(w)|^2, by Adam from w_0                         in the last third,
        w_t <- (1 - s) w_t + s w_y + sigma sqrt(s) n,   s = g / (1 + g),   g = gamma (1 - (sigma / sigma_before)^2)

    The last step ends with x = E[x | w_y, y] under x ~ N(G(w_y), v I), v the decoder's variance: a picture without
    grain, as the published x = G(w_y), which it is where v was never measured. Adam stops for an image once
    |y - A G(w)|^2 falls to noise^2 times the number of values that A sees. In the paper, the first argmin is also of
    |y - A x|^2 by Adam, cut short, and both stop at a mean square of 1e-6 whatever the noise.

    Only the limited reach of Adam keeps w_y near w_0, not the prior, and w_y has no spread: the method is not
    calibrated.

    References: B. Song, S. M. Kwon, Z. Zhang, X. Hu, Q. Qu, L. Shen, Solving inverse problems with latent diffusion
    models via hard data consistency, 2024.

    Attributes:
        steps: published: 500.
        every: steps from one fit to the next; published: 10.
        ahead: steps to w_0 before a fit; published: 5.
        iterations: of Adam; published: up to 500.
        rate: of Adam, in multiples of the latents' spread; published: 0.005.
        omega: step size of the measurement; published: 0.5.
        gamma: of the draw; published: 40.
        unit: half the range of x; the paper's images live on [-1, 1], ours on [0, 1].
    """

    needs: ClassVar[str] = "render"
    steps: int = 500
    every: Count = 10
    ahead: Annotated[int, Range(0)] = 5
    iterations: Count = 500
    rate: Positive = 0.005
    omega: NonNegative = 0.5
    gamma: NonNegative = 40.0
    unit: Positive = 0.5

    @property
    def calls(self) -> int:
        in_pixels, in_latents = self._fits
        return self.steps + in_pixels + in_latents * self.iterations + 1

    @property
    def evaluations(self) -> int:
        in_pixels, in_latents = self._fits
        ahead = sum(min(self.ahead, left) for left in range(self.steps) if self._fit(left))
        return 4 * self.steps + ahead + 2 * in_pixels + 2 * in_latents * self.iterations + 1

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> Tensor:
        latents = prior.latents
        y, A, known = measurement.y, measurement.linear, measurement.seen
        spread, trust = latents.spread, (prior.spread / measurement.sd) ** 2
        sigmas = variance_preserving(latents.sigma_max, latents.sigma_min, self.steps, spread)
        w = latents.centre + sigmas[0] * noise(y.new_empty(len(y), *latents.image_shape))
        for k, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
            with torch.enable_grad():
                w_t = w.detach().requires_grad_()
                w_hat = latents.denoise(w_t, sigma)
                misfit = length(known * (y - A(prior.render(w_hat)))) / self.unit
                (pull,) = torch.autograd.grad(misfit.sum(), w_t)
            w_hat = w_hat.detach()
            # omega / (1 + (sigma / spread)^2), times a root each for the coordinates of the gradient and of the step
            slope = math.sqrt((1 + (sigma_next / spread) ** 2) / (1 + (sigma / spread) ** 2))
            w = w_hat + sigma_next / sigma * (w - w_hat) - self.omega * spread**2 * slope * pull

            left = self.steps - 1 - k
            fit = self._fit(left)
            if not fit:
                continue
            ahead = sigmas[k + 1 : self.steps][: self.ahead]
            w_0 = euler(latents.denoise, w, [*ahead, 0.0])
            if fit == "pixels":
                w_y = prior.encode(A.prox(prior.render(w_0), y, trust))
            else:
                w_y = self._nearest(prior, measurement, w_0, known)
            if left:
                g = self.gamma * (1 - (sigma_next / sigma) ** 2)
                s = g / (1 + g)
                w = w + s * (w_y - w) + sigma_next * math.sqrt(s) * noise(w)
        return _mean_given(prior, w_y, measurement)

    def _nearest(self, prior: Prior, measurement: Measurement, w: Tensor, known: Tensor) -> Tensor:
        """The first w on Adam's path down |y - A G(w)|^2 that fits y to within the noise, or the last."""
        y, A, spread = measurement.y, measurement.linear, prior.latents.spread
        enough = measurement.sd**2 * inner(known, known)
        adam = Adam(self.rate * spread)
        for _ in range(self.iterations):
            with torch.enable_grad():
                w_t = w.detach().requires_grad_()
                residual = known * (y - A(prior.render(w_t)))
                data = inner(residual, residual)
                (gradient,) = torch.autograd.grad(data.sum() / self.unit**2, w_t)
            # Dimensionless, as Adam's eps is.
            w = torch.where(data.detach() <= enough, w, w - adam(gradient * spread))
        return w

    def _fit(self, left: int) -> str | None:
        """Where the latent is fitted to y with `left` steps to go: in "pixels", in "latents", or None."""
        third = self.steps / 3
        if left % self.every or left > 2 * third:
            return None
        return "latents" if left <= third else "pixels"

    @property
    def _fits(self) -> tuple[int, int]:
        """The numbers of fits in pixels and in latents."""
        made = [self._fit(left) for left in range(self.steps)]
        return made.count("pixels"), made.count("latents")


def _mean_given(prior: Prior, w: Tensor, measurement: Measurement) -> Tensor:
    """E[x | w, y] for x ~ N(G(w), v I); G(w) where v is 0 or was never measured.

    Not a draw from p(x | w, y), as `LatentDAPS` ends with: w has no spread, so sqrt(v) n would only add grain.
    """
    x_hat = prior.render(w)
    try:
        v = decoder_variance(prior)
    except UnsupportedError:
        return x_hat
    return measurement.linear.prox(x_hat, measurement.y, v / measurement.sd**2) if v else x_hat
