"""Sequential Monte Carlo over noise levels: clouds of weighted particles.

Notation: x_t (P, C, H, W) the particles of one image; psi(x_t) > 0 a twist, which approximates p(y | x_t) and equals
it at the last level; log_w the logarithms of weights (P,).

The chain p(x_next | x_t) = N(r x_t + (1 - r) x_hat, sigma_next^2 (1 - r) I), r = (sigma_next / sigma)^2, of `ancestral`
is the model: no weight corrects the errors of its steps. Whatever the twist and the proposal, the cloud tends to the
posterior of that model as P grows; with a good twist, a cloud of practical size suffices.

References: A. Doucet, A. M. Johansen, A tutorial on particle filtering and smoothing: fifteen years later, 2009. L. Wu,
B. L. Trippe, C. A. Naesseth, D. M. Blei, J. P. Cunningham, Practical and asymptotically exact conditional sampling in
diffusion models, 2023.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from genprior.checks import Count, Fraction
from genprior.devices import rows_at_once
from genprior.linalg import inner
from genprior.noise import Noise
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.samplers.base import Sampler
from genprior.samplers.integrate import geometric

# (x_t, sigma, sigma_next) -> (E[x | x_t], the approximate E[x | x_t, y] that moves the particles to sigma_next,
# ln psi(x_t) (P,)).
Twist = Callable[[Tensor, float, float], tuple[Tensor, Tensor, Tensor]]
# (measurement of one image, noise of P particles) -> (x (P, C, H, W), log_w (P,), smallest effective sample size ()).
Filter = Callable[[Measurement, Noise], tuple[Tensor, Tensor, Tensor]]


class Clouds(Sampler):
    """A sampler that draws from clouds of weighted particles, made for each image.

    Attributes:
        particles: particles per cloud. More samples than that come from further, independent clouds.
    """

    clouds: ClassVar[bool] = True
    particles: Count

    def cost(self, measurement: Measurement, n: int) -> int:
        """`evaluations` counts one particle; this counts whole clouds, divided among the draws."""
        return math.ceil(self.evaluations * self.chains(n) / n)

    def chains(self, n: int) -> int:
        return math.ceil(n / self.particles) * self.particles


@dataclass(frozen=True)
class Twisted(Clouds):
    """A sampler defined by a twist, which moves and weights the particles.

    Attributes:
        steps: noise levels from sigma_max to sigma_min.
        particles: particles per cloud (see `Clouds`).
        threshold: effective sample size, as a share of the cloud, below which it is resampled.
    """

    passes: ClassVar[int] = 2
    steps: int = 200
    particles: Count = 1000
    threshold: Fraction = 0.5

    @abstractmethod
    def twist(self, prior: Prior, measurement: Measurement) -> Twist:
        """The twist for the measurement of one image, y (1, ...)."""

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        return draw_from_clouds(partial(self.filter, prior), measurement, noise, self.particles)

    def filter(self, prior: Prior, one: Measurement, noise: Noise) -> tuple[Tensor, Tensor, Tensor]:
        """The cloud of one measurement, y (1, ...): see `twisted_filter`."""
        sigmas = geometric(prior.sigma_max, prior.sigma_min, self.steps)
        x = begin_free(prior, one, sigmas[0], noise)
        return twisted_filter(self.twist(prior, one), x, sigmas, noise, self.threshold)


def begin_free(prior: Prior, measurement: Measurement, sigma: float, noise: Noise) -> Tensor:
    """x_t at sigma_max, where the image hardly matters: centre + sqrt(spread^2 + sigma^2) n, one for each particle."""
    y = measurement.y
    centre = torch.as_tensor(prior.centre, dtype=y.dtype, device=y.device)
    centre = centre.expand(len(noise.image), *measurement.operator.image_shape)
    return centre + math.hypot(prior.spread, sigma) * noise(centre)


def draw_from_clouds(
    run: Filter, measurement: Measurement, noise: Noise, particles: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Equal-weight draws for the rows of every image, (B, C, H, W), each image from its own clouds.

    Sample k is draw k mod P of cloud k // P, whose P particles have the noise of samples (k // P) P onwards, so it
    does not depend on the other rows.

    Returns:
        The draws, and "effective sample size": the smallest over all levels of the row's cloud, as a share of it, (B,).
    """
    drawn, shares = [], []
    number = noise.sample // particles
    clouds, rows_of = torch.stack([noise.image, number]).unique(dim=1, return_inverse=True)
    for i in range(clouds.shape[1]):
        rows = (rows_of == i).nonzero().flatten()
        cloud = noise.cloud(rows[:1], number[rows[:1]] * particles, particles)
        x, log_w, smallest = run(measurement.select(rows[:1]), cloud)
        # A random order: neighbours in the cloud may be copies of each other.
        order = cloud.uniform(log_w).argsort()
        k = noise.sample[rows] % particles
        chosen = systematic(log_w, cloud)[order[k.to(order.device)]]
        drawn.append(x[chosen])
        shares.append((smallest / len(x)).expand(len(rows)))
    back = rows_of.argsort(stable=True).argsort()
    return torch.cat(drawn)[back], {"effective sample size": torch.cat(shares)[back]}


