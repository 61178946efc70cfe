"""MAP: the image of highest posterior density, for priors with a differentiable energy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from genprior.checks import NonNegative
from genprior.likelihoods import Likelihood
from genprior.linalg import inner, per_row
from genprior.noise import Noise
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.samplers.base import Sampler, start
from genprior.samplers.chains.filled import filled
from genprior.samplers.chains.langevin import SMOOTH, begin_chain, is_linear_gaussian, prior_energy

Evaluation = Callable[[Tensor], tuple[Tensor, Tensor]]
Step = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x, gradient, t) -> x'


@dataclass(frozen=True)
class MAP(Sampler):
    """Minimise -ln p(x | y) by proximal gradient steps of Barzilai-Borwein length.

        x* = argmin_x U(x),   U(x) = weight energy(x) + |y - A x|^2 / (2 noise^2)
        x' = argmin_x |y - A x|^2 / (2 noise^2) + |x - (x_k - t weight grad energy(x_k))|^2 / (2 t)
        t  = <d, d> / <d, e>,   d = x_k - x_(k-1), e the same of weight grad energy

    A step that does not lower U is rejected, and t is divided by 4. A point estimate: all samples are the same, so one
    is enough. It starts at argmin_x |y - A x|^2 / noise^2 + |x - centre|^2 / spread^2, with the holes of a mask filled
    smoothly (see `filled`); if the energy has several minima, it finds the one downhill from there.

    With an operator that is not linear, or another likelihood, x' = x_k - t grad U(x_k), and samples start at different
    points, as those of `HMC` do, so they may end in different minima.

    References: Sparse reconstruction by separable approximation. S. J. Wright, R. D. Nowak, M. A. T. Figueiredo, 2009.
    Two-point step size gradient methods. J. Barzilai, J. M. Borwein, 1988.

    Attributes:
        steps: evaluations of the energy and of its gradient.
        weight: of the prior's energy; 1 is the posterior's own. Other weights are customary for energies that are not
            log-densities, such as those averaged over patches (F. Altekrüger et al., PatchNR, 2023).
    """

    needs: ClassVar[str] = "energy"
    passes: ClassVar[int] = 2
    linear: ClassVar[bool] = False
    likelihoods: ClassVar[tuple[type[Likelihood], ...]] = SMOOTH
    steps: int = 100
    weight: NonNegative = 1.0

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> Tensor:
        if is_linear_gaussian(measurement):
            evaluate, step = self._proximal(prior, measurement)
            return self._descend(evaluate, step, self._begin(prior, measurement), prior.spread**2)
        x, _ = begin_chain(prior, measurement, noise)
        return self._descend(self._smooth(prior, measurement), lambda x, g, t: x - t * g, x, prior.spread**2)

    def _begin(self, prior: Prior, measurement: Measurement) -> Tensor:
        """`filled`; but `start` for an image where that has an infinite energy, since no step would lead back."""
        x = filled(prior, measurement)
        if not prior.bounded:
            return x
        energy, _ = prior_energy(prior, x)
        return torch.where(per_row(energy.isfinite(), x), x, start(prior, measurement))

    def _proximal(self, prior: Prior, measurement: Measurement) -> tuple[Evaluation, Step]:
        """x -> U(x) and weight grad energy(x); and the proximal gradient step."""
        y, A = measurement.y, measurement.linear
        c = measurement.sd**2

        def evaluate(x: Tensor) -> tuple[Tensor, Tensor]:
            energy, gradient = prior_energy(prior, x)
            r = y - A(x)
            return self.weight * energy.reshape(-1, 1, 1, 1) + inner(r, r) / (2 * c), self.weight * gradient

        return evaluate, lambda x, gradient, t: A.prox(x - t * gradient, y, t / c)

    def _smooth(self, prior: Prior, measurement: Measurement) -> Evaluation:
        """x -> U(x) and grad U(x)."""

        def evaluate(x: Tensor) -> tuple[Tensor, Tensor]:
            energy, gradient = prior_energy(prior, x)
            data, slope = measurement.potential(x)
            return (self.weight * energy + data).reshape(-1, 1, 1, 1), self.weight * gradient + slope

        return evaluate

    def _descend(self, evaluate: Evaluation, step: Step, x: Tensor, first: float) -> Tensor:
        U, gradient = evaluate(x)
        t = torch.full_like(U, first)
        for _ in range(self.steps - 1):
            x_new = step(x, gradient, t)
            U_new, gradient_new = evaluate(x_new)
            lower = U_new < U
            d, e = x_new - x, gradient_new - gradient
            curvature = inner(d, e) / inner(d, d)
            # Where the energy is not convex, this length does not exist: try a longer one.
            t_new = torch.where(curvature > 0, 1 / curvature, 4 * t)
            t = torch.where(lower, t_new, t / 4)
            x = torch.where(lower, x_new, x)
            U = torch.where(lower, U_new, U)
            gradient = torch.where(lower, gradient_new, gradient)
        return x
