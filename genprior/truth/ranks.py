"""Ranks of the truth x* among samples x_1 … x_n of p(x | y), and tests of whether they are uniform.

If x* is a draw from the prior and the sampler is exact, x* and its samples are n + 1 draws from one p(x | y),
independent given y. For any f that depends on nothing but y, the rank |{i: f(x_i) < f(x*)}| is then uniform on the
n + 1 places 0, …, n: what the tests expect of an exact sampler holds for every n.

Notation: B images; n samples of each; f a test quantity.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from genprior.ambient import own, settled
from genprior.noise import Noise
from genprior.scores.uncertainty import check_samples

# (B, m, C, H, W) -> (B, m): a number for each of m candidate truths of each of B measurements.
Quantity = Callable[[Tensor], Tensor]

GROUPS = 20  # groups of places for chi^2, at most: more would blunt it against a curved or tilted histogram
FEWEST = 10  # images that give each of two groups five expected ranks


@settled
def ranks(samples: Tensor, truth: Tensor, quantities: Mapping[str, Quantity], noise: Noise) -> dict[str, Tensor]:
    """The rank of f(x*) among f(x_1) … f(x_n), for each f and each image: name -> (B,) whole numbers from 0 to n.

    Ties are broken at random, with equal probability for each possible rank.

    Arguments:
        samples: (B, n, C, H, W).
        truth: (B, C, H, W).
        quantities: name -> f.
        noise: B rows, which break the ties.

    Raises:
        ValueError: samples and truth do not match or are not finite.

    References: S. Talts, M. Betancourt, D. Simpson, A. Vehtari, A. Gelman, Validating Bayesian inference algorithms
    with simulation-based calibration, 2018.
    """
    check_samples(samples, truth, least=1)
    found = {}
    for name, f in quantities.items():
        drawn, own = f(samples).cpu(), f(truth[:, None]).cpu()
        below = (drawn < own).sum(1)
        tied = (drawn == own).sum(1)
        u = noise.uniform(own.double()).flatten()
        found[name] = below + (u * (tied + 1)).long()
    return found


class Uniformity(NamedTuple):
    """Two tests of whether ranks are uniform: chi^2 detects a curved histogram, Kolmogorov-Smirnov a tilted one."""

    chi2: float
    chi2_p: float
    ks: float
    ks_p: float


@settled
def sbc(ranks: Tensor, n: int) -> Uniformity:
    """Tests of simulation-based calibration: are the ranks of independent images uniform on 0, …, n?

    chi^2: over min(n + 1, B / 5, 20) groups of neighbouring places, as equal as possible, each with its exact
    expectation. Kolmogorov-Smirnov: max_k |share of ranks below k - k / (n + 1)|; its p-value is that of continuous
    uniform numbers, which the ranks round: it is never too low, and more accurate with more places.

    Arguments:
        ranks: (B,) whole numbers from 0 to n, B >= 10.
        n: number of samples each truth was ranked against.

    Raises:
        ValueError: there are fewer ranks, or some are out of range.
    """
    from scipy import stats

    level, share = _curve(ranks, n)
    B, places = len(ranks), n + 1
    groups = min(places, B // 5, GROUPS)
    edges = torch.arange(groups + 1) * places // groups
    observed, expected = B * share[edges].diff(), B * level[edges].diff()
    chi2 = float(((observed - expected).square() / expected).sum())
    ks = float((share - level).abs().max())
    return Uniformity(chi2, float(stats.chi2.sf(chi2, groups - 1)), ks, float(stats.kstwo.sf(ks, B)))


class ExpectedCoverage(NamedTuple):
    """The share of truths in the credible regions of each level, both (n + 2,), and its Kolmogorov-Smirnov test."""

    level: Tensor
    coverage: Tensor
    ks: float
    ks_p: float


@settled
def expected_coverage(ranks: Tensor, n: int) -> ExpectedCoverage:
    """How often the region {x: f(x) < its quantile of level k / (n + 1) among the samples} holds the truth.

    coverage(k / (n + 1)) = share of ranks below k, for k = 0, …, n + 1; for an exact sampler, k / (n + 1) on average.

    Arguments, Raises: as `sbc`.
    """
    test = sbc(ranks, n)
    return ExpectedCoverage(*_curve(ranks, n), test.ks, test.ks_p)


def distance_from(references: Tensor) -> Quantity:
    """f(x) = |x - r|, with one r for each image, (B, C, H, W)."""
    references = own(references)
    return lambda x: (x - references[:, None]).flatten(2).norm(dim=2)


@settled
def tarp(samples: Tensor, truth: Tensor, references: Tensor, noise: Noise) -> ExpectedCoverage:
    """Tests of accuracy with random points: coverage of the balls around r that hold a share `level` of the samples.

    Only an exact sampler passes with every r that is a function of y. References independent of y do not detect a
    sampler that ignores y.

    Arguments:
        samples: (B, n, C, H, W).
        truth: (B, C, H, W).
        references: r, (B, C, H, W), drawn without looking at the truth.
        noise: B rows, which break the ties.

    Raises:
        ValueError: samples and truth do not match or are not finite, or are of fewer than 10 images.

    References: P. Lemos, A. Coogan, Y. Hezaveh, L. Perreault-Levasseur, Sampling-based accuracy testing of posterior
    estimators for general inference, 2023.
    """
    found = ranks(samples, truth, {"distance": distance_from(references)}, noise)
    return expected_coverage(found["distance"], samples.shape[1])


def _curve(ranks: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """k / (n + 1) and the share of ranks below k, for k = 0, …, n + 1."""
    if ranks.ndim != 1 or ranks.is_floating_point() or len(ranks) < FEWEST:
        raise ValueError(
            f"ranks are (B,) whole numbers of B >= {FEWEST} images; got {ranks.dtype} {tuple(ranks.shape)}."
        )
    if not 0 <= int(ranks.min()) <= int(ranks.max()) <= n:
        raise ValueError(f"ranks among {n} samples are 0 to {n}; got {int(ranks.min())} to {int(ranks.max())}.")
    below = F.pad(torch.bincount(ranks, minlength=n + 1).cumsum(0), (1, 0))
    return torch.linspace(0, 1, n + 2, dtype=torch.float64), below.double() / len(ranks)
