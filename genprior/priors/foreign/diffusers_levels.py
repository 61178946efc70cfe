"""What a diffusers scheduler says about its network: the noise levels of its training, and how to read its output.

Notation: u = 2x - 1 the image on the network's own [-1, 1], u_t = u + s n, n ~ N(0, I); alpha_bar = 1 / (1 + s^2).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from genprior.checks import UnsupportedError
from genprior.priors.chain import UNIT, interpolated, relative_noise

# diffusers' `SchedulerMixin` declares none of the attributes that all schedulers have.
Scheduler = Any

# Highest noise level used, in the units of x. Cosine chains go up to 10^4, where a predicted eps says nothing about u.
HIGHEST = 80.0
FLOWS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
# Their networks learned where the probability flow from u_t ends, which is not E[u | u_t].
CONSISTENCY = ("CMStochasticIterativeScheduler", "LCMScheduler", "TCDScheduler", "FlowMatchLCMScheduler")
AS_A_FUNCTION = "Write the network's E[x | x_t] as a function, and give that to genprior.from_denoiser."

# (z, t) -> the network's output: z (B, C, H, W), t (B,).
Network = Callable[[Tensor, Tensor], Tensor]


class Levels(nn.Module, ABC):
    """The noise levels of a network's training, and its estimate of u from u_t at any level between them.

    Attributes:
        alpha_bars: alpha_bar of each level, least noise first.
    """

    alpha_bars: list[float]

    @abstractmethod
    def estimate(self, network: Network, u_t: Tensor, s: Tensor) -> Tensor:
        """E[u | u_t], (B, C, H, W), with s (B, 1, 1, 1)."""


class Chain(Levels):
    """The chain z = sqrt(alpha_bar) u_t of a scheduler with `alphas_cumprod`.

    From the network's output at z and its timestep t,
        u_hat = u_t - s eps                                   if it predicts "epsilon",
        u_hat = sqrt(alpha_bar) (z - s v)                     "v_prediction",
        u_hat itself                                          "sample".
    t interpolates linearly in ln s between the steps of the chain, and is rounded if timesteps are learned vectors.
    Steps that add no noise have no level of their own.
    """

    log_levels: Tensor
    timesteps: Tensor

    def __init__(self, scheduler: Scheduler, learned_times: bool):
        super().__init__()
        kind, self.prediction = type(scheduler).__name__, scheduler.config.get("prediction_type", "epsilon")
        if self.prediction not in ("epsilon", "v_prediction", "sample"):
            raise UnsupportedError(
                f"{kind} says that the network predicts {self.prediction!r}; give epsilon, v_prediction or sample."
            )
        self.learned_times = learned_times
        # In the precision of the training, which took its noise from exactly these numbers.
        chain = torch.as_tensor(scheduler.alphas_cumprod).double().flatten().tolist()
        told = [a for a in chain if _has_level(a)]  # beyond the levels used here, Euler's ends with a number of its own
        if not all(0 <= a <= 1 for a in chain) or not all(later <= sooner for sooner, later in pairwise(told)):
            raise ValueError(
                f"The alphas_cumprod of {kind} are no chain: they must fall from at most 1 to at least 0; they are "
                f"{_briefly(chain)}."
            )
        steps = {a: t for t, a in reversed(list(enumerate(chain))) if _has_level(a)}  # the first of equal ones
        steps = dict(sorted(steps.items(), reverse=True))
        if len(steps) < 2:
            raise ValueError(f"The alphas_cumprod of {kind} have no two levels of noise; they are {_briefly(chain)}.")
        self.alpha_bars = list(steps)
        log_levels = torch.tensor([math.log(relative_noise(a)) for a in steps])
        self.register_buffer("log_levels", log_levels, persistent=False)
        self.register_buffer("timesteps", torch.tensor(list(steps.values()), dtype=torch.float32), persistent=False)

    def estimate(self, network: Network, u_t: Tensor, s: Tensor) -> Tensor:
        alpha_bar = 1 / (1 + s**2)
        z = alpha_bar.sqrt() * u_t
        answer = network(z, self.timestep(s))
        if self.prediction == "epsilon":
            return u_t - s * answer
        if self.prediction == "v_prediction":
            return alpha_bar.sqrt() * (z - s * answer)
        return answer

    def timestep(self, s: Tensor) -> Tensor:
        """Return the timesteps t, (B,), of the levels s, (B, 1, 1, 1), within the first and last that have a level."""
        t = interpolated(s.flatten().log().to(self.log_levels), self.log_levels, self.timesteps)
        return t.round().long() if self.learned_times else t.to(s.dtype)


class Interpolation(Levels):
    """The straight path z = (1 - a) u + a n of flow matching, a = s / (1 + s): u_hat = z - a v, v the output at a T.

    References: Y. Lipman et al., Flow matching for generative modeling, 2023.
    """

    def __init__(self, scheduler: Scheduler):
        super().__init__()
        if scheduler.config.get("invert_sigmas"):
            raise UnsupportedError(
                f"{type(scheduler).__name__} counts its path from noise to data. Give the network as a function of z "
                'and its time to genprior.from_velocity, whose convention may be "noise-to-data".'
            )
        self.steps = scheduler.config.num_train_timesteps
        self.alpha_bars = _alpha_bars(a / (1 - a) for a in _own_sigmas(scheduler) if a < 1)

    def estimate(self, network: Network, u_t: Tensor, s: Tensor) -> Tensor:
        a = s / (1 + s)
        z = (1 - a) * u_t
        return z - a * network(z, self.steps * a.flatten())


class Preconditioned(Levels):
    """A network that is told ln s; this, its input and its output are scaled as the scheduler says.

    References: T. Karras et al., Elucidating the design space of diffusion-based generative models, 2022.
    """

    def __init__(self, scheduler: Scheduler):
        super().__init__()
        self.scheduler = scheduler
        self.alpha_bars = _alpha_bars(_own_sigmas(scheduler))

    def estimate(self, network: Network, u_t: Tensor, s: Tensor) -> Tensor:
        z, t = self.scheduler.precondition_inputs(u_t, s), self.scheduler.precondition_noise(s).flatten()
        return self.scheduler.precondition_outputs(u_t, network(z, t), s)


class Exploding(Levels):
    """Images on [0, 1] themselves, x_t = x + sigma n; the output at x_t and sigma is the score of the law of x_t.

        x_hat = x_t + sigma^2 output

    References: Y. Song et al., Score-based generative modeling through stochastic differential equations, 2021.
    """

    def __init__(self, scheduler: Scheduler):
        super().__init__()
        config = scheduler.config
        low, high = math.log(config.sigma_min), math.log(config.sigma_max)
        sigmas = torch.linspace(low, high, config.num_train_timesteps, dtype=torch.float64).exp()
        self.alpha_bars = _alpha_bars((sigmas / UNIT).tolist())

    def estimate(self, network: Network, u_t: Tensor, s: Tensor) -> Tensor:
        x_t, sigma = 0.5 + UNIT * u_t, UNIT * s
        x_hat = x_t + sigma**2 * network(x_t, sigma.flatten())
        return (x_hat - 0.5) / UNIT


def levels_of(scheduler: Scheduler, times: str) -> Levels:
    """Return the noise levels at which, according to its scheduler, a network was trained.

    Arguments:
        scheduler: one with `alphas_cumprod` (DDPM, DDIM, Euler, DPM-Solver and the like), one with preconditioning such
            as EDM's, one of flow matching, or ScoreSdeVe.
        times: the network's time_embedding_type: "learned" timesteps are vectors, with none in between; "fourier" times
            are noise levels.

    Raises:
        UnsupportedError: the scheduler is of another kind, or does not go with such times.
        ValueError: its numbers are not noise levels.
    """
    kind, learned_times = type(scheduler).__name__, times == "learned"
    if is_of(scheduler, *CONSISTENCY):
        raise UnsupportedError(
            f"{kind} is of consistency models, whose network gives one of the images that x_t may have been, not "
            "E[x | x_t]: no prior with a denoiser. (With a CMStochasticIterativeScheduler, on pixels, "
            "genprior.from_diffusers makes one with a decoder of it.)"
        )
    if is_of(scheduler, "ScoreSdeVeScheduler"):
        return Exploding(scheduler)
    if times == "fourier":
        raise UnsupportedError(
            "This network is told its noise as such (time_embedding_type fourier), and its scheduler, "
            f"{kind}, is none of such networks: give ScoreSdeVeScheduler. {AS_A_FUNCTION}"
        )
    if getattr(scheduler, "alphas_cumprod", None) is not None:
        return Chain(scheduler, learned_times)
    preconditioned = all(hasattr(scheduler, f"precondition_{what}") for what in ("inputs", "noise", "outputs"))
    straight = is_of(scheduler, *FLOWS)
    if not preconditioned and not straight:
        raise UnsupportedError(
            f"{kind} has no alphas_cumprod, and is neither EDM's, ScoreSdeVe nor of flow matching: what its network's "
            f"answer says of the image is not known here. {AS_A_FUNCTION}"
        )
    if learned_times:
        raise UnsupportedError(f"The network knows learned timesteps only, and {kind} asks it at any. {AS_A_FUNCTION}")
    return Preconditioned(scheduler) if preconditioned else Interpolation(scheduler)


def is_of(scheduler: Scheduler, *names: str) -> bool:
    """Whether its class or a base class has one of these names; some versions of diffusers lack some of the classes."""
    return any(kind.__name__ in names for kind in type(scheduler).__mro__)


def _own_sigmas(scheduler: Scheduler) -> list[float]:
    """Return the sigmas of the training, not the few that a pipeline may have set since."""
    return type(scheduler).from_config(scheduler.config).sigmas.double().tolist()


def _alpha_bars(levels: Iterable[float]) -> list[float]:
    return sorted({a for a in (1 / (1 + s**2) for s in levels) if _has_level(a)}, reverse=True)


def _has_level(alpha_bar: float) -> bool:
    """Whether there is any noise, and any signal left."""
    return 0 < alpha_bar < 1 and UNIT * relative_noise(alpha_bar) <= HIGHEST


def _briefly(numbers: list[float]) -> str:
    shown = [f"{a:.6g}" for a in numbers]
    return ", ".join(shown if len(shown) <= 6 else [*shown[:3], "…", *shown[-2:]]) or "none"
