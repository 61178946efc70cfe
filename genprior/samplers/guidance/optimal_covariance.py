"""Guidance by the optimal posterior covariance: that which the denoiser was found to have, not one that is assumed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genprior.checks import Count
from genprior.likelihoods import Likelihood
from genprior.linalg import cg
from genprior.operators.base import LinearOperator
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.samplers.base import Denoiser, unmeasured
from genprior.samplers.guidance.base import Guidance

if TYPE_CHECKING:
    from genprior.priors.gaussian.covariance import Covariance


@dataclass(frozen=True)
class OptimalCovariance(Guidance):
    """Guidance by E[x | x_t, y] under p(x | x_t) ~ N(x_hat, V), V the mean posterior covariance E Cov[x | x_t].

        E[x | x_t, y] = argmin_x |y - A x|^2 / (2 noise^2) + (x - x_hat)^T V^-1 (x - x_hat) / 2

    No backward pass: the prior knows V, which was measured once (`Prior.posterior_covariance`). Of all Gaussians with
    one covariance for all x_t it is the best in Kullback-Leibler divergence. Exact for Gaussian priors, once iterations
    and steps suffice.

    The minimum is found by conjugate gradients on x, which never make it worse, in the coordinates of V, preconditioned
    there: where A^T A is diagonal too, as that of a circular blur for photographs, one iteration is exact.

    References: X. Peng et al., Improving diffusion models for inverse problems using optimal posterior covariance, 2024
    (there, variances of a diagonal V); F. Rozet et al., 2024, see `MMPS`.

    Attributes:
        steps, eta, start, integrator: see `Guidance`.
        iterations: of conjugate gradients at high noise; fewer, in proportion to ln(1 + sigma^2 / noise^2), at low.
            Each costs a product with A, A^T, V's eigenvectors and their transpose.
    """

    steps: int = 20
    start: float | None = 64.0
    integrator: str | None = "multistep"
    iterations: Count = 16

    def lacks(self, prior: Prior, operator: LinearOperator, likelihood: Likelihood | None = None) -> str | None:
        return unmeasured(self, prior, operator) or super().lacks(prior, operator, likelihood)

    def guided(self, prior: Prior, measurement: Measurement) -> Denoiser:
        y, A, noise = measurement.y, measurement.operator, measurement.sd
        seen = measurement.seen
        levels = torch.as_tensor(noise).flatten().tolist()
        # V has the same coordinates at all noise levels
        like = y.new_empty(A.batch, *A.image_shape)
        normal = prior.posterior_covariance(prior.sigma_max).diagonal_like(lambda x: A.adjoint(A(x)), like)

        def denoise_given_y(x_t: Tensor, sigma: float) -> Tensor:
            x_hat = prior.denoise(x_t, sigma)
            V = prior.posterior_covariance(sigma)
            gradient = A.adjoint(seen * (y - A(x_hat)))
            return x_hat + correction(V, A, noise, gradient, normal, [self._enough(sigma / level) for level in levels])

        return denoise_given_y

    def _enough(self, ratio: float) -> int:
        """Iterations at that ratio of sigma to the noise: the condition number is about 1 + ratio^2."""
        return min(self.iterations, math.ceil(self.iterations / 10 * math.log1p(ratio**2)))


def correction(
    V: "Covariance",
    A: LinearOperator,
    noise: float | Tensor,
    gradient: Tensor,
    normal: Tensor,
    iterations: int | Sequence[int],
) -> Tensor:
    """(A^T A + noise^2 V^-1)^-1 A^T (y - A x_hat), by conjugate gradients in the coordinates of V.

    Arguments:
        gradient: A^T (y - A x_hat), (B, C, H, W).
        normal: A^T A, or the like of it that is diagonal in those coordinates, see `Covariance.diagonal_like`.
        iterations: see `cg`.
    """
    b = V.coefficients(gradient)
    variance = torch.as_tensor(noise, dtype=b.dtype, device=b.device).square().reshape(-1, 1, 1, 1, 1)
    l = V.variances
    precision = variance / torch.maximum(l, 1e-10 * l.max())
    # laid out like the coefficients, which makes the products with them fast
    inverse = (1 / (normal + precision)).expand(-1, *b.shape[1:]).contiguous()
    precision = precision.expand(-1, *b.shape[1:]).contiguous()

    def matvec(c: Tensor) -> Tensor:
        return V.coefficients(A.adjoint(A(V.image(c)))) + precision * c

    return V.image(cg(matvec, b, iterations=iterations, preconditioner=lambda c: inverse * c))
