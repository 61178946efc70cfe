"""Twisted diffusion samplers: Sequential Monte Carlo guided and weighted by an approximate p(y | x_t)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from genprior.checks import UnsupportedError
from genprior.linalg import inner
from genprior.noise import Noise
from genprior.operators.linear import LinearOperator
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.samplers.base import Denoiser, differentiable, white_variance
from genprior.samplers.particles.base import Twist, Twisted

# (x_hat, sigma) -> ln psi (P,), and a function that gives its gradient
Psi = Callable[[Tensor, float], tuple[Tensor, Callable[[], Tensor]]]
PROBES = 16
LARGEST = 64  # most values of y for which each particle has a covariance of y


@dataclass(frozen=True)
class TDS(Twisted):
    """Particles that climb the gradient of a twist, are weighted by it, and resampled; see `samplers.particles.base`.

        psi(x_t)      = N(y; A x_hat, noise^2 I + v A A^T),  v = sigma^2 spread^2 / (sigma^2 + spread^2)
        E[x | x_t, y] = x_hat + min(sigma^2, v / (1 - r)) grad ln psi(x_t),  r = (sigma_next / sigma)^2

    Exact as steps and particles grow, whatever the prior. v is the variance of p(x | x_t) for white images of the
    prior's spread; the farther it is from the truth, the more particles are needed. For an operator that is not linear,
    psi(x_t) = N(y; A(x_hat), (noise^2 + v s^2) I), s^2 the mean square of the singular values of its derivative.

    The published weight of the gradient is sigma^2, that of a score. Where steps are long and a direction varies much
    more than the spread, such as the mean colour of a photograph, it overshoots y at every step, and the particles
    diverge. A step of weight v / (1 - r) reaches y and goes no farther; the weight grows with the number of steps.

    References: L. Wu, B. L. Trippe, C. A. Naesseth, D. M. Blei, J. P. Cunningham, Practical and asymptotically exact
    conditional sampling in diffusion models, 2023.

    Attributes:
        steps: noise levels from sigma_max to sigma_min, one backward pass each; published: 100 to 1000.
        particles: particles per cloud (see `Clouds`); published: 2 to 64.
        threshold: effective sample size, as a share of the cloud, below which it is resampled; published: 0.5.
    """

    linear: ClassVar[bool] = False

    def twist(self, prior: Prior, measurement: Measurement) -> Twist:
        return isotropic(prior, measurement)


@dataclass(frozen=True)
class TDSMoments(Twisted):
    """`TDS` with the twist of `MMPS`: the covariance of p(x | x_t) is the denoiser's own.

        V             = sigma^2 d x_hat / d x_t
        psi(x_t)      = N(y; A x_hat, noise^2 I + A V A^T)
        E[x | x_t, y] = x_hat + V A^T (noise^2 I + A V A^T)^-1 (y - A x_hat)

    The covariance of y, (m, m), takes m backward passes for each step and particle, so m must be small. For Gaussian
    priors, the twist is p(y | x_t) itself, and the weights hardly vary.

    References: see `TDS` and `MMPS`.

    Attributes:
        steps, particles, threshold: see `TDS`.
    """

    needs_operator: ClassVar[str | None] = "few values"

    def cost(self, measurement: Measurement, n: int) -> int:
        return math.ceil((1 + measurement.y[0].numel()) * self.steps * self.chains(n) / n)

    def check_operator(self, prior: Prior, operator: LinearOperator) -> None:
        m = math.prod(operator.measurement_shape)
        if m > LARGEST:
            raise UnsupportedError(
                f"TDSMoments makes a covariance of the values of y for every particle: it takes {LARGEST} values at "
                f"most, and y has {m}. TDS takes any number."
            )

    def twist(self, prior: Prior, measurement: Measurement) -> Twist:
        self.check_operator(prior, measurement.linear)
        return moment_matched(prior.denoise, measurement)


def isotropic(prior: Prior, measurement: Measurement) -> Twist:
    """The twist of `TDS`."""
    psi = white(prior, measurement)
    denoise, spread = prior.denoise, prior.spread

    def twist(x_t: Tensor, sigma: float, sigma_next: float) -> tuple[Tensor, Tensor, Tensor]:
        x_hat, vjp = differentiable(denoise, x_t, sigma)
        log_psi, gradient = psi(x_hat, sigma)
        weight = min(sigma**2, white_variance(sigma, spread) / (1 - (sigma_next / sigma) ** 2))
        return x_hat, x_hat + weight * vjp(gradient()), log_psi

    return twist


def white(prior: Prior, measurement: Measurement) -> Psi:
    """(x_hat, sigma) -> ln psi up to a constant, (P,), and a function that gives its gradient in x_hat; see `TDS`."""
    y, A, known, spread = measurement.y, measurement.operator, measurement.seen, prior.spread
    precision = _precision(prior, measurement)

    def psi(x_hat: Tensor, sigma: float) -> tuple[Tensor, Callable[[], Tensor]]:
        # The part of y that A does not see is the same for all particles, as the determinant is, but may be large.
        z, vjp = A.vjp(x_hat)
        residual = known * (y - z)
        v = precision(residual, white_variance(sigma, spread))
        return -inner(v, residual).flatten() / 2, lambda: vjp(v)

    return psi


def _precision(prior: Prior, measurement: Measurement) -> Callable[[Tensor, float], Tensor]:
    """(r, v) -> (noise^2 I + v A A^T)^-1 r, or r / (noise^2 + v s^2) for an operator that is not linear."""
    y, A, c = measurement.y, measurement.operator, measurement.sd**2
    if isinstance(A, LinearOperator):
        return lambda r, v: A.solve(r, c / v) / v
    # s^2 by probes, at typical images; once, so that all particles have the same determinant
    n = Noise(0, torch.zeros(PROBES, dtype=torch.long), torch.arange(PROBES))
    x = torch.as_tensor(prior.centre).to(y) + prior.spread * n(y.new_empty(PROBES, *A.image_shape))
    _, vjp = A.vjp(x)
    probe = n(y.new_empty(PROBES, *A.measurement_shape))
    square = vjp(probe).square().sum() / probe.numel()
    return lambda r, v: r / (c + v * square)


def moment_matched(denoise: Denoiser, measurement: Measurement) -> Twist:
    """The twist of `TDSMoments`."""
    y, A, known = measurement.y, measurement.linear, measurement.seen
    eye = torch.eye(y[0].numel(), dtype=y.dtype, device=y.device)
    basis = eye.reshape(-1, 1, *A.measurement_shape)
    floor = torch.as_tensor(measurement.sd, dtype=y.dtype, device=y.device).flatten() ** 2 * eye

    def twist(x_t: Tensor, sigma: float, sigma_next: float) -> tuple[Tensor, Tensor, Tensor]:
        x_hat, vjp = differentiable(denoise, x_t, sigma)
        rows = [sigma**2 * vjp(A.adjoint(e.expand(len(x_t), *A.measurement_shape))) for e in basis]  # of A V
        covariance = torch.stack([A(row).flatten(1) for row in rows], 1)
        L = cholesky((covariance + covariance.mT) / 2, floor)
        residual = (known * (y - A(x_hat))).flatten(1)[..., None]
        v = torch.cholesky_solve(residual, L)
        shift = torch.einsum("pm,mp...->p...", v[..., 0], torch.stack(rows))
        log_psi = -(v * residual).sum((1, 2)) / 2 - L.diagonal(dim1=1, dim2=2).log().sum(1)
        return x_hat, x_hat + shift, log_psi

    return twist


def cholesky(covariance: Tensor, floor: Tensor) -> Tensor:
    """L with L L^T = covariance + floor, for symmetric covariances (P, m, m) and a positive definite floor.

    The covariance of an imperfect denoiser may have negative eigenvalues. Where they outweigh half of the floor, the
    variances replace the matrix. Nothing waits for the device, as computing eigenvalues would.
    """
    _, failed = torch.linalg.cholesky_ex(covariance + floor / 2)
    variances = covariance.diagonal(dim1=1, dim2=2).clamp_min(0).diag_embed()
    return torch.linalg.cholesky_ex(torch.where(failed[:, None, None] > 0, variances, covariance) + floor)[0]
