"""Guidance by the optimal posterior covariance, which is measured for the denoiser, not assumed."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from genprior.checks import Count
from genprior.likelihoods import Likelihood
from genprior.noise import Noise
from genprior.operators.base import Operator
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.priors.gaussian.covariance import Covariance
from genprior.samplers.base import Denoiser, begin, stand_in, unmeasured
from genprior.samplers.guidance.added import added
from genprior.samplers.guidance.base import Guidance
from genprior.samplers.guidance.propagation import propagated
from genprior.samplers.turning import turning


@dataclass(frozen=True)
class OptimalCovariance(Guidance):
    """Guidance by E[x | x_t, y] under p(x | x_t) ~ N(x_hat, V), V the mean posterior covariance E Cov[x | x_t].

        E[x | x_t, y] = argmin_x |y - A x|^2 / (2 noise^2) + (x - x_hat)^T V^-1 (x - x_hat) / 2

    There is no backward pass: the prior knows V, which was measured once (`Prior.posterior_covariance`). Of all
    Gaussians with one covariance for all x_t, N(x_hat, V) is the best in Kullback-Leibler divergence. The draws are
    exact for Gaussian priors, once iterations and steps suffice.

    Under another likelihood, expectation propagation gives E[x | x_t, y], see `guidance.propagation`.

    Conjugate gradients find the minimum. If A is a part of an operator that shares the eigenvectors of V, they run on
    the values that were not measured (`completed`): a mask is a part of the identity, a blur past the frame one of a
    circular blur. If A goes to a coarser grid and V is stationary, they run on y (`decimated`). Otherwise they run on x
    in the coordinates of V, preconditioned there (`correction`): if A^T A is diagonal too, as for a circular blur of
    photographs, one iteration is exact.

    A network removes a little more than the noise: along a chain of few steps, the errors add up to texture that the
    draws lack. The prior's `inflation` of the fresh noise restores it (T. Karras et al., 2022, there S_noise).

    The last step draws from that Gaussian posterior, where other methods return its mean: at sigma_min the mean would
    drop the variance below sigma_min^2.

    References: X. Peng et al., Improving diffusion models for inverse problems using optimal posterior covariance, 2024
    (there, variances of a diagonal V); F. Rozet et al., 2024, see `MMPS`.

    Attributes:
        steps, eta, start: see `Guidance`.
        integrator: see `Guidance`. With "fresh", which is for pictures, or without fresh noise, the last step returns
            the mean.
        iterations: iterations of conjugate gradients at high noise; fewer, in proportion to ln(1 + sigma^2 / noise^2),
            at low noise. Each costs a product with A, A^T, the eigenvectors of V and their transpose. On values that
            were not measured, half as many run, at twice the cost; on y, a quarter.
        turns: whether the denoiser sees x_t turned, in another way each time (see `turning`), which reduces the spread.
    """

    likelihoods: ClassVar[tuple[type[Likelihood], ...]] = (Likelihood,)
    steps: int = 20
    start: float | None = 64.0
    integrator: str | None = "multistep"
    iterations: Count = 16
    turns: bool = False

    def lacks(self, prior: Prior, operator: Operator, likelihood: Likelihood | None = None) -> str | None:
        return unmeasured(self, prior, operator) or super().lacks(prior, operator, likelihood)

    def guided(self, prior: Prior, measurement: Measurement) -> Denoiser:
        posterior = self._posterior(prior, measurement)
        return lambda x_t, sigma: posterior(x_t, sigma, None)

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> Tensor:
        *sigmas, _ = self.levels(prior, max(measurement.operator.image_shape[1:]))
        posterior = self._posterior(prior, measurement)
        x = begin(prior, measurement, sigmas[0], noise)
        draws = self._integrator.reverse and self.eta > 0
        inflation = prior.inflation if draws else 1.0
        x = self._integrator.run(
            lambda x_t, sigma: posterior(x_t, sigma, None), x, sigmas, lambda like: inflation * noise(like), self.eta
        )
        return posterior(x, sigmas[-1], noise if draws else None)

    def _posterior(self, prior: Prior, measurement: Measurement) -> Callable[[Tensor, float, Noise | None], Tensor]:
        """(x_t, sigma, noise) -> a draw from N(x; x_hat, V) N(y; A x, noise^2 I), normalised; its mean for None.

        A draw is the mean for the perturbed x_hat + V^(1/2) n and y + noise n' (G. Papandreou, A. Yuille, 2010).
        """
        y, A, seen = measurement.y, measurement.linear, measurement.seen
        other = isinstance(measurement.noise, Likelihood)
        level = (stand_in(prior, measurement) if other else measurement).sd
        levels = torch.as_tensor(level).flatten().tolist()
        like = y.new_empty(A.batch, *A.image_shape)
        moments = self.moments(prior, like)
        propagate = propagated(measurement, self.floor(prior)) if other else None
        normal, add = None, None

        def posterior(x_t: Tensor, sigma: float, noise: Noise | None) -> Tensor:
            nonlocal normal, add
            (x_hat, V), y_hat = moments(x_t, sigma), y
            counts = [self._enough(sigma / each) for each in levels]
            if propagate is not None:
                if normal is None:
                    normal, _ = V.diagonal_like(lambda x: A.adjoint(A(x)), like)
                # at least half at all levels: a site at the edge of its cell is as precise as what the edge cuts off
                return propagate(x_hat, V, normal, [max(self.iterations // 2, each) for each in counts], noise)
            if noise is not None:
                x_hat = x_hat + V.filter(noise(x_hat), V.eigenvalues.sqrt())
                y_hat = y + level * noise(y)
            if add is None:  # V has the same coordinates at all noise levels
                add = added(A, level, V, like)
            return x_hat + add(V, seen * (y_hat - A(x_hat)), counts)

        return posterior

    def moments(self, prior: Prior, like: Tensor) -> Callable[[Tensor, float], tuple[Tensor, Covariance]]:
        """(x_t, sigma) -> the mean and the covariance of p(x | x_t), for images shaped like `like`, (B, C, H, W)."""
        denoise = turning(prior.denoise) if self.turns else prior.denoise
        return lambda x_t, sigma: (denoise(x_t, sigma), prior.posterior_covariance(sigma))

    def _enough(self, ratio: float) -> int:
        """Iterations at that ratio of sigma to the noise: the condition number is about 1 + ratio^2."""
        return min(self.iterations, math.ceil(self.iterations / 10 * math.log1p(ratio**2)))
