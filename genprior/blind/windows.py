"""A photograph as the periodograms of its windows, and what a blur does to them.

Notation: N the side of a window; w its taper; z the photograph along the axis of grey; f a frequency of a window; a the
values of z in it; k^ a transfer function.
"""

import math
from functools import lru_cache

import torch
from einops import rearrange
from torch import Tensor

from genprior.checks import UnsupportedError
from genprior.operators.base import Operator, name_of
from genprior.operators.blur import Blur
from genprior.operators.denoise import Denoise

SIDE = 64
STRIDE = SIDE // 2
MOST = 64  # windows that count: those of highest contrast
CLIPPED = 16  # pixels that share the least or the largest value of the photograph: too many for chance
SATURATED = 0.01  # the share of a window's pixels that may be saturated
SLOPE = 2.4  # of the power spectrum of photographs, |f|^-SLOPE


def periodograms(y: Tensor) -> Tensor:
    """|F w (a - m)|^2 / N^2 of the `MOST` unsaturated windows of highest contrast, (W, F); m is the mean of a under w.

    White noise of variance v has a periodogram of mean v. Colours are added, z = sum_c y_c / sqrt(C): noise keeps its
    level, and photographs have nearly all their contrast along that axis.

    Arguments:
        y: (C, H, W), sides of at least N.

    Returns:
        (W, F), W = 0 where every window is saturated.
    """
    z = (y.sum(0) / math.sqrt(len(y))).double()
    rows, columns = _starts(z.shape[0]), _starts(z.shape[1])
    every = torch.stack([z[i : i + SIDE, j : j + SIDE] for i in rows for j in columns])
    saturated = _saturated(y)
    share = torch.stack([saturated[i : i + SIDE, j : j + SIDE].double().mean() for i in rows for j in columns])
    a, w = every[share <= SATURATED], taper()
    if not len(a):
        return torch.empty(0, int(chosen().sum()))
    a = a - (w * a).sum((1, 2), keepdim=True) / w.sum()
    I = torch.fft.rfft2(w * a).abs().square()[:, chosen()] / SIDE**2
    return I[I.mean(1).argsort(descending=True)[:MOST]].float()


def _starts(length: int) -> list[int]:
    """Where windows begin: as evenly spaced as possible, at most `STRIDE` apart."""
    number = math.ceil((length - SIDE) / STRIDE) + 1
    return [round(k * (length - SIDE) / max(1, number - 1)) for k in range(number)]


def _saturated(y: Tensor) -> Tensor:
    """Pixels (H, W) where a channel has the least or the largest value of y, if at least `CLIPPED` do."""
    found = torch.zeros_like(y[0], dtype=torch.bool)
    for extreme in (y.min(), y.max()):
        at = (y == extreme).any(0)
        found |= at & (at.sum() >= CLIPPED)
    return found


@lru_cache
def taper() -> Tensor:
    """Hann's taper, w(i, j) ~ sin^2(pi (i + 1/2) / N) sin^2(pi (j + 1/2) / N), of mean square 1.

    Its leakage from other frequencies falls as their distance^-6. That of a plain sine falls as distance^-4: the
    leakage from a blurred photograph's low frequencies then hides what is left of the high ones.
    """
    line = _taper_line()
    return line.outer(line)


@lru_cache
def _taper_line() -> Tensor:
    line = torch.sin(math.pi * (torch.arange(SIDE, dtype=torch.float64) + 0.5) / SIDE).square()
    return line / line.square().mean().sqrt()


@lru_cache
def chosen() -> Tensor:
    """Which of the frequencies (N, N / 2 + 1) count, bool.

    One of each pair f and -f, none that the mean of a window reaches through the taper, and of the others every second,
    like the white squares of a chessboard: through Hann's taper, neighbours say nearly the same, and all of them would
    tell no more.
    """
    i = (torch.fft.fftfreq(SIDE) * SIDE).round()[:, None]
    j = torch.arange(SIDE // 2 + 1)[None]
    once = (j > 0) & (j < SIDE // 2) | (j == 0) & (i > 0)
    white = (i.abs() + j) % 2 == 0
    return once & white & ((i.abs() > 1) | (j > 1))


def seen_through(operator: Operator) -> Tensor:
    """The share of a photograph's mean periodogram that the operator passes, (F,).

    The mean periodogram is the spectrum, smoothed by the |F w|^2 of the taper, so that
        q(f) = (|Fw|^2 * (P |k^|^2))(f) / (|Fw|^2 * P)(f),   P(f) = |f|^-SLOPE,
    which fills the zeros of |k^|^2 as far as a window does. Windows lie within y, so q is the same for every boundary.

    Raises:
        UnsupportedError: the operator is no convolution.
    """
    if isinstance(operator, Denoise):
        return torch.ones(int(chosen().sum()))
    if not isinstance(operator, Blur):
        raise UnsupportedError(f"Of photographs, blurs are identified; {name_of(operator)} is none.")
    kernel = operator.kernel[0].double()
    power = torch.fft.fft2(kernel, s=(2 * SIDE, 2 * SIDE)).abs().square()
    P = _typical()
    return (_smoothed(P * power) / _smoothed(P))[:, : SIDE // 2 + 1][chosen()].float()


@lru_cache
def _typical() -> Tensor:
    f = torch.fft.fftfreq(2 * SIDE, dtype=torch.float64)
    return (f[:, None] ** 2 + f**2 + (1 / (4 * SIDE)) ** 2) ** (-SLOPE / 2)


def _smoothed(S: Tensor) -> Tensor:
    """|Fw|^2 * S at the frequencies of a window, (N, N), from S at twice as many, (2 N, 2 N)."""
    spread = torch.fft.fft(_taper_line(), n=2 * SIDE).abs().square() / (2 * SIDE**2)
    apart = 2 * torch.arange(SIDE)[:, None] - torch.arange(2 * SIDE)
    M = spread[apart % (2 * SIDE)]
    return M @ S @ rearrange(M, "i j -> j i")
