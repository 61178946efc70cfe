"""ln p(y) in closed form, for Gaussians and Gaussian mixtures."""

import math

import torch
from einops import rearrange

from genprior.marginal.normal import cholesky, covariance_of_y, seen_values
from genprior.operators.measurement import Measurement
from genprior.posteriors.conditioning import alike
from genprior.priors.gaussian.normal import Normal


@torch.no_grad()
def exact(prior: Normal, measurement: Measurement) -> list[float]:
    """ln p(y) = ln sum_k w_k N(y; A m_k, A S A^T + noise^2 I) of every image, in nats.

    Computed in float64, over the values of y that A sees; images of one operator and noise level share a factorisation.

    Raises:
        UnsupportedError: y has more than 4096 values that A sees.
        ValueError: y has no density: A S A^T is singular, and the noise is 0.
    """
    means, log_weights = prior.means.double(), prior.weights.double().log()
    l = prior.covariance.eigenvalues.double()
    found = {}
    for images in alike(measurement):
        group = measurement.select(images)
        one = group.select(torch.zeros(1, dtype=torch.long, device=group.y.device))
        values = seen_values(one)
        L = cholesky(covariance_of_y(one, lambda x: prior.covariance.filter(x, l), values))
        A_m = torch.cat([one.operator(m[None]) for m in means]).flatten(1)[:, values]
        r = group.y.double().flatten(1)[:, None, values] - A_m
        whitened = torch.linalg.solve_triangular(L, rearrange(r, "b k m -> m (b k)"), upper=False)
        whitened = rearrange(whitened, "m (b k) -> b k m", b=len(r))
        log_normaliser = -L.diagonal().log().sum() - len(values) * math.log(2 * math.pi) / 2
        log_p = (log_weights + log_normaliser - whitened.square().sum(2) / 2).logsumexp(1)
        found |= dict(zip(images.tolist(), log_p.tolist()))
    return [found[i] for i in sorted(found)]
