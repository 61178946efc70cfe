"""Scores of samples x_1 … x_n of p(x | y) beside the truth x* of each y: one number for each image.

Notation: B images; n samples of each; D = C H W; R the rank |{i: x_i < x*}| of a pixel.
"""

import torch
from torch import Tensor

from genprior.checks import as_number


def coverage(samples: Tensor, truth: Tensor, level: float) -> Tensor:
    """The fraction of each image's pixels whose truth lies in the central interval of the samples, (B,).

    With n + 1 places of width 1 / (n + 1) side by side in [0, 1], a truth of rank R lies in [R, R + 1] / (n + 1), and
    counts by the share of that place inside [(1 - level) / 2, (1 + level) / 2]; a truth that ties with samples counts
    by the share of all the places it may take. The expectation for an exact sampler is `level` itself, for every n and
    for posteriors with atoms. Beyond the samples there is no knowing how far: where `level` is above `widest(n)`, a
    truth outside of them all still counts 1 - (n + 1) (1 - level) / 2, and no coverage is below that.

    Arguments:
        samples: (B, n, C, H, W).
        truth: (B, C, H, W).
        level: probability of the interval, [0, 1].

    Raises:
        ValueError: samples and truth do not fit or are not finite, or there is no such level.
    """
    check_samples(samples, truth, least=1)
    as_number("level", level, 0, 1)
    places = samples.shape[1] + 1
    first = (samples < truth[:, None]).sum(1).to(truth)
    last = (samples <= truth[:, None]).sum(1).to(truth) + 1
    inside = last.clamp_max(places * (1 + level) / 2) - first.clamp_min(places * (1 - level) / 2)
    return (inside.clamp_min(0) / (last - first)).flatten(1).mean(1)


def widest(n: int) -> float:
    """The largest level of `coverage` that n samples determine: that of the interval from the smallest to the largest.

    (n - 1) / (n + 1), so that 0.9 takes 19 samples and 0.99 takes 199. The coverage at a higher level is above 0 for
    samples that hold no truth at all, and says more of n than of the sampler.
    """
    return (n - 1) / (n + 1)


def crps(samples: Tensor, truth: Tensor) -> Tensor:
    """The fair continuous ranked probability score of each image, mean over pixels, (B,); units of x, lower is better.

    sum_i |x_i - x*| / n - sum_{i,j} |x_i - x_j| / (2 n (n - 1)), and with x_(1) <= … <= x_(n) the second sum is
    sum_i (2 i - n - 1) x_(i) / (n (n - 1)). Its expectation is the score of the sampler's law, for every n.

    Arguments, Raises: as for `coverage`; n >= 2.

    References: T. Gneiting, A. Raftery, Strictly proper scoring rules, prediction, and estimation, 2007. C. Ferro, Fair
    scores for ensemble forecasts, 2014.
    """
    check_samples(samples, truth, least=2)
    n = samples.shape[1]
    r = (samples - truth[:, None]).sort(1).values
    weights = torch.arange(1 - n, n, 2, device=r.device).to(r) / (n * (n - 1))
    return r.abs().mean((1, 2, 3, 4)) - (r.mean((2, 3, 4)) * weights).sum(1)


def energy_score(samples: Tensor, truth: Tensor) -> Tensor:
    """The fair energy score of each image, (B,); units of x, of order sqrt(D), lower is better.

    sum_i |x_i - x*| / n - sum_{i,j} |x_i - x_j| / (2 n (n - 1)), of whole images: the correlations count too.

    Arguments, Raises, References: as for `crps`.
    """
    check_samples(samples, truth, least=2)
    n = samples.shape[1]
    x = samples.flatten(2)
    between = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").sum((1, 2))
    return (x - truth.flatten(1)[:, None]).norm(dim=2).mean(1) - between / (2 * n * (n - 1))


def spread_error_correlation(samples: Tensor, truth: Tensor) -> Tensor:
    """The correlation over pixels of the samples' standard deviation and |mean - x*|, for each image, (B,).

    Below 1 for exact samplers too, as the error of a pixel is one draw; nan where one of the two is constant.

    Arguments, Raises: as for `crps`.
    """
    check_samples(samples, truth, least=2)
    spread = samples.std(1).flatten(1)
    error = (samples.mean(1) - truth).abs().flatten(1)
    spread = spread - spread.mean(1, keepdim=True)
    error = error - error.mean(1, keepdim=True)
    return (spread * error).sum(1) / (spread.norm(dim=1) * error.norm(dim=1))


def check_samples(samples: Tensor, truth: Tensor, least: int) -> None:
    """Refuse what cannot be compared: samples (B, n, C, H, W), n >= least, and truths (B, C, H, W), finite all.

    Raises:
        ValueError: they do not fit or are not finite.
    """
    if samples.ndim != 5 or truth.shape != (len(samples), *samples.shape[2:]) or samples.shape[1] < least:
        raise ValueError(
            f"Give samples (B, n, C, H, W), n >= {least}, of truths (B, C, H, W); got {tuple(samples.shape)} and "
            f"{tuple(truth.shape)}."
        )
    for name, images in (("samples", samples), ("truth", truth)):
        if not images.isfinite().all():
            raise ValueError(f"The {name} hold {int((~images.isfinite()).sum())} values that are NaN or infinite.")
