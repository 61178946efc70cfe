"""Holes filled smoothly: where a search begins that only finds the nearest minimum."""

import torch
from torch import Tensor

from genprior.checks import Shape
from genprior.operators.masking import keeping, kept_by
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.priors.gaussian.covariance import Stationary
from genprior.samplers.base import start
from genprior.samplers.guidance.added import added
from genprior.samplers.guidance.probed_covariance import cosines

ITERATIONS = 64


def filled(prior: Prior, measurement: Measurement) -> Tensor:
    """`start`, with E[x | y] under a smooth Gaussian field in the holes of a mask, (B, *image_shape).

        x ~ N(centre, V),   V stationary, of variance spread^2 and a spectrum proportional to (f^2 + f_0^2)^(-3/2)

    for the image continued by its mirror images, f_0 one wave along their longer side. The spectrum of photographs
    falls like 1 / f^2 (Field, 1987); this smoother field also continues slopes, as the biharmonic equation does, and
    knows the noise. For other operators, this is `start`.

    References: D. J. Field, Relations between the statistics of natural images and the response properties of cortical
    cells, 1987.
    """
    x = start(prior, measurement)
    kept = kept_by(measurement.operator, measurement.y)
    if kept is None or kept.all():
        return x
    H, W = x.shape[-2:]
    A, y = keeping(mirrored(kept)), mirrored(measurement.y)
    V = smooth(A.image_shape, prior.spread).to(y)
    centre = mirrored(torch.as_tensor(prior.centre).to(x).expand_as(x))
    correct = added(A, measurement.sd, V, y.new_empty(A.batch, *A.image_shape))
    field = centre + correct(V, A(y - centre), [ITERATIONS])
    return torch.where(kept, x, field[..., :H, :W])


def smooth(image_shape: Shape, spread: float) -> Stationary:
    """The covariance V of `filled`."""
    C, H, W = image_shape
    rows, columns = torch.fft.fftfreq(H), torch.fft.fftfreq(W)
    f_0 = 1 / max(H, W)
    spectrum = (rows[:, None] ** 2 + columns**2 + f_0**2) ** -1.5
    return Stationary((spread**2 * spectrum / spectrum.mean()).repeat(C, 1, 1), cosines(C))


def mirrored(x: Tensor) -> Tensor:
    """x and its mirror images to the right and below, (..., 2 H, 2 W), which continue each other periodically."""
    x = torch.cat([x, x.flip(-1)], -1)
    return torch.cat([x, x.flip(-2)], -2)
