"""Hamiltonian Monte Carlo in the latents of a decoder, annealed from the prior to the posterior."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from genprior.checks import Count, Positive, Range
from genprior.likelihoods import Likelihood
from genprior.linalg import inner
from genprior.noise import Noise
from genprior.operators.base import Operator, name_of
from genprior.operators.linear import LinearOperator
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.samplers.annealing.gibbs import gaussian_draw
from genprior.samplers.base import Sampler
from genprior.samplers.chains.mcmc import FEWEST, DualAveraging, Point, Potential, adapt, run, target_acceptance


@dataclass(frozen=True)
class LatentHMC(Sampler):
    """Draw z from p(z | y) by annealed Hamiltonian Monte Carlo, then x from p(x | z, y).

        x = G(z) + sqrt(v) m,  z, m ~ N(0, I):   y | z ~ N(A G(z), v A A^T + noise^2 I)
        U(z) = <r, (v A A^T + c I)^-1 r> / 2 + |z|^2 / 2,   r = y - A G(z)

    z starts as a draw from the prior at c = start^2 spread^2 dim y / dim z, where y says about as much of each latent
    as the prior; `anneal` transitions lower sqrt(c) geometrically to the noise, `burn_in` more settle the step size,
    and the last of `steps` further ones is the draw. Exact as `steps` grows; at finite lengths, annealing decides the
    share of draws in each of several modes, only approximately. For v = 0, x = G(z), and A may be any differentiable
    operator.

    Every leapfrog step takes a gradient through the decoder. `LatentHMC(leapfrog=1)` is the Metropolis-adjusted
    Langevin algorithm.

    Diagnostics: "acceptance", the mean over `steps`; "ess" and "rhat" over `steps`, of all draws of an image (see
    `mcmc`).

    References: MCMC using Hamiltonian dynamics. R. M. Neal, 2011. Annealed importance sampling. R. M. Neal, 2001, for
    the path from prior to posterior. GAN-based priors for quantifying uncertainty in supervised learning. D. V. Patel,
    A. A. Oberai, 2021, for Hamiltonian Monte Carlo in the latents of a generator.

    Attributes:
        steps: transitions at the noise level of y, the last of which is the draw; at least 4, the fewest that let
            mixing be judged.
        anneal: transitions while the noise is lowered.
        burn_in: transitions at the noise level of y in which the step size settles.
        leapfrog: steps of each transition.
        start: first noise level, in multiples of spread sqrt(dim y / dim z).
    """

    needs: ClassVar[str] = "decode"
    linear: ClassVar[bool] = False
    steps: Annotated[int, Range(FEWEST)] = 10
    anneal: Count = 25
    burn_in: Count = 8
    leapfrog: Count = 6
    start: Positive = 1.0

    def lacks(self, prior: Prior, operator: Operator, likelihood: Likelihood | None = None) -> str | None:
        return super().lacks(prior, operator, likelihood) or not_in_closed_form(self, prior, operator)

    @property
    def calls(self) -> int:
        # each annealed transition and the first at the noise level compute the gradient anew; G(z) at the end
        return (self.anneal + self.burn_in + self.steps) * self.leapfrog + self.anneal + 2

    @property
    def evaluations(self) -> int:
        return 2 * self.calls - 1

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        y, v = measurement.y, decoder_variance(prior)
        z = noise(y.new_empty(len(y), *prior.latent_shape))
        first = self.start * prior.spread * math.sqrt(y[0].numel() / z[0].numel())
        shares = [k / self.anneal for k in range(self.anneal)]
        potentials = [posterior(prior, v, measurement, first ** (1 - k) * measurement.sd**k) for k in shares]

        steps = DualAveraging.of(z, self.leapfrog)  # the first potential is close to that of N(0, I)
        for potential in potentials:
            # the energy has changed since the last transition
            point = adapt([potential], Point.at(potential, z), steps, self.leapfrog, noise)
            z = point.state

        potential = posterior(prior, v, measurement, measurement.sd)
        steps = DualAveraging(steps.step, target_acceptance(self.leapfrog))
        point = adapt([potential] * self.burn_in, Point.at(potential, z), steps, self.leapfrog, noise)
        point, diagnostics = run(potential, point, steps.settled, self.steps, self.leapfrog, noise)
        return image_given(prior.decode(point.state), v, measurement, noise), diagnostics


def posterior(prior: Prior, v: float, measurement: Measurement, level: float | Tensor) -> Potential:
    """U(z) = <r, (v A A^T + c I)^-1 r> / 2 + |z|^2 / 2 with r = y - A G(z) and c = level^2: -ln p(z | y) at that noise.

    The determinant of the covariance does not depend on z. With w = (v A A^T + c I)^-1 r, the gradient is that of
    <w, r> at fixed w.
    """
    y, A = measurement.y, measurement.operator
    precision = weigher(v, measurement, level)

    def potential(z: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            r = y - A(prior.decode(z))
            w = precision(r.detach())
            (pull,) = torch.autograd.grad(r, z, w)
        z = z.detach()
        energy = (inner(w, r.detach()).flatten() + z.square().flatten(1).sum(1)) / 2
        return energy, pull + z

    return potential


def weigher(v: float, measurement: Measurement, level: float | Tensor) -> Callable[[Tensor], Tensor]:
    """r -> (v A A^T + level^2 I)^-1 r, the precision of y given z."""
    c = level**2
    if v == 0:
        return lambda r: r / c
    return lambda r: measurement.linear.solve(r, c / v) / v


def not_in_closed_form(sampler: Sampler, prior: Prior, operator: Operator) -> str | None:
    """Return what to do if p(y | z) has no closed form (v > 0 and an operator that is not linear); else None."""
    if isinstance(operator, LinearOperator) or decoder_variance(prior) == 0:
        return None
    name = type(sampler).__name__
    return (
        f"{name} needs a linear operator where a decoder has noise, as {type(prior).__name__} has, and "
        f"{name_of(operator)} is not linear: take CSGM, which does not."
    )


def decoder_variance(prior: Prior) -> float:
    """v of x = G(z) + sqrt(v) m as a number, read once for a whole chain: reading a parameter waits for the device."""
    v = prior.decoder_variance
    return float(v.detach() if isinstance(v, Tensor) else v)


def image_given(x_hat: Tensor, v: float, measurement: Measurement, noise: Noise) -> Tensor:
    """A draw from p(x | z, y) with x_hat = G(z), x | z ~ N(x_hat, v I); x_hat for v = 0."""
    return x_hat if v == 0 else gaussian_draw(measurement, x_hat, math.sqrt(v), noise)
