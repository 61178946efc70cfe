"""Photon noise of a measurement, estimated from the measurement alone."""

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from genprior.noise_level import CLIPPED, WINDOWS_A_VALUE, anywhere, constant_areas, level_of

SIDE = 5  # of windows
GROUPS = 16  # of windows of equal brightness, in each channel
AT_MOST = 4_000  # windows of a group: more do not improve its level
DARK = 0.02  # share of a group's values at the lower end; more mean too few counts, or clipping
CUT_OFF = 0.1  # share of a group's values at the upper end; more make its variance a guess
FEWEST = 4  # groups that a line through them needs
SCATTER = 0.05  # of the logarithm of a group's variance: what texture adds at the least
CERTAIN = 4.0  # standard errors by which the gain must exceed 0


def photon_noise(y: Tensor, holes: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """gain and sd of photon noise in y, Var[y | z] = gain z + sd^2, by a line through variances against brightness.

    Windows of one channel are sorted by their mean into groups of equal size, and the variance of a group is that of
    its weakly textured windows, see `noise_level`. gain and sd^2, both at least 0, best fit the logarithms of the
    variances, under a loss that is robust to a few textured groups. Windows with a hole or a constant area are left
    out. So are groups at an end of the range, in which at least `DARK` or `CUT_OFF` of the values equal the smallest or
    the largest of the channel: below four counts the line extrapolates. If fewer values are clipped above, the variance
    is corrected as that of a clipped Gaussian.

    Arguments:
        y: (B, C, H, W), whose noise was not blurred, compressed or sharpened.
        holes: (B or 1, 1 or C, H, W) bool, True where y means nothing; None for no holes.

    Returns:
        gain > 0 and sd >= 0, (B, 1, 1, 1) each, in the units of y.

    Raises:
        ValueError: the noise of y does not grow with its brightness, or not enough of y shows whether it does.

    References: A. Foi, M. Trimeche, V. Katkovnik, K. Egiazarian, Practical Poissonian-Gaussian noise modeling and
    fitting for single-image raw-data, 2008 (there, deviations of wavelet coefficients, and a model of clipped groups).
    """
    holes = torch.zeros_like(y[:1, :1], dtype=torch.bool) if holes is None else holes
    each = zip(y.detach().double().cpu(), holes.cpu().expand(len(y), y.shape[1], -1, -1))
    gain, sd = torch.tensor([_one_image(a, hole) for a, hole in each]).T
    return gain.to(y).reshape(-1, 1, 1, 1), sd.to(y).reshape(-1, 1, 1, 1)


def _one_image(y: Tensor, hole: Tensor) -> tuple[float, float]:
    y = torch.where(hole, 0, y)
    found = [group for channel, missing in zip(y, hole) for group in _groups(channel, missing)]
    if len(found) < FEWEST:
        raise ValueError(
            f"Photon noise cannot be estimated: {len(found)} groups of equally bright pixels, of {FEWEST} needed, are "
            "large enough and neither clipped nor below four counts. State it: noise=Poisson(gain), or "
            "PoissonGaussian(gain, sd), of genprior.likelihoods."
        )
    mean, variance = np.array(found).T
    (gain, offset), error = _line(mean, variance)
    if not gain > CERTAIN * error:
        raise ValueError(
            f"The noise does not grow with the brightness as photon noise does: from {mean.min():.3g} to "
            f"{mean.max():.3g} the gain is {gain:.2g} +- {error:.1g}. Leave noise out to estimate a single level, or "
            "state it: noise=0.02, noise=Poisson(gain)."
        )
    return gain, offset**0.5


def _groups(y: Tensor, hole: Tensor) -> list[tuple[float, float]]:
    """Mean and noise variance of the windows of a channel, (H, W), for each group of equal brightness."""
    if min(y.shape) < SIDE:
        return []
    whole = ~anywhere(hole | constant_areas(y[None]), SIDE, SIDE)
    places = whole.flatten().nonzero()[:, 0]
    groups = min(GROUPS, len(places) // (WINDOWS_A_VALUE * SIDE**2))
    if not groups:
        return []
    windows = y.unfold(0, SIDE, 1).unfold(1, SIDE, 1)
    brightness = windows.mean((2, 3)).flatten()[places]
    known = y[~hole]
    low, high = (end if (known == end).sum() >= CLIPPED else torch.nan for end in (known.min(), known.max()))
    found = []
    for group in brightness.argsort().tensor_split(groups):
        chosen = places[group[:: -(-len(group) // AT_MOST)]]
        rows, columns = chosen // windows.shape[1], chosen % windows.shape[1]
        values = rearrange(windows[rows, columns], "n h w -> n 1 h w")
        at_low, at_high = (float((values == end).double().mean()) for end in (low, high))
        variance = level_of(values) ** 2
        if at_low < DARK and at_high < CUT_OFF and variance > 0:
            found.append(_unclipped(float(values.mean()), variance, at_high))
    return found


def _unclipped(mean: float, variance: float, share: float) -> tuple[float, float]:
    """Mean and variance of a Gaussian, from those after a `share` of it was clipped at its upper end."""
    from scipy.stats import norm

    if not share:
        return mean, variance
    t = float(norm.isf(share))
    density = float(norm.pdf(t))
    shift = t * share - density  # of the mean of n ~ N(0, 1) clipped to t, and its variance
    narrowed = 1 - share - t * density + t**2 * share - shift**2
    sd = (variance / narrowed) ** 0.5
    return mean - shift * sd, sd**2


def _line(mean: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, float]:
    """gain and sd^2 of ln variance = ln(gain mean + sd^2), and the standard error of the gain."""
    from scipy.optimize import least_squares

    unit = variance.mean() / max(mean.mean(), 1e-12), variance.mean()
    bright = np.maximum(mean, 0)

    def misfit(share: np.ndarray) -> np.ndarray:
        return np.log((share[0] * unit[0] * bright + share[1] * unit[1] + 1e-12 * unit[1]) / variance)

    fit = least_squares(misfit, [0.5, 0.5], bounds=(0, np.inf), loss="soft_l1", f_scale=SCATTER)
    scatter = max(SCATTER, float(np.median(np.abs(fit.fun))) / 0.6745)
    covariance = scatter**2 * np.linalg.pinv(fit.jac.T @ fit.jac)
    return fit.x * unit, float(np.sqrt(covariance[0, 0])) * unit[0]
