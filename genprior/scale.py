"""Warn of mistakes of scale: a measurement, noise level or kernel for images in 0..255 instead of [0, 1]."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor

from genprior.likelihoods import Likelihood
from genprior.operators.base import name_of
from genprior.operators.linear import LinearOperator
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior

# It is a mistake if more than SHARE of the values of y lie outside the range of A x, and their root mean square
# distance exceeds MARGIN of the range plus FACTOR times the noise, which is only estimated.
MARGIN = 0.05
SHARE = 0.02
FACTOR = 1.5


def warn_of_scale(measurement: Measurement, prior: Prior) -> None:
    """Warn if y is out of the operator's range for images in [0, 1], or if the noise exceeds that range.

    Values that noise takes outside do so by a root mean square of at most the noise, as where A x is 0. So -1..1 is
    noticed too, unless hardly anything in the image is dark. Each image is judged on its own. Priors of images in
    another range, such as a Gaussian around 300, and nonlinear operators are not checked.
    """
    if not (_is_of_unit_range(prior) and isinstance(measurement.operator, LinearOperator)):
        return
    y, A = measurement.y, measurement.operator
    low, high, usual = _range_of_values(measurement)
    extent = (high - low).flatten(1).amax(1)
    noise = _level(measurement, high).flatten()
    loud = noise > extent.clamp_min(1)
    if loud.any():
        largest = float(torch.where(loud, noise, 0).max())
        warnings.warn(
            f"The noise is {largest:g}, a standard deviation in the units of the image, whose values are from 0 to 1: "
            f"y then tells almost nothing. For a noise of {largest:g} on 0..255, give {largest / 255:.3g}.",
            stacklevel=4,
        )
    seen = (high > low).expand_as(y).flatten(1)
    outside = (torch.maximum(low - y, y - high) - usual).clamp_min(0).flatten(1).where(seen, 0)
    number = (outside > 0).sum(1)
    far = (outside.square().sum(1) / number.clamp_min(1)).sqrt() > FACTOR * noise + MARGIN * extent
    wrong = (far & (number > SHARE * seen.sum(1))).nonzero().flatten().tolist()
    if not wrong:
        return
    i = wrong[0]
    values = y[i].flatten()[seen[i]]
    which = "y" if len(y) == 1 else f"y of image {', '.join(map(str, wrong))}"
    given, made = (f"{float(a.min()):.3g} to {float(b.max()):.3g}" for a, b in ((values, values), (low, high)))
    warnings.warn(
        f"{which} has values from {given}, far outside the {made} that {name_of(A)} makes of images in [0, 1]. Divide "
        "0..255 by 255, map -1..1 by (y + 1) / 2, and check that the operator is the right one.",
        stacklevel=4,
    )


def _level(measurement: Measurement, high: Tensor) -> Tensor:
    """The noise of each image; for a likelihood, its largest standard deviation, at the largest values of A x."""
    y, noise = measurement.y, measurement.noise
    if isinstance(noise, Likelihood):
        return noise.predicted(high.expand_as(y))[1].sqrt().flatten(1).amax(1)
    return torch.as_tensor(noise, dtype=y.dtype, device=y.device)


def warn_of_sum(kernel: Tensor | None) -> None:
    """Warn if a kernel, (kh, kw) or (B, kh, kw), does not sum to 1, to within 1 %."""
    if kernel is None:
        return
    sums = kernel.detach().cpu().double().flatten(-2).sum(-1).flatten()
    furthest = float(sums[(sums - 1).abs().argmax()])
    if abs(furthest - 1) > 0.01:
        warnings.warn(
            f"The kernel sums to {furthest:.4g}, not to 1, so it changes the brightness of the image. Divide it by its "
            "sum; if the sum is intended, give an operator, Blur(kernel, image_shape).",
            stacklevel=2,
        )


def _is_of_unit_range(prior: Prior) -> bool:
    """Whether values in [0, 1] can have the prior's centre c and spread: their variance is at most c (1 - c)."""
    if getattr(prior, "centre", None) is None:  # priors without `denoise` need not have one
        return False
    centre = torch.as_tensor(prior.centre).cpu().double()
    most = float((centre * (1 - centre)).mean())
    return bool(((centre >= 0) & (centre <= 1)).all()) and prior.spread <= 1.05 * math.sqrt(max(most, 0))


def _range_of_values(measurement: Measurement) -> tuple[Tensor, Tensor, Tensor]:
    """The least and the largest of each value of A x for x in [0, 1], (1 or B, *measurement_shape), and a margin.

    For an operator without negative weights they are 0 and A 1. For others, a draw of x with random black and white
    pixels shows how far they go beyond; images are not white noise, and several times that is no surprise.
    """
    A, y = measurement.operator, measurement.y
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(A.batch, *A.image_shape, generator=generator) < 0.5).to(y)
    white, drawn = A(torch.ones_like(x)), A(x)
    low, high = white.clamp_max(0), white.clamp_min(0)
    inverse = white - drawn  # A (1 - x)
    least, largest = torch.minimum(drawn, inverse), torch.maximum(drawn, inverse)
    beyond = torch.maximum(low - least, largest - high).flatten(1)
    beyond = beyond[:, :: math.ceil(beyond.shape[1] / 2**16)]
    usual = 4 * beyond.quantile(0.95, dim=1).clamp_min(0).reshape(-1, 1, 1, 1)
    return torch.minimum(low, least), torch.maximum(high, largest), usual
