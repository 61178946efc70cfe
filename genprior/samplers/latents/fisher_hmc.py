"""Hamiltonian Monte Carlo in the latents of a decoder, started at the mode, in the metric of the Fisher information."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from genprior.checks import Count, Positive, Range
from genprior.likelihoods import Likelihood
from genprior.noise import Noise
from genprior.operators.base import Operator
from genprior.operators.linear import LinearOperator
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior, supports
from genprior.samplers.adam import Adam
from genprior.samplers.base import Sampler, floored
from genprior.samplers.chains.filled import filled
from genprior.samplers.chains.mcmc import FEWEST, DualAveraging, Metric, Point, adapt, run
from genprior.samplers.latents.latent_hmc import decoder_variance, image_given, not_in_closed_form, posterior, weigher


@dataclass(frozen=True)
class FisherHMC(Sampler):
    """Draw z from p(z | y) near its mode, then x from p(x | z, y), for any number of latents.

        z*  = argmin_z U(z),   U as for `LatentHMC`, by Adam
        M   = I + diag F,   F = J^T A^T (v A A^T + c I)^-1 A J the Fisher information of y about z,   J = dG / dz
        z  <- Hamiltonian transitions with the mass M, from z*

    Adam starts at z = 0, while the noise is lowered to that of y. If every image has latents, as under a flow of pixels
    of any value, it starts at those of the image that `filled` makes of y, encoded in one pass more: in thousands of
    dimensions it does not come near y from 0. No affordable chain finds the measurement from a draw from the prior,
    where `LatentHMC` starts; and with one step size for all latents, those that y determines hold back those that it
    does not. The transitions leave p(z | y) invariant, so draws are exact as burn-in grows; at these lengths they lie
    around one mode, as "rhat" shows. For v = 0, A may be any differentiable operator. Probes estimate diag F by (J^T
    A^T w)^2, with w of covariance (v A A^T + c I)^-1, `refreshes` times in burn-in; after burn-in M is fixed.

    Diagnostics: "acceptance", the mean over `steps`; "ess" and "rhat" over `steps`, of all draws of an image (`mcmc`).

    References: Invertible generative models for inverse problems. M. Asim, M. Daniels, O. Leong, A. Ahmed, P. Hand,
    2020, for the mode from z = 0. Riemann manifold Langevin and Hamiltonian Monte Carlo methods. M. Girolami,
    B. Calderhead, 2011, for the Fisher information as mass.

    Attributes:
        steps: transitions after burn-in, the last of which is the draw; at least 4.
        descend: steps of Adam; Asim et al. take 20 to 30 of L-BFGS.
        lr: learning rate of Adam.
        burn_in: transitions in which step size and mass settle.
        refreshes: how often burn-in estimates the mass.
        probes: for each estimate of the mass, one backward pass each.
        leapfrog: steps of each transition.
    """

    needs: ClassVar[str] = "decode"
    linear: ClassVar[bool] = False
    steps: Annotated[int, Range(FEWEST)] = 10
    descend: Count = 100
    lr: Positive = 0.05
    burn_in: Count = 20
    refreshes: Count = 4
    probes: Count = 8
    leapfrog: Count = 8

    def __post_init__(self):
        super().__post_init__()
        if self.burn_in < self.refreshes:
            raise ValueError(
                f"burn_in is {self.burn_in}: give a transition at least for each of {self.refreshes} masses."
            )

    def lacks(self, prior: Prior, operator: Operator, likelihood: Likelihood | None = None) -> str | None:
        return super().lacks(prior, operator, likelihood) or not_in_closed_form(self, prior, operator)

    @property
    def calls(self) -> int:
        # each mass needs G(z) and its gradient, and each chain begins with them; G(z) at the end
        return self.descend + self.leapfrog * (self._settling + self.steps) + 2 * self.refreshes + 1

    @property
    def evaluations(self) -> int:
        return 2 * self.calls - 1 + self.refreshes * (self.probes - 1)

    @property
    def _settling(self) -> int:
        """Transitions that burn-in makes: equally many for each mass."""
        return self.burn_in // self.refreshes * self.refreshes

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        v = decoder_variance(prior)
        z = self._mode(prior, v, measurement)
        potential = posterior(prior, v, measurement, measurement.sd)
        steps = DualAveraging.of(z, self.leapfrog, 1 / 2)
        for _ in range(self.refreshes):
            mass = information_metric(prior, v, measurement, z, noise, self.probes)
            settle = [potential] * (self.burn_in // self.refreshes)
            point = adapt(settle, Point.at(potential, z), steps, self.leapfrog, noise, mass)
            z = point.state
        point, diagnostics = run(potential, point, steps.settled, self.steps, self.leapfrog, noise, mass)
        return image_given(prior.decode(point.state), v, measurement, noise), diagnostics

    def _mode(self, prior: Prior, v: float, measurement: Measurement) -> Tensor:
        """The minimum of U by Adam, which works element by element: rows are independent."""
        z, first = begin(prior, measurement)
        adam = Adam(self.lr)
        for k in range(self.descend):
            share = (k + 1) / self.descend
            level = first ** (1 - share) * measurement.sd**share
            _, gradient = posterior(prior, v, measurement, level)(z)
            z = z - adam(gradient)
        return z


def begin(prior: Prior, measurement: Measurement) -> tuple[Tensor, float | Tensor]:
    """Return the z at which the search for the mode starts, and the noise with which it looks at y first."""
    invertible = supports(prior, "encode") and supports(prior, "log_prob") and not prior.bounded
    if invertible and isinstance(measurement.operator, LinearOperator):
        return prior.encode(filled(prior, measurement)), measurement.sd
    zero = measurement.y.new_zeros(len(measurement.y), *prior.latent_shape)
    return zero, floored(measurement, 4 * prior.spread).sd


def information_metric(
    prior: Prior, v: float, measurement: Measurement, z: Tensor, noise: Noise, probes: int
) -> Metric:
    """M = I + diag F at z, F estimated by (J^T A^T w)^2, w = (v A A^T + c I)^-1 r and r a draw of y - A G(z)."""
    A = measurement.operator
    precision = weigher(v, measurement, measurement.sd)
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        predicted = A(prior.decode(z))
    mass = torch.ones_like(z)
    for _ in range(probes):
        r = measurement.sd * noise(measurement.y)
        if v > 0:
            r = r + math.sqrt(v) * A(noise(r.new_empty(len(r), *A.image_shape)))
        (pull,) = torch.autograd.grad(predicted, z, precision(r), retain_graph=True)
        mass = mass + pull.square() / probes
    root = mass.sqrt()
    return Metric(lambda noise, like: root * noise(like), lambda momentum: momentum / mass)
