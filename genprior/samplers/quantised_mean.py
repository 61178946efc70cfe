"""The posterior mean of a rounded image, such as a JPEG file: alternately denoise and return to the cells."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from genprior.checks import Fraction, Positive
from genprior.likelihoods import Likelihood, Quantised
from genprior.noise import Noise
from genprior.operators.base import Operator
from genprior.operators.linear import LinearOperator
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.samplers.base import Sampler, unmeasured
from genprior.samplers.guidance.quantised import check_decoded, variances
from genprior.samplers.turning import turning


@dataclass(frozen=True)
class QuantisedMean(Sampler):
    """An estimate of E[x | y] for rounded y = A x, A an encoding of x: alternately denoise and return to the cells.

        sigma = weight sqrt(mean Var[z | y]),   z = A x for x ~ N(centre, V(sigma_max))
        x_hat = D(x + grain sigma n, sigma),   n ~ N(0, I), x = y decoded; then with again sigma and half the grain
        x     = x_hat + A^+ (E[z | y] - A x_hat),   z = A x for x ~ N(x_hat, V(sigma))

    V is the mean posterior covariance of the denoiser (see `Prior.posterior_covariance`), and the moments are those of
    each value z alone, given its cell. Rounding errors are not white noise, so this is an approximation; it settles in
    a few steps. A point estimate: A x lies in the cells, and all samples are the same, n too.

    Attributes:
        steps: evaluations of the denoiser; one alone gains less.
        weight, again: chosen on photographs as JPEG files of quality 10 to 80; weights of 1.4 to 2 do about as well.
        grain: noise that the denoiser sees beside the rounding errors, in multiples of sigma. A network of photographs,
            told of white noise that is not there, may invent speckles; "auto" gives it 0.8.
        turns: whether each step sees the image turned or mirrored in another way (see `turning`).
    """

    needs_operator: ClassVar[str | None] = "decoded"
    likelihoods: ClassVar[tuple[type[Likelihood], ...]] = (Quantised,)
    steps: int = 8
    weight: Positive = 1.7
    again: Fraction = 0.25
    grain: Fraction = 0.0
    turns: bool = False

    def lacks(self, prior: Prior, operator: Operator, likelihood: Likelihood | None = None) -> str | None:
        return unmeasured(self, prior, operator) or super().lacks(prior, operator, likelihood)

    def check_operator(self, prior: Prior, operator: LinearOperator) -> None:
        check_decoded(self, operator)

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> Tensor:
        rows = torch.arange(len(measurement.y)).split(1)  # each may have its own rounding steps, and so its own sigma
        return torch.cat([self._estimate(prior, measurement.select(row)) for row in rows])

    def _estimate(self, prior: Prior, measurement: Measurement) -> Tensor:
        y, A, law = measurement.y, measurement.linear, measurement.likelihood
        x = A.decoded(y)
        assert x is not None
        centre = torch.as_tensor(prior.centre).to(y).expand_as(x)
        _, variance = law.moments(y, A(centre), variances(prior, A, prior.sigma_max, y))
        sigma = self.weight * float(variance.mean().sqrt())
        sigma = min(max(sigma, prior.sigma_min), prior.sigma_max)
        spread = variances(prior, A, sigma, y)
        denoise = turning(prior.denoise) if self.turns else prior.denoise
        still = Noise(0, torch.zeros(1, dtype=torch.long))  # of no seed, for an estimate has none
        later = (max(self.again * sigma, prior.sigma_min), self.grain / 2)
        for level, grain in ((sigma, self.grain), *[later] * (self.steps - 1)):
            x_t = x + grain * level * still(x) if grain else x
            x_hat = denoise(x_t, level)
            z_hat = A(x_hat)
            mean, _ = law.moments(y, z_hat, spread)
            x = x_hat + A.pinv(mean - z_hat)
        return x
