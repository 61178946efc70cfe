"""Langevin and Hamiltonian Monte Carlo on the image itself, for priors with a differentiable energy.

U(x) = energy(x) - ln p(y | A(x)), that is energy(x) + |y - A x|^2 / (2 noise^2) with Gaussian noise, in the metric
M = I / spread^2 + A^T A / noise^2.

M is the precision of the posterior under a white prior of the same spread. However precise the measurement, the chain
is then as well conditioned as under the prior alone. With n, n' ~ N(0, I), n / spread + A^T n' / noise ~ N(0, M),
and M^-1 u = argmin_x |A x|^2 / noise^2 + |x - spread^2 u|^2 / spread^2 is a proximal step of the operator.

Chains start at argmin_x |y - A x|^2 / noise^2 + |x - centre|^2 / spread^2. With an operator that is not linear, or
another likelihood, M = I / spread^2, and each starts at a draw from N(centre, spread^2 I), or at the centre where that
draw is impossible: different chains may find different modes.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from genprior.checks import Count, Positive, Range
from genprior.likelihoods import Clipped, Gaussian, Likelihood, Poisson, PoissonGaussian
from genprior.linalg import per_row
from genprior.noise import Noise
from genprior.operators.linear import LinearOperator
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.samplers.base import Sampler, start
from genprior.samplers.chains.mcmc import (
    FEWEST,
    DualAveraging,
    Metric,
    Point,
    Potential,
    Trace,
    adapt,
    run,
)

# Laws with a gradient, though not everywhere: impossible values are rejected.
SMOOTH = (Gaussian, Poisson, PoissonGaussian, Clipped)


@dataclass(frozen=True)
class ULA(Sampler):
    """Draw by the unadjusted Langevin algorithm.

        x <- x - step^2 / 2 M^-1 grad U(x) + step M^(-1/2) n

    Biased: along a direction whose precision is h times M's, the variance of a Gaussian posterior comes out
    1 / (1 - step^2 h / 4) times too large, and beyond step^2 h = 4 the chain diverges. `MALA` and `HMC` have no such
    bias. ULA does not take priors whose energy is infinite somewhere: outside their support, no gradient leads back.

    Diagnostics: "ess" and "rhat" over the second half of the steps, of all draws of an image (see `mcmc`).

    References: Exponential convergence of Langevin distributions and their discrete approximations. G. O. Roberts,
    R. L. Tweedie, 1996.

    Attributes:
        steps: the last state is the draw; about 2 / (step^2 h) of them forget the start. At least 8.
        step: in units of the metric M. The default is stable up to h = 100.
    """

    needs: ClassVar[str] = "energy"
    passes: ClassVar[int] = 2
    everywhere: ClassVar[bool] = True
    linear: ClassVar[bool] = False
    likelihoods: ClassVar[tuple[type[Likelihood], ...]] = (Gaussian, Clipped)
    steps: Annotated[int, Range(2 * FEWEST)] = 1000
    step: Positive = 0.2

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        potential = posterior(prior, measurement)
        x, metric = begin_chain(prior, measurement, noise)
        trace = Trace(x)
        for k in range(self.steps):
            energy, gradient = potential(x)
            if 2 * k >= self.steps:
                trace.append(x, energy)
            x = x + self.step * metric.velocity(metric.draw(noise, x) - self.step / 2 * gradient)
        return x, trace.diagnose(noise.image)


@dataclass(frozen=True)
class HMC(Sampler):
    """Draw by Hamiltonian Monte Carlo with momentum ~ N(0, M).

    Exact as `steps` grows, and quickly so within one mode where the prior is about equally wide in all directions; the
    cost of the leapfrog grows with the square root of the ratio of the prior's largest to its smallest variance.
    `burn_in` transitions set the step size of each chain; the draw is the last of `steps` more. No diagnostic shows
    modes that no chain reached: with a linear operator, all chains start at one point.

    Diagnostics: "acceptance", "ess" and "rhat" over `steps`, of all draws of an image (see `mcmc`).

    References: Hybrid Monte Carlo. S. Duane, A. D. Kennedy, B. J. Pendleton, D. Roweth, 1987. The No-U-Turn sampler.
    M. D. Hoffman, A. Gelman, 2014, for the step size. MCMC using Hamiltonian dynamics. R. M. Neal, 2011.

    Attributes:
        steps: transitions after burn-in, the last of which is the draw; at least 4.
        burn_in: transitions in which the step size adapts.
        leapfrog: steps of each transition.
    """

    needs: ClassVar[str] = "energy"
    passes: ClassVar[int] = 2
    linear: ClassVar[bool] = False
    likelihoods: ClassVar[tuple[type[Likelihood], ...]] = SMOOTH
    steps: Annotated[int, Range(FEWEST)] = 25
    burn_in: Count = 25
    leapfrog: Count = 10

    @property
    def calls(self) -> int:
        return 1 + (self.burn_in + self.steps) * self.leapfrog

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        return _chain(prior, measurement, noise, self.steps, self.burn_in, self.leapfrog)


@dataclass(frozen=True)
class MALA(Sampler):
    """Draw by the Metropolis-adjusted Langevin algorithm: `HMC` with one leapfrog step.

        x' = x - step^2 / 2 M^-1 grad U(x) + step M^(-1/2) n, accepted or rejected so that p(x | y) stays invariant

    Diagnostics: "acceptance", "ess" and "rhat" over `steps`, of all draws of an image (see `mcmc`).

    References: Exponential convergence of Langevin distributions and their discrete approximations. G. O. Roberts,
    R. L. Tweedie, 1996. Optimal scaling of discrete approximations to Langevin diffusions. G. O. Roberts,
    J. S. Rosenthal, 1998.

    Attributes:
        steps: after burn-in, the last of which is the draw; at least 4.
        burn_in: steps in which the step size adapts.
    """

    needs: ClassVar[str] = "energy"
    passes: ClassVar[int] = 2
    linear: ClassVar[bool] = False
    likelihoods: ClassVar[tuple[type[Likelihood], ...]] = SMOOTH
    steps: Annotated[int, Range(FEWEST)] = 250
    burn_in: Count = 250

    @property
    def calls(self) -> int:
        return 1 + self.burn_in + self.steps

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        return _chain(prior, measurement, noise, self.steps, self.burn_in, leapfrog=1)


def _chain(
    prior: Prior, measurement: Measurement, noise: Noise, steps: int, burn_in: int, leapfrog: int
) -> tuple[Tensor, dict[str, Tensor]]:
    potential = posterior(prior, measurement)
    x, metric = begin_chain(prior, measurement, noise)
    sizes = DualAveraging.of(x, leapfrog)
    point = adapt([potential] * burn_in, Point.at(potential, x), sizes, leapfrog, noise, metric)
    point, diagnostics = run(potential, point, sizes.settled, steps, leapfrog, noise, metric)
    return point.state, diagnostics


def posterior(prior: Prior, measurement: Measurement) -> Potential:
    """U(x) = energy(x) - ln p(y | A(x)) = -ln p(x | y) + const."""

    def potential(x: Tensor) -> tuple[Tensor, Tensor]:
        energy, gradient = prior_energy(prior, x)
        data, slope = measurement.potential(x)
        return energy + data, gradient + slope

    return potential


def prior_energy(prior: Prior, x: Tensor) -> tuple[Tensor, Tensor]:
    """The prior's energy (B,) and its gradient, shaped like x."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        energy = prior.energy(x)
    (gradient,) = torch.autograd.grad(energy, x, torch.ones_like(energy))
    return energy.detach(), gradient


