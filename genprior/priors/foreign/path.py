"""Checks, by a few evaluations, that a velocity belongs to its stated path.

Notation: as in `velocity`. The gain of v at t along a direction d is (v(d, t) - v(-d, t)) d / 2 |d|^2; for Gaussian u
it is (S / (S + s^2) / t - 1) / (1 - t), S the variance of u along d. Whatever the images,

- near the image, with s far below their spread, v = u - n and n is hardly visible: a flat image has gain 1;
- near noise, with t far below 1, v = mean - n: white noise has gain -1;
- half-way, v takes a flat image for u, with a gain up to 2, and white noise for n, with a gain down to -2: the contrast
  of the two is not negative where images are smoother than noise.

If the images are white noise the contrast is 0. Then the conventions are indistinguishable, and if the variance of the
images is that of the noise, both are right.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genprior.checks import Shape
from genprior.devices import state_of
from genprior.noise import Noise

if TYPE_CHECKING:
    from genprior.priors.foreign.velocity import Reading, VelocityPrior

NEAR = 0.1  # s near the image, in multiples of the spread of u
FAR = 0.02  # t near noise
SURE = 0.8  # threshold for the gains' error, which is 2 or more if something is reversed
ENDS = (1.0, 1000.0)
# Whether time begins at noise, and the sign of the velocity.
READINGS = ((True, 1), (False, -1), (True, -1), (False, 1))


@torch.no_grad()
def check_path(prior: VelocityPrior, image_shape: Shape) -> None:
    """Refuse a velocity that behaves like one of another convention than the stated one.

    Raises:
        ValueError: the time, its scale or the sign seems to be another; the message says which.
    """
    given = prior.reading
    flat = torch.full((1, *image_shape), prior.spread / given.unit).to(state_of(prior))
    noise = Noise(0, torch.zeros(1, dtype=torch.long))(flat)
    off = _off(prior, flat, noise)
    if off < SURE:
        return
    offs = {}
    for end, (from_noise, sign) in itertools.product({given.end, *ENDS}, READINGS):
        reading = given._replace(end=end, from_noise=from_noise, sign=sign)
        with _read_as(prior, reading):
            offs[reading] = _off(prior, flat, noise)
    best = min(offs, key=offs.__getitem__)
    if best == given or offs[best] > SURE or off - offs[best] < SURE:
        return
    if best.end != given.end:
        raise ValueError(
            f"The velocity does not follow a time from 0 to {given.end:g}, but does from 0 to {best.end:g}: give "
            f"end={best.end:g}."
        )
    if best.from_noise != given.from_noise and best.sign != given.sign:
        other = "noise-to-data" if best.from_noise else "data-to-noise"
        raise ValueError(
            "The velocity seems to be of the other convention: it takes noise for images, and images for noise. Give "
            f'convention="{other}".'
        )
    raise ValueError(
        "The velocity is of neither convention: its time or its sign, but not both, seems to be the other way round. "
        f"Give lambda z, t: v(z, {given.end:g} - t), with v your function, or lambda z, t: -v(z, t), whichever it is."
    )


def _off(prior: VelocityPrior, flat: Tensor, noise: Tensor) -> float:
    """Return how far the gains are from those of a velocity of that convention."""
    near = _gain(prior, flat, 1 / (1 + NEAR * prior.spread / prior.reading.unit))
    far = _gain(prior, noise, FAR)
    contrast = _gain(prior, flat / 2, 0.5) - _gain(prior, noise / 2, 0.5)
    return abs(near - 1) + abs(far + 1) + max(0.0, -contrast)


def _gain(prior: VelocityPrior, d: Tensor, t: float) -> float:
    up, down = prior.at(torch.cat([d, -d]), torch.full((2, 1, 1, 1), t).to(d)).unbind()
    return float(((up - down) / 2 * d[0]).sum() / d.square().sum())


@contextlib.contextmanager
def _read_as(prior: VelocityPrior, reading: Reading) -> Iterator[None]:
    given, prior.reading = prior.reading, reading
    try:
        yield
    finally:
        prior.reading = given
