"""The exact posterior, for priors with a closed form."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from genprior.noise import Noise
from genprior.operators.measurement import Measurement
from genprior.posteriors.exact import has_posterior, posteriors_of
from genprior.priors.base import Prior
from genprior.samplers.base import Sampler


@dataclass(frozen=True)
class Exact(Sampler):
    """Draws from p(x | y) itself, for Gaussians and Gaussian mixtures: the reference for other samplers."""

    needs: ClassVar[str] = "a posterior in closed form"

    @classmethod
    def takes(cls, prior: Prior) -> bool:
        return has_posterior(prior)

    def floor(self, prior: Prior) -> float:
        return 0.0  # nothing is divided by the noise

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> Tensor:
        return _of_each(prior, measurement, noise, lambda posterior, rows: posterior.draw(noise.select(rows)))


@dataclass(frozen=True)
class ExactMean(Exact):
    """The mean of p(x | y) itself: a point estimate; all samples are the same."""

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> Tensor:
        return _of_each(prior, measurement, noise, lambda posterior, rows: posterior.centre)


def _of_each(prior: Prior, measurement: Measurement, noise: Noise, make: Callable[[Any, Tensor], Tensor]) -> Tensor:
    """Apply `make` to each image's posterior and the rows that are its chains, and collect the images."""
    y = measurement.y
    x = y.new_empty(len(y), *measurement.operator.image_shape)
    chains = [(noise.image == image).nonzero().flatten() for image in noise.image.unique()]
    first = torch.stack([rows[0] for rows in chains])
    for rows, posterior in zip(chains, posteriors_of(prior, measurement.select(first))):
        x[rows] = make(posterior, rows).to(y)
    return x