def begin_chain(prior: Prior, measurement: Measurement, noise: Noise) -> tuple[Tensor, Metric]:
    """The chains' starts, (B, *image_shape), and their metric M; see the module."""
    if is_linear_gaussian(measurement):
        return start(prior, measurement), white_metric(prior, measurement)
    y, spread = measurement.y, prior.spread
    shape = (len(y), *measurement.operator.image_shape)
    centre = torch.as_tensor(prior.centre, dtype=y.dtype, device=y.device).expand(shape)
    x = centre + spread * noise(centre)
    possible = posterior(prior, measurement)(x)[0].isfinite()
    metric = Metric(lambda noise, like: noise(like) / spread, lambda momentum: spread**2 * momentum)
    return torch.where(per_row(possible, x), x, centre), metric


def is_linear_gaussian(measurement: Measurement) -> bool:
    return isinstance(measurement.operator, LinearOperator) and not isinstance(measurement.noise, Likelihood)


def white_metric(prior: Prior, measurement: Measurement) -> Metric:
    """M = I / spread^2 + A^T A / noise^2."""
    A, spread, sd = measurement.linear, prior.spread, measurement.sd
    nothing = torch.zeros_like(measurement.y)

    def draw(noise: Noise, like: Tensor) -> Tensor:
        return noise(like) / spread + A.adjoint(noise(nothing) / sd)

    def velocity(momentum: Tensor) -> Tensor:
        return A.prox(spread**2 * momentum, nothing, (spread / sd) ** 2)

    return Metric(draw, velocity)
