"""The mean of the posterior of a rounded image, such as a JPEG file's: denoise and mind the cells, in turn."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from genprior.checks import Fraction, Positive, UnsupportedError
from genprior.likelihoods import Likelihood, Quantised
from genprior.linalg import total
from genprior.noise import Noise
from genprior.operators.base import LinearOperator, name_of
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.samplers.base import Sampler, unmeasured
from genprior.samplers.turning import turning

PROBES = 16  # draws that the variances of A x are taken from


@dataclass(frozen=True)
class QuantisedMean(Sampler):
    """An estimate of E[x | y], y = A x rounded, A an image written in another way: denoise, then mind the cells.

        sigma = weight sqrt(mean Var[z | y]),   z = A x for x ~ N(centre, V(sigma_max))
        x_hat = D(x, sigma), of x = y decoded; then D(x, again sigma)
        x     = x_hat + A^+ (E[z | y] - A x_hat),   z = A x for x ~ N(x_hat, V(sigma))

    V is the mean posterior covariance of the denoiser, see `Prior.posterior_covariance`, and the moments are of each
    value z by itself, given its cell. What rounding leaves is no white noise, so that this is an approximation, which
    settles in a few steps. A point estimate: A x is in the cells, and all samples are the same.

    Attributes:
        steps: evaluations of the denoiser; one alone gains 0.2 to 0.35 dB less.
        weight, again: chosen on photographs as JPEG files of quality 10 to 80; a weight of 1.4 to 2 is about as good.
        turns: whether each step sees the image turned or mirrored in another way (see `turning`).
    """

    needs_operator: ClassVar[str | None] = "decoded"
    likelihoods: ClassVar[tuple[type[Likelihood], ...]] = (Quantised,)
    steps: int = 8
    weight: Positive = 1.7
    again: Fraction = 0.25
    turns: bool = False

    def lacks(self, prior: Prior, operator: LinearOperator, likelihood: Likelihood | None = None) -> str | None:
        return unmeasured(self, prior, operator) or super().lacks(prior, operator, likelihood)

    def check_operator(self, prior: Prior, operator: LinearOperator) -> None:
        y = torch.zeros(operator.batch, *operator.measurement_shape)
        if operator.decoded(y) is None:
            raise UnsupportedError(
                f"QuantisedMean takes rounded images, and JPEG files, not the rounded measurements of "
                f"{name_of(operator)}. Choose another sampler."
            )

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> Tensor:
        rows = torch.arange(len(measurement.y)).split(1)  # of which each may have steps, and so a sigma, of its own
        return torch.cat([self._estimate(prior, measurement.select(row)) for row in rows])

    def _estimate(self, prior: Prior, measurement: Measurement) -> Tensor:
        y, A, law = measurement.y, measurement.operator, measurement.likelihood
        x = A.decoded(y)
        assert x is not None
        centre = torch.as_tensor(prior.centre).to(y).expand_as(x)
        _, variance = law.moments(y, A(centre), _variances(prior, A, prior.sigma_max, y))
        sigma = self.weight * float(variance.mean().sqrt())
        sigma = min(max(sigma, prior.sigma_min), prior.sigma_max)
        variance = _variances(prior, A, sigma, y)
        denoise = turning(prior.denoise) if self.turns else prior.denoise
        for level in (sigma, *[max(self.again * sigma, prior.sigma_min)] * (self.steps - 1)):
            x_hat = denoise(x, level)
            z_hat = A(x_hat)
            mean, _ = law.moments(y, z_hat, variance)
            x = x_hat + A.pinv(mean - z_hat)
        return x


def _variances(prior: Prior, A: LinearOperator, sigma: float, like: Tensor) -> Tensor:
    """Var[A x]_i of x ~ N(0, V(sigma)), (1, *measurement_shape), from draws."""
    V = prior.posterior_covariance(sigma)
    noise = Noise(0, [0])
    one = like.new_empty(1, *A.image_shape)  # at a time: a photograph has room for few
    squares = (A(V.image(V.variances.sqrt() * V.coefficients(noise(one)))).square() for _ in range(PROBES))
    variances = total(squares) / PROBES
    # 0 of values that no x changes
    return variances.clamp_min(torch.finfo(like.dtype).eps * float(variances.max()))
