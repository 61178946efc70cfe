"""Sequential Monte Carlo that corrects any guidance."""

from dataclasses import dataclass, field

from torch import Tensor

from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.samplers.base import Denoiser
from genprior.samplers.guidance.base import Guidance
from genprior.samplers.guidance.diffpir import DiffPIR
from genprior.samplers.particles.base import Twist, Twisted
from genprior.samplers.particles.tds import white


@dataclass(frozen=True)
class SMC(Twisted):
    """Particles moved by any guidance, and weighted so that its errors cancel; see `samplers.particles.base`.

        psi(x_t)      = N(y; A x_hat, noise^2 I + v A A^T),  v = sigma^2 spread^2 / (sigma^2 + spread^2)
        E[x | x_t, y] = that of the guidance

    `TDS` with another proposal. Exact as steps and particles grow; the better guidance and psi, the fewer suffice. With
    DiffPIR() there is no backward pass. MMPS() is the better guidance for an exact denoiser; learned denoisers have
    covariances with negative eigenvalues at high noise, which lead conjugate gradients astray.

    References: see `TDS`.

    Attributes:
        steps, particles, threshold: see `TDS`.
        proposal: DiffPIR(), MMPS(), TMPD() or PiGDM(); its own steps do not matter.
    """

    proposal: Guidance = field(default_factory=DiffPIR)

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.proposal, Guidance):
            raise ValueError(f"proposal is guidance, such as DiffPIR() or MMPS(), not {self.proposal!r}.")

    @property
    def evaluations(self) -> int:
        return self.steps * (1 + self.proposal.evaluations // self.proposal.calls)

    @property
    def calls(self) -> int:
        return 2 * self.steps

    def twist(self, prior: Prior, measurement: Measurement) -> Twist:
        return weighed(prior, self.proposal.guided(prior, measurement), measurement)


def weighed(prior: Prior, guided: Denoiser, measurement: Measurement) -> Twist:
    """The twist of `SMC`."""
    psi, denoise = white(prior, measurement), prior.denoise

    def twist(x_t: Tensor, sigma: float, sigma_next: float) -> tuple[Tensor, Tensor, Tensor]:
        x_hat = denoise(x_t, sigma)
        log_psi, _ = psi(x_hat, sigma)
        return x_hat, guided(x_t, sigma), log_psi

    return twist
