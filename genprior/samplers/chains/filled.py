"""Holes filled smoothly: where a search begins that only finds the nearest minimum."""

import torch
from torch import Tensor

from genprior.checks import Shape
from genprior.operators.masking import kept_by
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.priors.gaussian.covariance import Stationary
from genprior.samplers.base import start
from genprior.samplers.guidance.added import added
from genprior.samplers.guidance.probed_covariance import cosines

ITERATIONS = 64


def filled(prior: Prior, measurement: Measurement) -> Tensor:
    """`start`, with E[x | y] under a smooth Gaussian field in the holes of a mask, (B, *image_shape).

        x ~ N(centre, V),   V stationary, of variance spread^2 and a spectrum proportional to 1 / (f^2 + f_0^2)

    with f_0 one wave along the longer side. This is the mean spectrum of photographs. For other operators, `start`.

    References: D. J. Field, Relations between the statistics of natural images and the response properties of cortical
    cells, 1987.
    """
    x, y, A = start(prior, measurement), measurement.y, measurement.linear
    kept = kept_by(A, y)
    if kept is None:
        return x
    V = smooth(A.image_shape, prior.spread).to(y)
    centre = torch.as_tensor(prior.centre).to(y).expand_as(x)
    correct = added(A, measurement.sd, V, y.new_empty(A.batch, *A.image_shape))
    field = centre + correct(V, measurement.seen * (y - A(centre)), [ITERATIONS])
    return torch.where(kept, x, field)


def smooth(image_shape: Shape, spread: float) -> Stationary:
    """The covariance V of `filled`."""
    C, H, W = image_shape
    rows, columns = torch.fft.fftfreq(H), torch.fft.fftfreq(W)
    f_0 = 1 / max(H, W)
    spectrum = 1 / (rows[:, None] ** 2 + columns**2 + f_0**2)
    return Stationary((spread**2 * spectrum / spectrum.mean()).repeat(C, 1, 1), cosines(C))
