"""Twisted diffusion samplers: Sequential Monte Carlo guided and weighted by an approximate p(y | x_t)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from genprior.linalg import inner
from genprior.operators.base import Measurement
from genprior.priors.base import Prior, UnsupportedError
from genprior.samplers.base import Denoiser
from genprior.samplers.particles import Twist, Twisted

LARGEST = 64  # values of y beyond which no covariance of y is made for each particle


@dataclass(frozen=True)
class TDS(Twisted):
    """Particles that climb the gradient of a twist, are weighted by it, and resampled; see `samplers.particles`.

        psi(x_t)      = N(y; A x_hat, noise^2 I + v A A^T),  v = sigma^2 spread^2 / (sigma^2 + spread^2)
        E[x | x_t, y] = x_hat + sigma^2 grad ln psi(x_t)

    Exact as steps and particles grow, whatever the prior. v is the variance of p(x | x_t) for white images of the
    prior's spread; the farther it is from the truth, the more particles are needed.

    References: L. Wu, B. L. Trippe, C. A. Naesseth, D. M. Blei, J. P. Cunningham, Practical and asymptotically exact
    conditional sampling in diffusion models, 2023.

    Attributes:
        steps: noise levels from sigma_max to sigma_min, with a backward pass each; published: 100 to 1000.
        particles: of the cloud of one image, or as many as samples are wanted if these are more; published: 2 to 64.
        threshold: effective sample size, as a share of the cloud, below which it is resampled; published: 0.5.
    """

    @property
    def evaluations(self) -> int:
        return 2 * self.steps

    def twist(self, prior: Prior, measurement: Measurement) -> Twist:
        return isotropic(prior.denoise, measurement, prior.spread)


@dataclass(frozen=True)
class TDSMoments(Twisted):
    """`TDS` with the twist of `MMPS`: the covariance of p(x | x_t) is the denoiser's own.

        V             = sigma^2 d x_hat / d x_t
        psi(x_t)      = N(y; A x_hat, noise^2 I + A V A^T)
        E[x | x_t, y] = x_hat + V A^T (noise^2 I + A V A^T)^-1 (y - A x_hat)

    The covariance of y, (m, m), takes m backward passes for each step and particle, so m must be small. For Gaussian
    priors the twist is p(y | x_t) itself, and weights hardly vary.

    References: as `TDS` and `MMPS`.

    Attributes:
        steps, particles, threshold: as of `TDS`.
    """

    needs_operator: ClassVar[str | None] = "few values"

    @property
    def evaluations(self) -> int:
        return 2 * self.steps

    def cost(self, measurement: Measurement, n: int) -> int:
        return math.ceil((1 + measurement.y[0].numel()) * self.steps * self.chains(n) / n)

    def twist(self, prior: Prior, measurement: Measurement) -> Twist:
        m = measurement.y[0].numel()
        if m > LARGEST:
            raise UnsupportedError(
                f"TDSMoments makes a covariance of the values of y for every particle: it takes {LARGEST} values at "
                f"most, and y has {m}. TDS takes any number."
            )
        return moment_matched(prior.denoise, measurement)


def isotropic(denoise: Denoiser, measurement: Measurement, spread: float) -> Twist:
    """The twist of `TDS`."""
    y, A = measurement.y, measurement.operator

    def twist(x_t: Tensor, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            x_hat = denoise(x_t, sigma)
        mean = x_hat.detach()
        variance = (sigma * spread) ** 2 / (sigma**2 + spread**2)
        residual = y - A(mean)
        v = A.solve(residual, measurement.noise**2 / variance) / variance
        (gradient,) = torch.autograd.grad(x_hat, x_t, A.adjoint(v))
        # The determinant of the covariance is the same for all particles.
        return mean, mean + sigma**2 * gradient, -inner(v, residual).flatten() / 2

    return twist


def moment_matched(denoise: Denoiser, measurement: Measurement) -> Twist:
    """The twist of `TDSMoments`."""
    y, A = measurement.y, measurement.operator
    m = y[0].numel()
    basis = torch.eye(m, dtype=y.dtype, device=y.device).reshape(m, 1, *A.measurement_shape)
    noise = torch.as_tensor(measurement.noise, dtype=y.dtype, device=y.device)

    def twist(x_t: Tensor, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            x_hat = denoise(x_t, sigma)
        rows = [A.adjoint(e.expand(len(x_t), *A.measurement_shape)) for e in basis]
        rows = [sigma**2 * torch.autograd.grad(x_hat, x_t, row, retain_graph=True)[0] for row in rows]  # of A V
        covariance = torch.stack([A(row).flatten(1) for row in rows], 1)
        # That of an imperfect denoiser is neither symmetric nor positive.
        l, U = torch.linalg.eigh((covariance + covariance.mT) / 2)
        l = l.clamp_min(0) + noise.square().flatten()
        mean = x_hat.detach()
        residual = (U.mT @ (y - A(mean)).flatten(1)[..., None])[..., 0]
        v = (U @ (residual / l)[..., None])[..., 0]
        shift = torch.einsum("pm,mp...->p...", v, torch.stack(rows))
        return mean, mean + shift, -(residual.square() / l + l.log()).sum(1) / 2

    return twist
