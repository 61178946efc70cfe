"""Sequential Monte Carlo that corrects any guidance."""

from dataclasses import dataclass, field

from torch import Tensor

from genprior.linalg import inner
from genprior.operators.base import Measurement
from genprior.priors.base import Prior
from genprior.samplers.base import Denoiser, Sampler
from genprior.samplers.mmps import MMPS
from genprior.samplers.particles import Twist, Twisted


@dataclass(frozen=True)
class SMC(Twisted):
    """Particles moved by a guidance of choice, and weighted so that its errors cancel; see `samplers.particles`.

        psi(x_t)      = N(y; A x_hat, noise^2 I + v A A^T),  v = sigma^2 spread^2 / (sigma^2 + spread^2)
        E[x | x_t, y] = that of the guidance

    `TDS` with another proposal. Exact as steps and particles grow; the better guidance and psi, the fewer suffice.

    References: as `TDS`.

    Attributes:
        steps, particles, threshold: as of `TDS`.
        proposal: a sampler that is guidance, such as MMPS(), TMPD(), PiGDM() or DiffPIR(); its own steps do not matter.
    """

    proposal: Sampler = field(default_factory=MMPS)

    @property
    def evaluations(self) -> int:
        return self.steps * (1 + self.proposal.evaluations // self.proposal.steps)

    def twist(self, prior: Prior, measurement: Measurement) -> Twist:
        return weighed(prior.denoise, self.proposal.guided(prior, measurement), measurement, prior.spread)


def weighed(denoise: Denoiser, guided: Denoiser, measurement: Measurement, spread: float) -> Twist:
    """The twist of `SMC`."""
    y, A = measurement.y, measurement.operator

    def twist(x_t: Tensor, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
        x_hat = denoise(x_t, sigma)
        variance = (sigma * spread) ** 2 / (sigma**2 + spread**2)
        residual = y - A(x_hat)
        v = A.solve(residual, measurement.noise**2 / variance) / variance
        return x_hat, guided(x_t, sigma), -inner(v, residual).flatten() / 2

    return twist
