"""Decoupled annealing: draw x from p(x | x_t, y), forget x_t, add the noise of the next level to x.

With p(x | x_t) ~ N(x_hat, r^2 I), the inner draw is one from

    exp(-|x - x_hat|^2 / (2 r^2) - |y - A x|^2 / (2 noise^2)),   r^2 = sigma^2 tr J / D,   J = d x_hat / d x_t

a Gaussian for our linear operators, drawn in closed form by `DAPS`, by the published Langevin and Hamiltonian steps in
`DAPSLangevin` and `DAPSHMC`. The next x_t is x + sigma' n: it owes nothing to the last one but through x.

Where we differ. The published r is sigma: x then has white noise where images have none, of which the denoiser is not
told, and the draws stay noisy. sigma^2 tr J / D is the mean variance of p(x | x_t), estimated by one backward pass; of
all white Gaussians this one is nearest, and exact for white Gaussian priors. noise is that of y (published: 0.01 on
[-1, 1] whatever it is, and a gradient twice as long). The inner steps are scaled to be stable at every level
(published: tuned by task, so few and short that x stays near x_hat where A does not see). Levels are evenly spread in
ln sigma (published: in sigma^(1/7)).

References: B. Zhang, W. Chu, J. Berner, C. Meng, A. Anandkumar, Y. Song, Improving diffusion inverse problem solving
with decoupled noise annealing, 2025. M. F. Hutchinson, A stochastic estimator of the trace of the influence matrix for
Laplacian smoothing splines, 1990.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from genprior.linalg import divide, inner, norm
from genprior.noise import Noise
from genprior.operators.base import Measurement, as_integer, as_number
from genprior.priors.base import Prior
from genprior.samplers.base import Denoiser, Sampler, begin
from genprior.samplers.gibbs import gaussian_draw
from genprior.samplers.integrate import euler, geometric, karras

Draw = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class DAPS(Sampler):
    """Decoupled annealing with the inner draw in closed form.

        x_hat = the probability-flow ODE from x_t down to 0, in `ode_steps` Euler steps
        x     ~ N(x; x_hat, r^2 I) N(y; A x, noise^2 I)
        x'    = x + sigma' n

    With one step of the ODE x_hat is E[x | x_t], and draws from white Gaussian priors are exact. The published 5 make
    x_hat sharper, but it is then nearly a draw from p(x | x_t) to which r n is added once more: of Gaussian priors the
    variance where A does not see is half too large.

    References: see the module.

    Attributes:
        steps: noise levels; published: 200.
        ode_steps: evaluations of the denoiser at each; published: 5.
    """

    steps: int = 100
    ode_steps: int = 1

    def __post_init__(self):
        super().__post_init__()
        as_integer("ode_steps", self.ode_steps, 1, math.inf)

    @property
    def calls(self) -> int:
        return self.steps * self.ode_steps

    @property
    def evaluations(self) -> int:
        return self.calls + self.steps

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> Tensor:
        def draw(x_hat: Tensor, r: Tensor) -> Tensor:
            return gaussian_draw(measurement, x_hat, r, noise)

        return _anneal(prior, measurement, noise, self.steps, self.ode_steps, draw)


@dataclass(frozen=True)
class DAPSLangevin(Sampler):
    """Decoupled annealing with the inner draw by Langevin steps from x_hat, as published.

        x <- x + h g(x) + sqrt(2 h) n,   g(x) = (x_hat - x) / r^2 + A^T (y - A x) / noise^2
        h  = step / (1 / r^2 + |A|^2 / noise^2)

    The step takes the stiffest direction as far as `step` in units of its variance, whose variance comes out
    1 / (1 - step / 2) times too large. The slowest forgets its start in (1 + (r |A| / noise)^2) / step steps: far more
    than there are, where noise is low. x then stays near x_hat where A does not see. `DAPS` has no such errors.

    References: see the module.

    Attributes:
        steps, ode_steps: see `DAPS`.
        iterations: Langevin steps of each inner draw; published: 100.
        step: below 2, where it diverges.
    """

    steps: int = 100
    ode_steps: int = 1
    iterations: int = 100
    step: float = 0.25

    def __post_init__(self):
        super().__post_init__()
        as_integer("ode_steps", self.ode_steps, 1, math.inf)
        as_integer("iterations", self.iterations, 1, math.inf)
        as_number("step", self.step, 1e-12, 1.99)

    @property
    def calls(self) -> int:
        return self.steps * self.ode_steps

    @property
    def evaluations(self) -> int:
        return self.calls + self.steps

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> Tensor:
        stiffness = _stiffness(measurement, noise)

        def draw(x_hat: Tensor, r: Tensor) -> Tensor:
            h = self.step / (1 / r**2 + stiffness)
            x = x_hat
            for _ in range(self.iterations):
                x = x + h * _gradient(measurement, x, x_hat, r) + (2 * h).sqrt() * noise(x)
            return x

        return _anneal(prior, measurement, noise, self.steps, self.ode_steps, draw)


@dataclass(frozen=True)
class DAPSHMC(Sampler):
    """Decoupled annealing with the inner draw by Hamiltonian steps with friction from x_hat, as published.

        v <- momentum v + sqrt(h) g(x) + sqrt(2 (1 - momentum)) n,   x <- x + sqrt(h) v

    with g and h as in `DAPSLangevin`, which this is for momentum = 0; near 1 it is 1 / (1 - momentum) times faster
    where Langevin steps are slow.

    References: see the module.

    Attributes:
        steps, ode_steps: see `DAPS`.
        iterations: of each inner draw; published: 11 to 96.
        step: see `DAPSLangevin`.
        momentum: what is kept of v; published: 0.003 to 0.9, by task.
    """

    steps: int = 100
    ode_steps: int = 1
    iterations: int = 50
    step: float = 0.25
    momentum: float = 0.9

    def __post_init__(self):
        super().__post_init__()
        as_integer("ode_steps", self.ode_steps, 1, math.inf)
        as_integer("iterations", self.iterations, 1, math.inf)
        as_number("step", self.step, 1e-12, 1.99)
        as_number("momentum", self.momentum, 0, 0.999)

    @property
    def calls(self) -> int:
        return self.steps * self.ode_steps

    @property
    def evaluations(self) -> int:
        return self.calls + self.steps

    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> Tensor:
        stiffness = _stiffness(measurement, noise)

        def draw(x_hat: Tensor, r: Tensor) -> Tensor:
            h = self.step / (1 / r**2 + stiffness)
            x, v = x_hat, torch.zeros_like(x_hat)
            for _ in range(self.iterations):
                push = h.sqrt() * _gradient(measurement, x, x_hat, r)
                v = self.momentum * v + push + math.sqrt(2 * (1 - self.momentum)) * noise(x)
                x = x + h.sqrt() * v
            return x

        return _anneal(prior, measurement, noise, self.steps, self.ode_steps, draw)


def _anneal(prior: Prior, measurement: Measurement, noise: Noise, steps: int, ode_steps: int, draw: Draw) -> Tensor:
    """x_t -> x_hat, r -> x -> x_t of the next level, with `draw` (x_hat, r) -> x; the last x is returned."""
    spread, sigma_min = prior.spread, prior.sigma_min
    sigmas = geometric(prior.sigma_max, sigma_min, steps)
    x = begin(prior, measurement, sigmas[0], noise)
    for sigma, sigma_next in pairwise(sigmas):
        x_hat, r = moments(prior.denoise, x, sigma, spread, noise)
        levels = karras(sigma, sigma_min, ode_steps)
        x_hat = euler(prior.denoise, x_hat + levels[1] / sigma * (x - x_hat), levels[1:])
        x = draw(x_hat, r)
        x = x + sigma_next * noise(x) if sigma_next else x
    return x


def moments(denoise: Denoiser, x_t: Tensor, sigma: float, spread: float, noise: Noise) -> tuple[Tensor, Tensor]:
    """E[x | x_t], and the root mean square over values of their standard deviations, (B, 1, 1, 1), estimated."""
    with torch.enable_grad():
        x_t = x_t.detach().requires_grad_()
        x_hat = denoise(x_t, sigma)
    signs = noise(x_t).sign()
    (product,) = torch.autograd.grad(x_hat, x_t, signs)
    variance = sigma**2 * inner(signs, product) / x_t[0].numel()
    # That of white Gaussian images: no others of the same spread have more, on average.
    most = (sigma * spread) ** 2 / (sigma**2 + spread**2)
    # The estimate of a network's trace may be 0 or less.
    return x_hat.detach(), variance.clamp(1e-4 * most, most).sqrt()


def _gradient(measurement: Measurement, x: Tensor, x_hat: Tensor, r: Tensor) -> Tensor:
    y, A = measurement.y, measurement.operator
    return (x_hat - x) / r**2 + A.adjoint(y - A(x)) / measurement.noise**2


def _stiffness(measurement: Measurement, noise: Noise, iterations: int = 20) -> Tensor:
    """|A|^2 / noise^2 by power iteration, (B, 1, 1, 1); too small, if at all, by less than the steps have room for."""
    A = measurement.operator
    x = A.adjoint(noise(measurement.y))
    for _ in range(iterations):
        x = divide(x, norm(x))
        x = A.adjoint(A(x))
    return norm(x) / measurement.noise**2
