"""Guidance: a denoiser E[x | x_t] becomes E[x | x_t, y], with which any integrator goes from noise to a draw."""

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from genprior.checks import Fraction
from genprior.noise import Noise
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.registry import lookup
from genprior.samplers.base import Denoiser, Sampler, begin, first_level
from genprior.samplers.integrate import INTEGRATORS, Integrator, geometric


@dataclass(frozen=True)
class Guidance(Sampler):
    """A sampler defined by an approximate E[x | x_t, y]: a subclass gives `guided`, and its `passes` for each call.

    Attributes:
        steps: noise levels.
        eta: share of fresh noise: 1 for all that the integrator may draw, 0 for none.
        start: first noise level, in multiples of the prior's spread, with x started from the measurement (see `begin`);
            None for sigma_max.
        integrator: "ancestral", "multistep", "fresh", "euler" or "heun", see `samplers.integrate`; None for
            the method's own step, if it has one.
    """

    steps: int = 100
    eta: Fraction = 1.0
    start: float | None = None
    integrator: str | None = "ancestral"

    def __post_init__(self):
        super().__post_init__()
        if not self._own_step and not self._integrator.stochastic and self.eta != 1:
            raise ValueError(f"eta is {self.eta}, but {self.integrator} draws no noise: leave eta out.")

    @abstractmethod
    def guided(self, prior: Prior, measurement: Measurement) -> Denoiser:
        """(x_t, sigma) -> the approximate E[x | x_t, y], with one row of x_t for each row of the measurement."""

    @property
    def _own_step(self) -> bool:
        """Whether `sample` is the subclass's own."""
        return self.integrator is None and type(self).integrator is None

    @property
    def _integrator(self) -> Integrator:
        return lookup("integrator", self.integrator, INTEGRATORS)

    @property
    def calls(self) -> int:
        return self.steps if self._own_step else self._integrator.calls(self.steps)

    def levels(self, prior: Prior, side: int) -> list[float]:
        """The noise levels, decreasing, and 0, for images whose longer side is `side` pixels."""
        return geometric(first_level(prior, self.start), prior.sigma_min, self.steps)

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> Tensor:
        sigmas = self.levels(prior, max(measurement.operator.image_shape[1:]))
        x = begin(prior, measurement, sigmas[0], noise)
        return self._integrator.run(self.guided(prior, measurement), x, sigmas, noise, self.eta)
