"""ln p(y) by annealed importance sampling of the latent, for priors with a decoder.

Notation: z ~ N(0, I) the latent, G(z) its decoding, v the variance of the decoder; L(z) = p(y | z); t the
inverse temperature, from 0 to 1.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from genprior.checks import Count, UnsupportedError, check_fields
from genprior.devices import rows_at_once
from genprior.likelihoods import Likelihood
from genprior.linalg import inner, per_row
from genprior.marginal.normal import log_scale, noise_of
from genprior.noise import Noise
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.samplers.particles.base import effective_size, log_mean, resample

SHARES = (1.0, 0.3, 0.1, 0.03)  # of fresh noise in a move, used in turn
POWER = 4  # of the temperatures: puts most of them near 0, where L changes most


@dataclass(frozen=True)
class AnnealedImportance:
    """Importance sampling of z from the prior to the posterior through laws proportional to N(z; 0, I) L(z)^t.

        t_j  = (j / steps)^4
        L(z) = N(y; A G(z), noise^2 I + v A A^T), or p(y | A G(z)) for another likelihood, where v = 0
        weigh    w <- w L(z)^(t_j - t_(j-1))
        resample where the effective sample size is below half of the cloud, w <- the mean of w
        move     z' = sqrt(1 - b^2) z + b n,  taken with probability min(1, (L(z') / L(z))^t_j)

    The mean of w is an unbiased estimate of p(y), however little the moves mix, as each leaves its law invariant; b
    cycles through a fixed list of shares. With steps = 1, this is plain importance sampling from the prior.

    References: R. Neal, Annealed importance sampling, 2001. P. Del Moral, A. Doucet, A. Jasra, Sequential Monte Carlo
    samplers, 2006 (with resampling). S. Cotter, G. Roberts, A. Stuart, D. White, MCMC methods for functions, 2013 (the
    move). Y. Wu, Y. Burda, R. Salakhutdinov, R. Grosse, On the quantitative analysis of decoder-based generative
    models, 2017 (for decoders).

    Attributes:
        steps: temperatures; one decoding each.
        particles: particles per cloud.
    """

    steps: Count = 500
    particles: Count = 100

    def __post_init__(self):
        check_fields(self)


@torch.no_grad()
def by_annealing(prior: Prior, one: Measurement, method: AnnealedImportance, clouds: int, seed: int) -> Tensor:
    """ln of an estimate of p(y) from each of the independent clouds, (clouds,).

    Raises:
        ValueError: the noise, by which y is weighed, is 0.
        UnsupportedError: the noise is not Gaussian, and the decoder has a variance.
    """
    if not isinstance(one.noise, Likelihood) and noise_of(one) == 0:
        raise ValueError("Importance sampling weighs y by its noise, which is 0: give a noise above 0.")
    log_likelihood, rows = likelihood(prior, one), torch.arange(method.particles)
    keyed = [Noise(seed, torch.full_like(rows, k + 1), rows) for k in range(clouds)]
    like = one.y.new_empty(method.particles, *prior.latent_shape)
    return torch.stack([log_mean(anneal(log_likelihood, like, method.steps, noise)) for noise in keyed]).cpu()


def likelihood(prior: Prior, one: Measurement) -> Callable[[Tensor], Tensor]:
    """z -> ln L(z), (B,), in chunks that fit into memory."""
    v = float(torch.as_tensor(prior.decoder_variance))
    rows = rows_at_once(one.operator.image_shape, one.y.device)
    of_some = _of_law(prior, one, v) if isinstance(one.noise, Likelihood) else _of_gaussian(prior, one, v)
    return lambda z: torch.cat([of_some(part) for part in z.split(rows)])


def _of_law(prior: Prior, one: Measurement, v: float) -> Callable[[Tensor], Tensor]:
    """z -> sum_i ln p(y_i | (A G(z))_i), over the values of y that depend on x."""
    if v > 0:
        raise UnsupportedError(
            f"{type(prior).__name__} decodes to a law of variance {v:.3g}, which has no closed form under noise of the "
            f"law {one.noise}: give a prior with an exact decoder, or the sd of Gaussian noise near it."
        )
    y, A, law, known = one.y, one.operator, one.likelihood, one.seen > 0
    return lambda z: torch.where(known, law.log_prob(y, A(prior.decode(z))), 0).flatten(1).double().sum(1)


def _of_gaussian(prior: Prior, one: Measurement, v: float) -> Callable[[Tensor], Tensor]:
    """z -> ln N(y; A G(z), noise^2 I + v A A^T)."""
    scale, y, A, known, noise = log_scale(one, v), one.y, one.linear, one.seen, noise_of(one)

    def of_some(z: Tensor) -> Tensor:
        r = known * (y - A(prior.decode(z)))
        weighed = A.solve(r, noise**2 / v) / v if v > 0 else r / noise**2
        return scale - inner(weighed, r).flatten().double() / 2

    return of_some


def anneal(log_likelihood: Callable[[Tensor], Tensor], like: Tensor, steps: int, noise: Noise) -> Tensor:
    """ln w of one cloud, (P,), with latents like `like`."""
    z = noise(like)
    log_l = log_likelihood(z)
    temperatures = [(j / steps) ** POWER for j in range(1, steps + 1)]
    log_w = temperatures[0] * log_l
    for j, (t, t_next) in enumerate(pairwise(temperatures)):
        kept, log_w = resample(log_w, noise, effective_size(log_w) < len(z) / 2)
        z, log_l = z[kept], log_l[kept]
        b = SHARES[j % len(SHARES)]
        moved = math.sqrt(1 - b**2) * z + b * noise(z)
        log_moved = log_likelihood(moved)
        taken = noise.uniform(log_l).log() < t * (log_moved - log_l)
        z = torch.where(per_row(taken, z), moved, z)
        log_l = torch.where(taken, log_moved, log_l)
        log_w = log_w + (t_next - t) * log_l
    return log_w
