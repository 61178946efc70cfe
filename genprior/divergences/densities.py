"""Divergences between two priors from the log-densities of their draws."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from genprior.ambient import settled
from genprior.checks import as_integer
from genprior.devices import rows_at_once
from genprior.priors.base import Prior
from genprior.table import Estimate


@settled
def monte_carlo_kl(p: Prior, q: Prior, n: int = 1000, *, seed: int = 0) -> Estimate:
    """KL(p || q) = E_p[ln p(x) - ln q(x)], in nats, by the mean over n draws from p, and its standard error.

    The estimate is unbiased, and may be below 0. Where q has no mass, ln q is minus infinity: one such draw makes the
    estimate infinite, as the divergence then is. If no draw falls there, or into a region where ln q is very low, the
    estimate and its standard error are too small: they account only for the mass that was drawn.

    Arguments:
        p: has `sample` and `log_prob`.
        q: has `log_prob`; images of the same shape. For priors of images of any size, use `prior.sized(height, width)`.
        n: draws, at least 2.
        seed: of the draws.

    Raises:
        UnsupportedError: a prior lacks a required method.
        ValueError: the shapes differ or are open, or n is too small.
    """
    _check(p, q, n)
    x = p.sample(n, seed=seed)
    log_ratio = _log_prob(p, x) - _log_prob(q, x)
    return Estimate(math.inf) if log_ratio.isposinf().any() else Estimate.mean(log_ratio)


@settled
def jensen_shannon(p: Prior, q: Prior, n: int = 1000, *, seed: int = 0) -> Estimate:
    """JS(p, q) = KL(p || (p + q) / 2) / 2 + KL(q || (p + q) / 2) / 2, in nats, and its standard error.

    With r(x) = ln p(x) - ln q(x) and softplus(a) = ln(1 + e^a),
        JS = ln 2 - E_p[softplus(-r(x))] / 2 - E_q[softplus(r(x))] / 2,
    by n draws from each. The estimate is unbiased, and never above ln 2, reached if no draw of one has mass under the
    other; if the divergence is near 0, it may be below 0. Draw k of p and draw k of q may share their noise, so the
    standard error is computed over pairs.

    Arguments and errors as for `monte_carlo_kl`; both p and q have `sample` and `log_prob`.
    """
    _check(p, q, n)
    x_p, x_q = p.sample(n, seed=seed), q.sample(n, seed=seed)
    of_p = F.softplus(_log_prob(q, x_p) - _log_prob(p, x_p))
    of_q = F.softplus(_log_prob(p, x_q) - _log_prob(q, x_q))
    return Estimate.mean(math.log(2) - (of_p + of_q) / 2)


@torch.no_grad()
def _log_prob(prior: Prior, x: Tensor) -> Tensor:
    parts = x.split(rows_at_once(x.shape[1:], x.device))
    return torch.cat([prior.log_prob(part).double() for part in parts])


def _check(p: Prior, q: Prior, n: int) -> None:
    as_integer("n, the number of draws,", n, 2, math.inf)
    if p.image_shape != q.image_shape or None in p.image_shape:
        raise ValueError(
            f"p has images of shape {p.image_shape}, q of {q.image_shape} (None: any): give two of one shape, by "
            "prior.sized(height, width) where it is open."
        )
