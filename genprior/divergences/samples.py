"""Distances between two distributions, computed from draws alone."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from genprior.ambient import settled
from genprior.devices import pixels_at_once
from genprior.linalg import total
from genprior.noise import Noise
from genprior.table import Estimate

PROJECTIONS = 100
FOR_THE_MEDIAN = 1000  # points of each set whose distances give the median


@settled
def sliced_wasserstein(x: Tensor, y: Tensor, projections: int = PROJECTIONS, seed: int = 0) -> float:
    """Mean over random directions of the Wasserstein-1 distance between the projections of two sets of n points each.

    For two sets from the same distribution it is not 0, but falls as 1 / sqrt(n); compare it with that floor.

    Arguments:
        x, y: (n, ...), of the same shape.
        projections: number of directions, uniform on the sphere.
        seed: of the directions.

    References: N. Bonneel, J. Rabin, G. Peyré, H. Pfister, Sliced and Radon Wasserstein barycenters of measures, 2015.
    """
    x, y = x.flatten(1), y.flatten(1)
    directions = Noise(seed, torch.arange(projections))(x.new_empty(projections, x.shape[1]))
    directions = directions / directions.norm(dim=1, keepdim=True)
    return float(((x @ directions.T).sort(0).values - (y @ directions.T).sort(0).values).abs().mean())


@settled
def mmd(x: Tensor, y: Tensor, widths: float | Sequence[float] | None = None) -> Estimate:
    """The squared maximum mean discrepancy |E k(x, .) - E k(y, .)|^2 of two distributions, and its standard error.

        k(a, b) = mean_w exp(-|a - b|^2 / (2 w^2))
        h_ij    = k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i)
        MMD^2   = sum_{i != j} h_ij / (n (n - 1))

    Unbiased for given widths, so below 0 half the time if the distributions are equal. The standard error is that of
    the jackknife over pairs (x_i, y_i): pairs must be independent of each other, but x_i need not be independent of
    y_i; if the distributions are equal it is too large, by sqrt(2) in the limit. It evaluates 4 n^2 kernel values per
    width, in blocks that fit into memory.

    Arguments:
        x, y: (n, ...), of the same shape, n at least 3.
        widths: of the kernels, in the units of x; None for the median distance between points of both sets together
            (of the first 1000 of each).

    Raises:
        ValueError: the shapes differ, there are too few points, or a width is not above 0.

    References: A. Gretton, K. Borgwardt, M. Rasch, B. Schölkopf, A. Smola, A kernel two-sample test, 2012 (the
    estimator, and the median). J. Arvesen, Jackknifing U-statistics, 1969. B. Efron, C. Stein, The jackknife estimate
    of variance, 1981.
    """
    if x.shape != y.shape or len(x) < 3:
        raise ValueError(f"x and y have shapes {tuple(x.shape)} and {tuple(y.shape)}: give two of one, of 3 points up.")
    x, y = x.flatten(1).double(), y.flatten(1).double()
    if widths is None:
        widths = float(torch.pdist(torch.cat([x[:FOR_THE_MEDIAN], y[:FOR_THE_MEDIAN]])).median())
    widths = [widths] if isinstance(widths, float | int) else widths
    if not widths or not all(0 < w < math.inf for w in widths):
        raise ValueError(f"widths are {widths}: give numbers above 0; if all points are the same there is no median.")
    n = len(x)
    rows = max(1, pixels_at_once(x.device) // n)

    def kernel_sums(a: Tensor, b: Tensor) -> Tensor:
        """sum_{j != i} k(a_i, b_j), (n,)."""
        sums = []
        for block, i in zip(a.split(rows), torch.arange(n, device=a.device).split(rows)):
            squared = torch.cdist(block, b).square()
            k = total((squared / (-2 * w**2)).exp() for w in widths) / len(widths)
            sums.append(k.sum(1) - k[torch.arange(len(i), device=a.device), i])
        return torch.cat(sums)

    h = kernel_sums(x, x) + kernel_sums(y, y) - kernel_sums(x, y) - kernel_sums(y, x)
    whole = h.sum()
    without = (whole - 2 * h) / ((n - 1) * (n - 2))  # entry i: the estimate without pair i
    variance = (without - without.mean()).square().sum() * (n - 1) / n
    return Estimate(float(whole / (n * (n - 1))), float(variance.sqrt()))
