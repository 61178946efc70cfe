"""The exact posterior, for priors that have it in closed form."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from genprior.noise import Noise
from genprior.operators.measurement import Measurement
from genprior.posteriors.exact import has_posterior, posteriors_of
from genprior.priors.base import Prior
from genprior.samplers.base import Sampler


@dataclass(frozen=True)
class Exact(Sampler):
    """Draws from p(x | y) itself, for Gaussians and Gaussian mixtures: the truth other samplers are judged by."""

    needs: ClassVar[str] = "a posterior in closed form"

    @classmethod
    def takes(cls, prior: Prior) -> bool:
        return has_posterior(prior)

    def floor(self, prior: Prior) -> float:
        return 0.0  # it divides by no noise

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> Tensor:
        y = measurement.y
        x = y.new_empty(len(y), *measurement.operator.image_shape)
        chains = [(noise.image == image).nonzero().flatten() for image in noise.image.unique()]
        first = torch.stack([rows[0] for rows in chains])
        for rows, posterior in zip(chains, posteriors_of(prior, measurement.select(first))):
            x[rows] = posterior.draw(noise.select(rows)).to(y)
        return x