def twisted_filter(
    twist: Twist, x: Tensor, sigmas: list[float], noise: Noise, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Move particles x from sigmas[0] to the last level before 0 and denoise: (x, log_w, smallest effective size).

        propose    x_next ~ q(x_next | x_t), which is p(x_next | x_t) with the twist's E[x | x_t, y] for x_hat
        weigh      w <- w p(x_next | x_t) psi_next(x_next) / (q(x_next | x_t) psi(x_t))
        resample   where the effective sample size is below `threshold` of the cloud, w <- the mean of w

    x is taken to have the law of x_t. The final mean of w (see `log_mean`) is then an unbiased estimate of the integral
    of psi at the last level over the chain: of p(y), if psi has all factors of a density of y.

    References: P. Del Moral, Feynman-Kac formulae, 2004, for the mean of w.
    """
    twist = in_chunks(twist, x)
    log_w = x.new_zeros(len(x))
    smallest = x.new_full((), len(x))
    for sigma, sigma_next in pairwise(sigmas):
        x_hat, guided, log_psi = twist(x, sigma, sigma_next)
        log_w = log_w + log_psi
        size = effective_size(log_w)
        smallest = torch.minimum(smallest, size)
        if sigma_next == 0:
            return guided, log_w, smallest
        kept, log_w = resample(log_w, noise, size < threshold * len(x))
        x, x_hat, guided, log_psi = x[kept], x_hat[kept], guided[kept], log_psi[kept]

        r = (sigma_next / sigma) ** 2
        fresh = sigma_next * math.sqrt(1 - r)
        moved = (1 - r) * (guided - x_hat) / fresh
        n = noise(x)
        x = r * x + (1 - r) * guided + fresh * n
        # ln p - ln q of N(mean, fresh^2 I) and N(mean + fresh moved, fresh^2 I) at mean + fresh (moved + n)
        log_w = log_w - log_psi - inner(moved, n + moved / 2).flatten()
    raise ValueError("noise levels end with 0")


def effective_size(log_w: Tensor) -> Tensor:
    """(sum w)^2 / sum w^2, between 1 and P."""
    return 1 / normalised(log_w).square().sum()


def resample(log_w: Tensor, noise: Noise, needed: Tensor) -> tuple[Tensor, Tensor]:
    """Resample the particles if `needed`, a boolean (): their indices, (P,), and log-weights.

    Resampled particles share one weight, the mean of the old ones; otherwise nothing changes.
    """
    drawn = systematic(log_w, noise)
    kept = torch.where(needed, drawn, torch.arange(len(log_w), device=log_w.device))
    return kept, torch.where(needed, log_mean(log_w), log_w)


def systematic(log_w: Tensor, noise: Noise) -> Tensor:
    """P indices of particles, (P,), in ascending order: i appears P w_i times, rounded up or down.

    References: J. Carpenter, P. Clifford, P. Fearnhead, Improved particle filter for nonlinear problems, 1999.
    """
    P = len(log_w)
    bounds = normalised(log_w).cumsum(0)
    bounds = bounds / bounds[-1]  # rounding leaves the last off 1 by more than the smallest weight
    places = (torch.arange(P, device=log_w.device) + noise.uniform(bounds)[0]) / P
    return torch.searchsorted(bounds, places).clamp_max(P - 1)


def normalised(log_w: Tensor) -> Tensor:
    """w of sum 1; diverged particles, whose weight is NaN, have weight 0."""
    return _counted(log_w).softmax(0)


def log_mean(log_w: Tensor) -> Tensor:
    """ln of the mean of w, (); diverged particles count as weight 0."""
    return _counted(log_w).logsumexp(0) - math.log(len(log_w))


def _counted(log_w: Tensor) -> Tensor:
    return torch.where(log_w.isnan(), -math.inf, log_w)


def in_chunks(f: Callable[..., Any], x: Tensor) -> Callable[..., Any]:
    """f(x_t, …), for x_t like x, in chunks of as many particles as fit into memory."""
    rows = rows_at_once(x.shape[1:], x.device)

    def chunked(x_t: Tensor, *levels: float) -> Any:
        parts = [f(part, *levels) for part in x_t.split(rows)]
        return torch.cat(parts) if isinstance(parts[0], Tensor) else tuple(map(torch.cat, zip(*parts)))

    return chunked
