"""The posterior of an operator's parameters and of the noise, from a photograph."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genprior import images
from genprior.ambient import settled
from genprior.blind.cells import Cells, explore
from genprior.blind.gaussian import ClosedForm
from genprior.blind.identification import Identification, drawn
from genprior.blind.parameters import IDENTIFIABLE, split
from genprior.blind.spectra import of_photographs
from genprior.blind.whittle import POWERS, Whittle
from genprior.blind.windows import SIDE, periodograms
from genprior.checks import UnsupportedError, as_integer, as_number
from genprior.likelihoods import Likelihood
from genprior.noise_level import noise_level
from genprior.operators.base import Operator
from genprior.operators.build import canonical, for_measurement
from genprior.priors.base import Prior
from genprior.priors.find import as_prior

QUIETEST, LOUDEST = 0.001, 0.3  # the range of the noise, if it is unknown
TEXTURE, BLURRED = 5.0, 1.8  # how many times less or more noise there may be than `noise_level` finds
DRAWS = 1000
APART = 1.15  # ratio of one noise level to the one before
LEAST = 0.5  # nats about the parameters, below which a photograph counts as saying nothing


@settled
@torch.no_grad()
def identify(
    img: Any,
    op: str = "motion-deblur",
    *,
    prior: str | Path | Prior | None = None,
    noise: float | tuple[float, float] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    **operator_parameters: Any,
) -> Identification:
    """The posterior p(theta, noise | y) of the parameters of an operator, from the measurement alone.

    x is marginalised, not estimated along with theta: the x and the blur that together make y most likely are y itself
    and no blur. For photographs,

        p(y | theta, noise) = sum_m v_m (prod over windows of sum_k u_mk max_s p(window | s, P_k, theta, noise)^b)^c,

    with m the kinds of sharp photographs, P_k the spectra of their windows, s^2 the contrast of a window, and b and c
    the powers that make the stated intervals hold what they promise; see docs/blind.md. Under a Gaussian prior, the
    likelihood is that of y itself. A priori, theta and the logarithm of the noise are uniform on their ranges, unless
    stated otherwise.

    Arguments:
        img: the measurement y: path, PIL image, numpy array or torch tensor of one image, as for `restore`;
            photographs need sides of at least 64 pixels.
        op: "motion-deblur" (length 1 to 31 pixels, angle), "gaussian-deblur" (width 0 to 5 pixels), or "denoise",
            where the noise alone is unknown.
        prior: of x. None for photographs of any kind; or a Gaussian or a mixture of Gaussians, as for `restore`, for up
            to 4096 values of y, or any number with boundary="circular" and a stationary Gaussian.
        noise: its standard deviation in the units of x, a range (low, high) of it, or None for 0.001 to 0.3.
        draws: the number of `Identification.draws`.
        seed: keys the draws.
        operator_parameters: of the operator: a number if it is known, (low, high) if only a range is, or a law,
            which is anything with `log_prob`, such as `torch.distributions.Normal(15., 3.)`.

    Raises:
        ValueError, TypeError: one of the arguments is not as above.
        UnsupportedError: no parameter of this operator can be identified, or the prior has no p(y) in closed form;
            or the photograph says nothing about the parameters: it is flat, saturated or all noise.
    """
    op = canonical(op)
    unknown, known = split(op, operator_parameters)
    draws = as_integer("draws", draws, 1, 2**32 - 1)
    picture = images.read(img, role="measurement")
    if len(picture.seen) > 1:
        raise ValueError(f"identify takes one image at a time; got {len(picture.seen)}: call it for each.")
    y = picture.seen[0].cpu()
    shape = (y.shape[0], y.shape[1], y.shape[2])
    levels = _levels(_near(y) if noise is None and prior is None else noise)
    log_likelihood = _of_photographs(y, op) if prior is None else ClosedForm(y, as_prior(prior, "cpu", shape))

    def at(theta: Tensor) -> Tensor:
        found = {each.name: float(value) for each, value in zip(unknown, theta)}
        return log_likelihood(for_measurement(op, shape, **known, **found), levels)

    cells = explore(at, unknown, levels, POWERS[op].noise if prior is None else 1.0)
    if cells.information < LEAST and any(each in IDENTIFIABLE[op] for each in unknown):
        raise UnsupportedError(
            f"This photograph does not say: of {' and '.join(p.name for p in unknown)} it tells next to nothing, for "
            f"{_why(y, cells)}. Give numbers, ranges or laws, or another part of the photograph."
        )
    return Identification(
        op=op,
        known=known,
        unknown=tuple(unknown),
        measurement_shape=shape,
        cells=cells,
        noise_was_known=len(levels) == 1,
        draws=drawn(cells, tuple(unknown), draws, seed),
    )


def _near(y: Tensor) -> tuple[float, float]:
    """The range of noise levels around the one that `noise_level` finds; those farther away need no evaluation."""
    level = min(max(float(noise_level(y[None])), 2 * QUIETEST), LOUDEST / 2)
    return max(QUIETEST, level / TEXTURE), level * BLURRED


def _levels(noise: Any) -> Tensor:
    """The noise levels to evaluate, ascending, float64; one if the noise is known."""
    if isinstance(noise, str | Likelihood):
        raise ValueError(
            f"noise={noise!r}: a blur is identified in Gaussian noise only. State the width, or the length and angle, "
            "or leave noise out."
        )
    what = "noise, a standard deviation in the units of the image,"
    given: Any = noise.item() if isinstance(noise, Tensor) and noise.numel() == 1 else noise
    if isinstance(given, tuple | list) and len(given) != 2:
        raise ValueError(f"A range of the noise is (low, high), two numbers; got {noise!r}.")
    if given is None or isinstance(given, tuple | list):
        low, high = (as_number(what, each, QUIETEST / 10, 1) for each in given or (QUIETEST, LOUDEST))
    elif isinstance(given, int | float) and given == 0:
        raise ValueError(
            "noise=0: a photograph has that of its bytes at the least, 0.0011, and a blur is identified in some noise. "
            "Leave noise out, or give what there is, as noise=0.001."
        )
    else:
        return torch.tensor([as_number(what, given, QUIETEST / 10, 1)], dtype=torch.float64)
    if not low < high:
        raise ValueError(f"A range of the noise is (low, high), low below high; got {noise!r}.")
    number = max(4, 1 + round(math.log(high / low) / math.log(APART)))
    return torch.linspace(math.log(low), math.log(high), number, dtype=torch.float64).exp()


def _of_photographs(y: Tensor, op: str) -> Callable[[Operator, Tensor], Tensor]:
    if min(y.shape[1:]) < SIDE or len(y) not in (1, 3):
        raise ValueError(
            f"A photograph is identified by windows of {SIDE} x {SIDE} pixels, in grey or colour; got "
            f"{tuple(y.shape)}. Give a larger part of it, or a Gaussian prior of such images."
        )
    I = periodograms(y)
    if not len(I):
        raise UnsupportedError(
            "This photograph does not say: it is saturated or constant in every part. Give another exposure."
        )
    return Whittle(I, of_photographs(), POWERS[op])


def _why(y: Tensor, cells: Cells) -> str:
    loud = float((cells.probabilities.sum(0) * cells.noise).sum())
    flat = float(y.double().std(dim=(1, 2)).max())
    return (
        f"it is flat, of standard deviation {flat:.2g}" if flat < 2 * loud else "nothing in it is sharp enough to tell"
    )
