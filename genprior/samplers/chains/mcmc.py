"""Hamiltonian Monte Carlo on a batch, each row its own chain, and diagnostics of whether the chains have mixed.

Notation: U(state) = -ln p(state) + const the energy of a state (B, ...), (B,); momentum ~ N(0, M); M^-1 momentum the
velocity; step the leapfrog's step size, (B,). One leapfrog step per transition is MALA.

References: Hybrid Monte Carlo. S. Duane, A. D. Kennedy, B. J. Pendleton, D. Roweth, 1987. MCMC using Hamiltonian
dynamics. R. M. Neal, 2011.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from genprior.linalg import divide, inner, per_row
from genprior.noise import Noise

# state (B, ...) -> U(state) (B,), and its gradient, shaped like the state.
Potential = Callable[[Tensor], tuple[Tensor, Tensor]]
FEWEST = 4  # fewest states of a chain whose halves have a variance
PROJECTIONS = 3


@dataclass(frozen=True, eq=False)
class Metric:
    """The mass matrix M: `draw(noise, like)` is a momentum ~ N(0, M), `velocity(momentum)` is M^-1 momentum."""

    draw: Callable[[Noise, Tensor], Tensor]
    velocity: Callable[[Tensor], Tensor]


EUCLIDEAN = Metric(draw=lambda noise, like: noise(like), velocity=lambda momentum: momentum)


@dataclass(frozen=True, eq=False)
class Point:
    """A state with its energy and gradient, so that neither is computed twice."""

    state: Tensor
    energy: Tensor
    gradient: Tensor

    @classmethod
    def at(cls, potential: Potential, state: Tensor) -> Point:
        return cls(state, *potential(state))


def transition(
    potential: Potential, point: Point, step: Tensor, leapfrog: int, noise: Noise, metric: Metric = EUCLIDEAN
) -> tuple[Point, Tensor]:
    """One transition that leaves exp(-U) invariant: the next point, and the proposal's probability of acceptance, (B,).

        accept with probability min(1, exp(H(point, momentum) - H(proposal, momentum_end))),
        H = U + <momentum, M^-1 momentum> / 2

    The trajectory takes `leapfrog` steps of size step (0.8 + 0.4 u), u uniform, drawn anew each time: at a fixed length
    some oscillation would return to its start (Neal, 2011, section 3.2). A proposal whose energy is infinite or
    not a number, outside the support or divergent, is rejected.
    """
    momentum = metric.draw(noise, point.state)
    jitter, threshold = noise.uniform(torch.stack([point.energy, point.energy], 1)).unbind(1)
    length = per_row(step * (0.8 + 0.4 * jitter), point.state)
    before = point.energy + _kinetic(momentum, metric)
    proposal = point
    for _ in range(leapfrog):
        momentum = momentum - length / 2 * proposal.gradient
        proposal = Point.at(potential, proposal.state + length * metric.velocity(momentum))
        momentum = momentum - length / 2 * proposal.gradient
    after = proposal.energy + _kinetic(momentum, metric)
    acceptance = (before - after).clamp(max=0).exp().nan_to_num(nan=0.0)
    return _where(threshold < acceptance, proposal, point), acceptance


class DualAveraging:
    """Step sizes (B,) that bring each row's mean acceptance to `target`.

        h <- (1 - 1 / (t + t0)) h + (target - acceptance) / (t + t0)
        ln step = mu - sqrt(t) / gamma h,   mu = ln first
        ln settled <- t^-kappa ln step + (1 - t^-kappa) ln settled

    t0 and kappa are as published. The published gamma is 0.05 and mu is ln(10 first), for a thousand transitions
    from any start. Here there are tens, from a step of the right order: with 0.05 the step swings by a factor of 2,
    settles at an acceptance of 0.93 instead of 0.8, and amplifies rounding errors a million times.

    References: The No-U-Turn sampler. M. D. Hoffman, A. Gelman, 2014.

    Attributes:
        step: the step size of the next transition.
        settled: the step size once adaptation has ended.
    """

    gamma = 0.3
    t0 = 10
    kappa = 0.75

    def __init__(self, first: Tensor, target: float):
        self.step = self.settled = first
        self.target = target
        self._mu = first.log()
        self._h = torch.zeros_like(first)
        self._t = 0

    @classmethod
    def of(cls, state: Tensor, leapfrog: int, share: float = 1.0) -> DualAveraging:
        """Start at a share of D^(-1/4), about the step for a white Gaussian of D dimensions in its own metric."""
        first = torch.full_like(state.flatten(1)[:, 0], share * state[0].numel() ** -0.25)
        return cls(first, target_acceptance(leapfrog))

    def update(self, acceptance: Tensor) -> None:
        self._t += 1
        share = 1 / (self._t + self.t0)
        self._h = (1 - share) * self._h + share * (self.target - acceptance)
        log_step = self._mu - math.sqrt(self._t) / self.gamma * self._h
        weight = self._t**-self.kappa
        self.settled = (weight * log_step + (1 - weight) * self.settled.log()).exp()
        self.step = log_step.exp()


def target_acceptance(leapfrog: int) -> float:
    """0.574 for MALA, the optimum in high dimension (Roberts and Rosenthal, 1998); 0.8 for HMC (Hoffman and Gelman)."""
    return 0.574 if leapfrog == 1 else 0.8


def adapt(
    potentials: Sequence[Potential],
    point: Point,
    steps: DualAveraging,
    leapfrog: int,
    noise: Noise,
    metric: Metric = EUCLIDEAN,
) -> Point:
    """Make one transition per potential, adapting the step size, and return the point reached."""
    for potential in potentials:
        point, acceptance = transition(potential, point, steps.step, leapfrog, noise, metric)
        steps.update(acceptance)
    return point


def run(
    potential: Potential,
    point: Point,
    step: Tensor,
    transitions: int,
    leapfrog: int,
    noise: Noise,
    metric: Metric = EUCLIDEAN,
) -> tuple[Point, dict[str, Tensor]]:
    """Make transitions at a fixed step size, and return the last point and the diagnostics (see `Trace.diagnose`)."""
    trace, acceptances = Trace(point.state), []
    for _ in range(transitions):
        point, acceptance = transition(potential, point, step, leapfrog, noise, metric)
        trace.append(point.state, point.energy)
        acceptances.append(acceptance)
    return point, {"acceptance": torch.stack(acceptances).mean(0), **trace.diagnose(noise.image)}


class Trace:
    """A few numbers of each state of a chain: its energy, and its projections on fixed random directions.

    Arguments:
        like: a state, (B, ...).
    """

    def __init__(self, like: Tensor):
        # the same directions for every row, or chains of one image could not be compared
        self._directions = [Noise(0, [k])(like[:1]) for k in range(PROJECTIONS)]
        self._numbers = []

    def append(self, state: Tensor, energy: Tensor) -> None:
        projections = [inner(state, direction).flatten() for direction in self._directions]
        self._numbers.append(torch.stack([energy, *projections]))

    def diagnose(self, image: Tensor) -> dict[str, Tensor]:
        """For the slowest number: "ess", the effective sample size of each chain, and "rhat" (see `split_rhat`)."""
        numbers = torch.stack(self._numbers, dim=-1)
        ess = torch.stack([effective_sample_size(each) for each in numbers]).amin(0)
        rhat = torch.stack([split_rhat(each, image) for each in numbers]).amax(0)
        return {"ess": ess, "rhat": rhat}


def effective_sample_size(chains: Tensor) -> Tensor:
    """How many independent draws estimate the mean as well as each chain does, (B, T) -> (B,).

        T / (-1 + 2 sum_m G_m),   G_m = rho_2m + rho_2m+1

    rho_k is the autocorrelation at lag k; the sum ends before the first G_m <= 0, and G is made monotone. A chain that
    never moved counts as 1. At most T log10(T), as short alternating chains could otherwise give any number.

    References: Practical Markov chain Monte Carlo. C. J. Geyer, 1992. Rank-normalization, folding, and localization: an
    improved R-hat. A. Vehtari, A. Gelman, D. Simpson, B. Carpenter, P.-C. Bürkner, 2021.
    """
    T = chains.shape[1]
    deviation = chains - chains.mean(1, keepdim=True)
    spectrum = torch.fft.rfft(deviation, n=2 * T).abs().square()
    autocovariance = torch.fft.irfft(spectrum, n=2 * T)[:, :T]
    rho = divide(autocovariance, autocovariance[:, :1])
    pairs = rearrange(rho[:, : T // 2 * 2], "b (t two) -> b t two", two=2).sum(2)
    positive = (pairs > 0).cumprod(1)
    length = 2 * (pairs.cummin(1).values * positive).sum(1) - 1
    ess = T / length.clamp_min(1 / math.log10(max(T, 10)))
    return torch.where(autocovariance[:, 0] > 0, ess, 1.0)


def split_rhat(chains: Tensor, image: Tensor) -> Tensor:
    """R-hat, from the variance across an image's chains and within them, (B, T), (B,) -> (B,).

    Each chain is split into halves of N states, which count as chains: W is the mean of their variances, V that of
    their means,

        R-hat = sqrt((N - 1) / N + V / W)

    which is near 1 when the halves agree, and infinite where nothing ever moved or an energy is infinite. Rows of one
    image share one R-hat; an image with a single row is judged by the halves of that row alone, which cannot show what
    the chain never visited.

    References: Inference from iterative simulation using multiple sequences. A. Gelman, D. B. Rubin, 1992. Bayesian
    data analysis. A. Gelman, J. Carlin, H. Stern, D. Dunson, A. Vehtari, D. Rubin, 2013.
    """
    N = chains.shape[1] // 2
    halves = rearrange(chains[:, chains.shape[1] - 2 * N :], "b (two t) -> b two t", two=2)
    means = halves.mean(2)
    same = image[:, None] == image
    rows = same.sum(1)

    def over_image(numbers: Tensor) -> Tensor:
        # where, not a product: what is infinite in one image stays there
        return torch.where(same, numbers, 0).sum(1) / rows

    within = over_image(halves.var(2).mean(1))
    centre = over_image(means.mean(1))[:, None]
    between = over_image((means - centre).square().mean(1)) * (2 * rows) / (2 * rows - 1)
    return ((N - 1) / N + between / within).sqrt().nan_to_num(nan=math.inf, posinf=math.inf)


def _kinetic(momentum: Tensor, metric: Metric) -> Tensor:
    return inner(momentum, metric.velocity(momentum)).flatten() / 2


def _where(accepted: Tensor, new: Point, old: Point) -> Point:
    rows = per_row(accepted, new.state)
    return Point(
        torch.where(rows, new.state, old.state),
        torch.where(accepted, new.energy, old.energy),
        torch.where(rows, new.gradient, old.gradient),
    )
