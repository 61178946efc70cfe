"""Means, variances and draws of log-concave laws on an interval, one for each value, by quadrature.

Everything runs in float64, except on Apple's GPUs, and on pieces of the values, to save memory.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genprior.linalg import wide

DROP = 18.0  # nats below its maximum at which a density counts as 0
NODES = 16
CELLS = 64
AT_ONCE = {"cpu": 2**13, "other": 2**15}  # values, by device: so few that their nodes stay in a processor's caches

# a log-density, elementwise with any first axis of nodes before the values, and the ends of its interval
Law = tuple[Callable[[Tensor], Tensor], Tensor, Tensor]


def moments_of(law: Callable[..., Law], arguments: Sequence[Tensor | float]) -> tuple[Tensor, Tensor]:
    """Mean and variance of each law, by Gauss-Legendre quadrature on its interval.

    Arguments:
        law: pieces of the arguments, (N,) -> their laws.
        arguments: the first is a tensor that all broadcast to.
    """
    like = torch.as_tensor(arguments[0])
    means, variances = [], []
    for piece in _pieces(arguments):
        log_density, low, high = law(*piece)
        t, weights = (a.to(low)[:, None] for a in _legendre())
        z = low + (high - low) * t
        weights = weights * _density(log_density(z))
        weights = weights / weights.sum(0)
        mean = (weights * z).sum(0)
        means.append(mean)
        variances.append((weights * (z - mean).square()).sum(0))
    return torch.cat(means).reshape(like.shape).to(like), torch.cat(variances).reshape(like.shape).to(like)


def draws_of(law: Callable[..., Law], u: Tensor, arguments: Sequence[Tensor | float]) -> Tensor:
    """The u-quantile of each law: bisection inverts its distribution function, a cubic on each of many cells.

    Arguments:
        law, arguments: see `moments_of`.
        u: in (0, 1), like the first argument.
    """
    like = torch.as_tensor(arguments[0])
    found = []
    for u_here, *piece in _pieces([u, *arguments]):
        log_density, low, high = law(*piece)
        t = torch.linspace(0, 1, 2 * CELLS + 1, dtype=low.dtype, device=low.device)[:, None]
        f = _density(log_density(low + (high - low) * t))
        ends, middles = f[::2], f[1::2]
        mass = (ends[:-1] + 4 * middles + ends[1:]) / 6  # Simpson's rule, in units of a cell
        upto = mass.cumsum(0)
        wanted = u_here * upto[-1]
        cell = (upto < wanted).sum(0, keepdim=True).clamp_max(CELLS - 1)
        rest = wanted - (upto - mass).gather(0, cell)[0]
        a, b, whole = ends[:-1].gather(0, cell)[0], ends[1:].gather(0, cell)[0], mass.gather(0, cell)[0]
        least, most = torch.zeros_like(u_here), torch.ones_like(u_here)
        for _ in range(30):
            s = (least + most) / 2
            # the cubic whose values at 0 and 1 are 0 and `whole`, and whose slopes are a and b
            below = s * (a + s * (3 * whole - 2 * a - b + s * (a + b - 2 * whole))) < rest
            least, most = torch.where(below, s, least), torch.where(below, most, s)
        found.append(low + (high - low) * (cell[0] + (least + most) / 2) / CELLS)
    return torch.cat(found).reshape(like.shape).to(like)


def reach(slope: Tensor, v: Tensor) -> Tensor:
    """The distance over which a log-density falls by DROP if it falls as slope d + d^2 / (2 v) or faster."""
    return 2 * DROP / (slope + (slope.square() + 2 * DROP / v).sqrt())


def within(low: Tensor, high: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The part of [low, high] that contains N(m, v) there, except for e^-DROP of it."""
    mode = torch.minimum(torch.maximum(m, low), high)
    down, up = ((mode - m).clamp_max(0) / v, (mode - m).clamp_min(0) / v)
    return torch.maximum(low, mode - reach(-down, v)), torch.minimum(high, mode + reach(up, v))


def _density(log_density: Tensor) -> Tensor:
    """The density up to a factor for each value, which makes the largest 1."""
    return (log_density - log_density.amax(0, keepdim=True)).exp()


@lru_cache
def _legendre() -> tuple[Tensor, Tensor]:
    """Nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)


def _pieces(arguments: Sequence[Tensor | float]) -> Iterator[list[Any]]:
    """The arguments piece by piece, flat, with tensors broadcast to the first and in float64; numbers as they are."""
    like = torch.as_tensor(arguments[0])
    flat = [wide(a).expand(like.shape).flatten() if isinstance(a, Tensor) else a for a in arguments]
    number = AT_ONCE.get(like.device.type, AT_ONCE["other"])
    for start in range(0, like.numel(), number):
        yield [a[start : start + number] if isinstance(a, Tensor) else a for a in flat]
