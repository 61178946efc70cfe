"""Monte Carlo guided diffusion: particles drawn towards y in the directions that the operator sees."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from genprior.checks import Count, Fraction, Positive, Range
from genprior.linalg import divide
from genprior.noise import Noise
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.samplers.base import Denoiser
from genprior.samplers.integrate import geometric
from genprior.samplers.particles.base import Clouds, draw_from_clouds, effective_size, in_chunks, systematic


@dataclass(frozen=True)
class MCGDiff(Clouds):
    """Condition each coordinate of V^T x_t, A = U diag(s) V^T, on y at the level where both have equal noise.

    At the level noise / s, a coordinate of x_t has the law of y / s: y is an observation of the diffusion itself. A
    coordinate's own level is the first of the schedule not above noise / s: there y / s is x_t plus the remaining
    noise. Above it, in the coordinates of V^T, with sigma' the next level and mu and f^2 the mean and variance of the
    ancestral step,

        g_sigma(x) = N(y / s; x, c^2),  c^2 = (sigma^2 - own^2) + ((noise / s)^2 - own^2) + kappa (unit^2 + own^2)
        weigh        w = N(y / s; mu, f^2 + c'^2) / g_sigma(x_t), over the coordinates not yet below their own level
        resample
        propose      x' = K y / s + (1 - K) mu + sqrt(1 - K) f n,  K = f^2 / (f^2 + c'^2)

    and below it the coordinate moves freely. There is no backward pass; the operator needs an `svd`. Exact as particles
    and steps grow and kappa goes to 0; but g knows nothing of the prior, so clouds need thousands of particles.

    References: G. Cardoso, Y. Janati el Idrissi, S. Le Corff, E. Moulines, Monte Carlo guided diffusion for Bayesian
    linear inverse problems, 2024.

    Attributes:
        steps: noise levels from sigma_max to sigma_min; published: 20 to 250.
        particles: particles per cloud (see `Clouds`); published: 64 to 1024.
        kappa: variance of g at a coordinate's own level, relative to that of x_t; published: 1e-4 for images.
        eta: share of fresh noise; published: 1 for images.
        unit: half the range of x; 1 in the paper.
    """

    needs_operator: ClassVar[str | None] = "svd"

    steps: int = 100
    particles: Count = 1000
    kappa: Fraction = 1e-4
    eta: Annotated[float, Range(1e-6, 1)] = 1.0
    unit: Positive = 0.5

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        sigmas = geometric(prior.sigma_max, prior.sigma_min, self.steps)

        def run(one: Measurement, cloud: Noise) -> tuple[Tensor, Tensor, Tensor]:
            centre = torch.as_tensor(prior.centre, dtype=one.y.dtype, device=one.y.device).expand(
                1, *one.operator.image_shape
            )
            return self.filter(prior.denoise, one, centre, math.hypot(sigmas[0], prior.spread), sigmas, cloud)

        return draw_from_clouds(run, measurement, noise, self.particles)

    def filter(
        self,
        denoise: Denoiser,
        measurement: Measurement,
        centre: Tensor,
        scale: float,
        sigmas: list[float],
        noise: Noise,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The cloud of one measurement: (x, log_w, smallest effective sample size).

        Arguments:
            denoise: (x_t, sigma) -> E[x | x_t].
            measurement: y (1, ...).
            centre, scale: x_t at sigmas[0] is N(centre, scale^2 I) without y; the centre is (1, C, H, W).
            sigmas: noise levels, decreasing, 0 at the end.
            noise: of the particles.
        """
        svd = measurement.linear.svd()
        s = svd.singular_values.to(centre)
        y_bar = divide(svd.Ut(measurement.y), s)
        noise_bar = divide(torch.as_tensor(measurement.sd, dtype=centre.dtype, device=centre.device), s)
        levels = torch.tensor(sigmas[:-1], dtype=centre.dtype, device=centre.device)
        # The last level where y is less noisy than all of them.
        own = levels[(noise_bar[..., None] < levels).sum(-1).clamp_max(len(levels) - 1)]
        left = (noise_bar**2 - own**2).clamp_min(0)
        seen = s > 0

        def variance_of_g(sigma: float) -> Tensor:
            return (sigma**2 - own**2).clamp_min(0) + left + self.kappa * (self.unit**2 + own**2)

        c2 = variance_of_g(sigmas[0])
        like = centre.expand(len(noise.image), -1, -1, -1)
        x = svd.Vt(centre)
        K = torch.where(seen, scale**2 / (scale**2 + c2), 0)
        x = K * y_bar + (1 - K) * x + (1 - K).sqrt() * scale * noise(like)
        smallest = x.new_full((), len(x))
        denoise = in_chunks(denoise, x)
        for sigma, sigma_next in pairwise(sigmas):
            x_hat = svd.Vt(denoise(svd.V(x), sigma))
            if sigma_next == 0:
                return svd.V(x_hat), x.new_zeros(len(x)), smallest
            f = self.eta * sigma_next * math.sqrt(1 - (sigma_next / sigma) ** 2)
            mu = x_hat + math.sqrt(sigma_next**2 - f**2) / sigma * (x - x_hat)
            above = seen & (own <= sigma_next)
            c2_next = variance_of_g(sigma_next)
            log_w = torch.where(above, _log_normal(y_bar - mu, f**2 + c2_next) - _log_normal(y_bar - x, c2), 0)
            log_w = log_w.flatten(1).sum(1)
            smallest = torch.minimum(smallest, effective_size(log_w))
            mu = mu[systematic(log_w, noise)]
            K = torch.where(above, f**2 / (f**2 + c2_next), 0)
            x = K * y_bar + (1 - K) * mu + (1 - K).sqrt() * f * noise(like)
            c2 = c2_next
        raise ValueError("noise levels end with 0")


def _log_normal(r: Tensor, variance: Tensor) -> Tensor:
    """ln N(r; 0, variance) up to a constant."""
    return -(r**2 / variance + variance.log()) / 2
