"""Decoupled annealing: draw x from p(x | x_t, y), forget x_t, add the noise of the next level to x.

With p(x | x_t) ~ N(x_hat, r^2 I), the inner draw is from

    exp(-|x - x_hat|^2 / (2 r^2) - |y - A x|^2 / (2 noise^2)),   r^2 = sigma^2 tr J / D,   J = d x_hat / d x_t

For linear operators this is a Gaussian, from which `DAPS` draws in closed form; `DAPSLangevin` and `DAPSHMC` take the
published Langevin and Hamiltonian steps. The next x_t is x + sigma' n: it depends on the last one only through x.

Differences from the paper: its r is sigma. x then has white noise where images have none, which the denoiser does not
know of, and the draws stay noisy. sigma^2 tr J / D is the mean variance of p(x | x_t), estimated by one backward pass;
it gives the nearest white Gaussian, exact for white Gaussian priors. noise is that of y (published: 0.01 on [-1, 1]
whatever the noise, and a gradient twice as long). The inner steps are scaled to be stable at every level (published:
tuned by task, so few and short that x stays near x_hat where A does not see). Levels are evenly spaced in ln sigma
(published: in sigma^(1/7)).

References: B. Zhang, W. Chu, J. Berner, C. Meng, A. Anandkumar, Y. Song, Improving diffusion inverse problem solving
with decoupled noise annealing, 2025. M. F. Hutchinson, A stochastic estimator of the trace of the influence matrix for
Laplacian smoothing splines, 1990.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from genprior.checks import Count, Range
from genprior.linalg import divide, inner, norm
from genprior.noise import Noise
from genprior.operators.linear import LinearOperator
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.samplers.annealing.gibbs import gaussian_draw
from genprior.samplers.base import Denoiser, Sampler, begin, differentiable, white_variance
from genprior.samplers.integrate import euler, geometric, karras

Draw = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Decoupled(Sampler):
    """The annealing loop that all three share; a subclass defines the inner draw.

    Attributes:
        steps: noise levels; published: 200.
        ode_steps: evaluations of the denoiser at each level; published: 5.
    """

    steps: int = 100
    ode_steps: Count = 1

    @abstractmethod
    def inner_draw(self, measurement: Measurement, noise: Noise) -> Draw:
        """(x_hat, r) -> x ~ N(x; x_hat, r^2 I) N(y; A x, noise^2 I)."""

    @property
    def calls(self) -> int:
        return self.steps * self.ode_steps

    @property
    def evaluations(self) -> int:
        return self.calls + self.steps

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> Tensor:
        draw = self.inner_draw(measurement, noise)
        spread, sigma_min = prior.spread, prior.sigma_min
        sigmas = geometric(prior.sigma_max, sigma_min, self.steps)
        x = begin(prior, measurement, sigmas[0], noise)
        for sigma, sigma_next in pairwise(sigmas):
            x_hat, r = moments(prior.denoise, x, sigma, spread, noise)
            levels = karras(sigma, sigma_min, self.ode_steps)
            x_hat = euler(prior.denoise, x_hat + levels[1] / sigma * (x - x_hat), levels[1:])
            x = draw(x_hat, r)
            x = x + sigma_next * noise(x) if sigma_next else x
        return x


@dataclass(frozen=True)
class DAPS(Decoupled):
    """Decoupled annealing with the inner draw in closed form.

        x_hat = the probability-flow ODE from x_t down to 0, in `ode_steps` Euler steps
        x     ~ N(x; x_hat, r^2 I) N(y; A x, noise^2 I)
        x'    = x + sigma' n

    With one step of the ODE, x_hat is E[x | x_t], and draws for white Gaussian priors are exact. The published 5 make
    x_hat sharper, but then it is nearly a draw from p(x | x_t), to which r n is added once more: for Gaussian priors,
    the variance where A does not see is too large by half.

    References: see the module.

    Attributes:
        steps, ode_steps: see `Decoupled`.
    """

    def inner_draw(self, measurement: Measurement, noise: Noise) -> Draw:
        return lambda x_hat, r: gaussian_draw(measurement, x_hat, r, noise)


@dataclass(frozen=True)
class Iterated(Decoupled):
    """`Decoupled` with the inner draw by steps from x_hat, whose length is stable at every level.

        g(x) = (x_hat - x) / r^2 + A^T (y - A x) / noise^2,   h = step / (1 / r^2 + |A|^2 / noise^2)

    For an operator that is not linear, A^T is that of its derivative at x, and |A| the larger of those of its
    derivatives at x_hat + 2 r s and x_hat - 2 r s, with random signs s.

    Attributes:
        steps, ode_steps: see `Decoupled`.
        iterations: steps of each inner draw.
        step: below 2, where the steps start to diverge.
    """

    linear: ClassVar[bool] = False
    iterations: Count = 100
    step: Annotated[float, Range(1e-12, 1.99)] = 0.25

    @abstractmethod
    def move(self, gradient: Callable[[Tensor], Tensor], x: Tensor, h: Tensor, noise: Noise) -> Tensor:
        """x after all iterations of step length h from x = x_hat."""

    def inner_draw(self, measurement: Measurement, noise: Noise) -> Draw:
        y, A = measurement.y, measurement.operator
        stiffness = _stiffness(measurement, noise)

        def draw(x_hat: Tensor, r: Tensor) -> Tensor:
            def gradient(x: Tensor) -> Tensor:
                z, vjp = A.vjp(x)
                return (x_hat - x) / r**2 + vjp(y - z) / measurement.sd**2

            return self.move(gradient, x_hat, self.step / (1 / r**2 + stiffness(x_hat, r)), noise)

        return draw


@dataclass(frozen=True)
class DAPSLangevin(Iterated):
    """Decoupled annealing with the inner draw by Langevin steps from x_hat, as published.

        x <- x + h g(x) + sqrt(2 h) n,   with g and h of `Iterated`

    In the stiffest direction, h is `step` times the variance, which comes out 1 / (1 - step / 2) times too large. The
    slowest direction forgets its start in (1 + (r |A| / noise)^2) / step steps: far more than are taken where the noise
    is low. x then stays near x_hat where A does not see. `DAPS` has no such errors.

    References: see the module.

    Attributes:
        steps, ode_steps: see `Decoupled`.
        iterations: published: 100.
        step: see `Iterated`.
    """

    def move(self, gradient: Callable[[Tensor], Tensor], x: Tensor, h: Tensor, noise: Noise) -> Tensor:
        for _ in range(self.iterations):
            x = x + h * gradient(x) + (2 * h).sqrt() * noise(x)
        return x


@dataclass(frozen=True)
class DAPSHMC(Iterated):
    """Decoupled annealing with the inner draw by Hamiltonian steps with friction from x_hat, as published.

        v <- momentum v + sqrt(h) g(x) + sqrt(2 (1 - momentum)) n,   x <- x + sqrt(h) v,   with g and h of `Iterated`

    With momentum = 0 these are Langevin steps; near 1, they are 1 / (1 - momentum) times faster where those are slow.

    References: see the module.

    Attributes:
        steps, ode_steps: see `Decoupled`.
        iterations: published: 11 to 96.
        step: see `Iterated`.
        momentum: the share of v that is kept; published: 0.003 to 0.9, by task.
    """

    iterations: Count = 50
    momentum: Annotated[float, Range(0, 0.999)] = 0.9

    def move(self, gradient: Callable[[Tensor], Tensor], x: Tensor, h: Tensor, noise: Noise) -> Tensor:
        v = torch.zeros_like(x)
        for _ in range(self.iterations):
            v = self.momentum * v + h.sqrt() * gradient(x) + math.sqrt(2 * (1 - self.momentum)) * noise(x)
            x = x + h.sqrt() * v
        return x


def moments(denoise: Denoiser, x_t: Tensor, sigma: float, spread: float, noise: Noise) -> tuple[Tensor, Tensor]:
    """E[x | x_t], and an estimate of the root mean square of the values' standard deviations, (B, 1, 1, 1)."""
    x_hat, vjp = differentiable(denoise, x_t, sigma)
    signs = noise(x_t).sign()
    variance = sigma**2 * inner(signs, vjp(signs)) / x_t[0].numel()
    # White Gaussian images have the most, on average, of all images of that spread.
    most = white_variance(sigma, spread)
    # The estimate of a network's trace may be 0 or less.
    return x_hat, variance.clamp(1e-4 * most, most).sqrt()


def _stiffness(measurement: Measurement, noise: Noise) -> Callable[[Tensor, Tensor], Tensor]:
    """(x_hat, r) -> |A|^2 / noise^2, (B, 1, 1, 1): computed once for a linear operator, else where x will be."""
    A, probe = measurement.operator, noise(measurement.y)
    if isinstance(A, LinearOperator):
        everywhere = squared_norm(A.adjoint(probe), lambda u: A.adjoint(A(u))) / measurement.sd**2
        return lambda x_hat, r: everywhere
    signs = noise(probe.new_empty(len(probe), *A.image_shape)).sign()

    def at(x: Tensor) -> Tensor:
        _, vjp = A.vjp(x)
        return squared_norm(vjp(probe), lambda u: vjp(A.jvp(x, u))) / measurement.sd**2

    return lambda x_hat, r: torch.maximum(at(x_hat + 2 * r * signs), at(x_hat - 2 * r * signs))


def squared_norm(u: Tensor, matvec: Callable[[Tensor], Tensor], iterations: int = 20) -> Tensor:
    """The largest eigenvalue by power iteration from u, (B, 1, 1, 1); too small by less than steps have room for."""
    for _ in range(iterations):
        u = divide(u, norm(u))
        u = matvec(u)
    return norm(u)
