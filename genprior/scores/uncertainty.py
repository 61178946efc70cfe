"""Scores of samples x_1 … x_n of p(x | y) against the truth x* of each y: one number per image.

Notation: B images; n samples of each; D = C H W; R the rank |{i: x_i < x*}| of a pixel.
"""

import torch
from torch import Tensor

from genprior.checks import as_number


def coverage(samples: Tensor, truth: Tensor, level: float) -> Tensor:
    """The fraction of each image's pixels whose truth lies in the central interval of the samples, (B,).

    Divide [0, 1] into n + 1 places of width 1 / (n + 1). A truth of rank R lies in [R, R + 1] / (n + 1), and counts by
    the share of that place inside [(1 - level) / 2, (1 + level) / 2]; a truth that ties with samples counts by the
    share of all the places it may take. An exact sampler's expectation is `level` itself, for every n and for
    posteriors with atoms. Samples cannot show how far a truth lies beyond them: if `level` is above `widest(n)`, a
    truth outside them all still counts 1 - (n + 1) (1 - level) / 2, and no coverage is below that.

    Arguments:
        samples: (B, n, C, H, W).
        truth: (B, C, H, W).
        level: probability of the interval, in [0, 1].

    Raises:
        ValueError: samples and truth do not match or are not finite, or `level` is out of range.
    """
    check_samples(samples, truth, least=1)
    as_number("level", level, 0, 1)
    places = samples.shape[1] + 1
    first = (samples < truth[:, None]).sum(1).to(truth)
    last = (samples <= truth[:, None]).sum(1).to(truth) + 1
    inside = last.clamp_max(places * (1 + level) / 2) - first.clamp_min(places * (1 - level) / 2)
    return (inside.clamp_min(0) / (last - first)).flatten(1).mean(1)


def widest(n: int) -> float:
    """The largest level of `coverage` that n samples determine: that of the interval from smallest to largest.

    It is (n - 1) / (n + 1), so 0.9 takes 19 samples and 0.99 takes 199. At a higher level, coverage is above 0 even for
    samples that never enclose the truth, and says more about n than about the sampler.
    """
    return (n - 1) / (n + 1)


def crps(samples: Tensor, truth: Tensor) -> Tensor:
    """The fair continuous ranked probability score of each image, mean over pixels, (B,); units of x, lower is better.

    sum_i |x_i - x*| / n - sum_{i,j} |x_i - x_j| / (2 n (n - 1)), and with x_(1) <= … <= x_(n) the second sum is
    sum_i (2 i - n - 1) x_(i) / (n (n - 1)). Its expectation is the score of the sampler's distribution, for every n.

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

    sum_i |x_i - x*| / n - sum_{i,j} |x_i - x_j| / (2 n (n - 1)), for whole images, so correlations count too.

    Arguments, Raises, References: as for `crps`.
    """
    check_samples(samples, truth, least=2)
    n = samples.shape[1]
    x = samples.flatten(2)
    between = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").sum((1, 2))
    return (x - truth.flatten(1)[:, None]).norm(dim=2).mean(1) - between / (2 * n * (n - 1))


def spread_error_correlation(samples: Tensor, truth: Tensor) -> Tensor:
    """The correlation over pixels between the samples' standard deviation and |mean - x*|, for each image, (B,).

    Below 1 even for exact samplers, since the error of a pixel is one draw; nan if one of the two is constant.

    Arguments, Raises: as for `crps`.
    """
    check_samples(samples, truth, least=2)
    spread = samples.std(1).flatten(1)
    error = (samples.mean(1) - truth).abs().flatten(1)
    spread = spread - spread.mean(1, keepdim=True)
    error = error - error.mean(1, keepdim=True)
    return (spread * error).sum(1) / (spread.norm(dim=1) * error.norm(dim=1))


def check_samples(samples: Tensor, truth: Tensor, least: int) -> None:
    """Refuse samples and truths other than (B, n, C, H, W), n >= least, and (B, C, H, W), all finite.

    Raises:
        ValueError: they do not match or are not finite.
    """
    if samples.ndim != 5 or truth.shape != (len(samples), *samples.shape[2:]) or samples.shape[1] < least:
        raise ValueError(
            f"Give samples (B, n, C, H, W), n >= {least}, of truths (B, C, H, W); got {tuple(samples.shape)} and "
            f"{tuple(truth.shape)}."
        )
    for name, images in (("samples", samples), ("truth", truth)):
        if not images.isfinite().all():
            raise ValueError(f"The {name} hold {int((~images.isfinite()).sum())} values that are NaN or infinite.")
