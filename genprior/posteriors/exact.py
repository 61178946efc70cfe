"""p(x | y) in closed form, for Gaussians and their mixtures, given a linear measurement with Gaussian noise.

Notation: y = A x + noise n; m_k the means, w_k the weights and S the covariance of the prior.
"""

import functools
import math

import torch

from genprior.ambient import settled
from genprior.checks import UnsupportedError
from genprior.operators.measurement import Measurement
from genprior.posteriors.conditioning import given_each
from genprior.priors.base import Prior
from genprior.priors.gaussian.covariance import LARGEST_DENSE
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.priors.gaussian.mixture import GaussianMixture


@functools.singledispatch
def posteriors_of(prior: Prior, measurement: Measurement) -> list:
    """p(x | y) of every image, each itself a prior; images with one operator and noise level share one factorisation.

    With G = S A^T (A S A^T + noise^2 I)^+, that of a Gaussian is N(m + G (y - A m), S - G A S); that of a mixture has
    such components, with weights proportional to w_k N(y; A m_k, A S A^T + noise^2 I). noise = 0 is the limit
    noise -> 0: what A sees is then known exactly, and the posterior is singular there.

    Other families register their own with `@posteriors_of.register`.

    Arguments:
        prior: a `Gaussian` or a `GaussianMixture`.
        measurement: y (B, ...), a linear operator A and the noise, in the units of y.

    Raises:
        UnsupportedError: the prior has no closed-form posterior, or the image or y has over 4096 values: the matrix of
            A would not fit.
        ValueError: A does not take images of this shape.
    """
    raise UnsupportedError(
        f"The posterior of {type(prior).__name__} has no closed form, as those of Gaussian and GaussianMixture: draw "
        "from it by a sampler, with `restore`."
    )


@posteriors_of.register(Gaussian)
@settled
def _(prior: Gaussian, measurement: Measurement) -> list[Gaussian]:
    each = given_each(prior.covariance, prior.mean[None], measurement)
    return [Gaussian(means[0].to(prior.mean), covariance) for means, _, covariance in each]


@posteriors_of.register(GaussianMixture)
@settled
def _(prior: GaussianMixture, measurement: Measurement) -> list[GaussianMixture]:
    return [
        GaussianMixture((prior.weights.log() + log_evidence).softmax(0), means.to(prior.means), covariance)
        for means, log_evidence, covariance in given_each(prior.covariance, prior.means, measurement)
    ]


def posterior_of(prior: Prior, measurement: Measurement, row: int = 0):
    """Return the posterior of one image of the batch, number `row`; see `posteriors_of`.

    Raises:
        UnsupportedError, ValueError: as there; or there is no such row.
    """
    if not 0 <= row < len(measurement.y):
        raise ValueError(f"row is {row}, of {len(measurement.y)} images: give 0 to {len(measurement.y) - 1}")
    return posteriors_of(prior, measurement.select(torch.tensor([row], device=measurement.y.device)))[0]


def has_posterior(prior: Prior) -> bool:
    """Whether `posteriors_of` takes the prior, and its images are small enough for the matrix of A."""
    known = posteriors_of.dispatch(type(prior)) is not posteriors_of.dispatch(Prior)
    return known and math.prod(prior.image_shape) <= LARGEST_DENSE
