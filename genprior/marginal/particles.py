"""ln p(y) by the clouds of a particle filter over noise levels, for priors with a denoiser."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from genprior.marginal.normal import log_scale, noise_of, seen_values
from genprior.noise import Noise
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.samplers.base import white_variance
from genprior.samplers.integrate import geometric
from genprior.samplers.particles.base import Twisted, log_mean
from genprior.samplers.particles.tds import TDSMoments


@torch.no_grad()
def by_particles(prior: Prior, one: Measurement, sampler: Twisted, clouds: int, seed: int) -> Tensor:
    """ln of an estimate of p(y) from each of the independent clouds, (clouds,).

    The estimate is the mean weight of the cloud (see `twisted_filter`), with the constant of psi. It is unbiased for
    the model that the particles follow: the ancestral chain from sigma_max in so many steps, with psi at the last level
    for p(y | x). The steps and that level misrepresent the prior by an error of either sign, which falls as 1 / steps.

    As for all samplers, noise below a fifth of the prior's sigma_min is raised to that.
    """
    one = replace(one, noise=max(noise_of(one), prior.sigma_min / 5))
    last = geometric(prior.sigma_max, prior.sigma_min, sampler.steps)[-2]
    rows = torch.arange(sampler.particles)
    # Image number 0 is reserved for `prior.sample`.
    filters = [sampler.filter(prior, one, Noise(seed, torch.full_like(rows, k + 1), rows)) for k in range(clouds)]
    log_p = torch.stack([log_mean(log_w) for _, log_w, _ in filters]).double().cpu()
    return log_p + _left_out(sampler, prior, one, last)


def _left_out(sampler: Twisted, prior: Prior, one: Measurement, sigma: float) -> float:
    """The constant that ln psi at that level lacks to be the logarithm of a density of y."""
    if isinstance(sampler, TDSMoments):
        # it has the determinant, but also over unseen values of y, each of which contributes the noise
        M, unseen = len(seen_values(one)), one.y.numel() - len(seen_values(one))
        return unseen * math.log(noise_of(one)) - M * math.log(2 * math.pi) / 2
    return log_scale(one, white_variance(sigma, prior.spread))
