"""Guidance by the cells of rounded images, such as JPEG files."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from genprior.checks import UnsupportedError
from genprior.likelihoods import Likelihood, Quantised
from genprior.noise import Noise
from genprior.operators.base import Operator, name_of
from genprior.operators.linear import LinearOperator
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.samplers.base import Denoiser, first_level, unmeasured
from genprior.samplers.guidance.base import Guidance
from genprior.samplers.guidance.propagation import variances_under


@dataclass(frozen=True)
class QuantisedGuidance(Guidance):
    """Guidance by E[x | x_t, y] under p(x | x_t) ~ N(x_hat, V), for rounded y = A x, A an encoding of x.

        E[x | x_t, y] = x_hat + A^+ (E[z | y] - A x_hat),   z_i ~ N((A x_hat)_i, (A V A^T)_ii)

    V is the mean posterior covariance of the denoiser (see `Prior.posterior_covariance`); E[z | y] takes the mean of
    each value z_i in its cell, by itself. Exact for Gaussian priors, once steps suffice, where A V A^T is diagonal and
    A has orthogonal rows of one length, as for white images; JPEG's cosine transform comes close for photographs.

    Attributes:
        steps, eta, start, integrator: see `Guidance`; x starts at y decoded.
    """

    needs_operator: ClassVar[str | None] = "decoded"
    likelihoods: ClassVar[tuple[type[Likelihood], ...]] = (Quantised,)
    steps: int = 20
    start: float | None = 4.0
    integrator: str | None = "multistep"

    def lacks(self, prior: Prior, operator: Operator, likelihood: Likelihood | None = None) -> str | None:
        return unmeasured(self, prior, operator) or super().lacks(prior, operator, likelihood)

    def check_operator(self, prior: Prior, operator: LinearOperator) -> None:
        check_decoded(self, operator)

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> Tensor:
        sigmas = self.levels(prior, max(measurement.linear.image_shape[1:]))
        x = measurement.picture
        x = x + first_level(prior, self.start) * noise(x)
        return self._integrator.run(self.guided(prior, measurement), x, sigmas, noise, self.eta)

    def guided(self, prior: Prior, measurement: Measurement) -> Denoiser:
        y, A, law = measurement.y, measurement.linear, measurement.likelihood

        def denoise_given_y(x_t: Tensor, sigma: float) -> Tensor:
            x_hat = prior.denoise(x_t, sigma)
            z_hat = A(x_hat)
            mean, _ = law.moments(y, z_hat, variances(prior, A, sigma, y))
            return x_hat + A.pinv(mean - z_hat)

        return denoise_given_y


def check_decoded(sampler: object, operator: LinearOperator) -> None:
    """Raise UnsupportedError, and say what to do, if y does not encode an image."""
    if operator.decoded(torch.zeros(operator.batch, *operator.measurement_shape)) is None:
        raise UnsupportedError(
            f"{type(sampler).__name__} takes rounded images, and JPEG files, not the rounded measurements of "
            f"{name_of(operator)}. Choose another sampler."
        )


def variances(prior: Prior, A: LinearOperator, sigma: float, like: Tensor) -> Tensor:
    """Var[A x]_i for x ~ N(0, V(sigma)), (1, *measurement_shape), from draws."""
    return variances_under(prior.posterior_covariance(sigma), A, like)
