"""From a denoiser to a sample: integrators over decreasing noise levels.

A schedule is a list of floats sigma_0 > sigma_1 > … >= 0, made once. x starts as a draw at sigma_0, and each step takes
it from sigma to sigma_next; at sigma_next = 0 every integrator returns x_hat. With E[x | x_t, y] in place of
E[x | x_t], the same integrators sample the posterior.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from genprior.samplers.base import Denoiser

Fresh = Callable[[Tensor], Tensor]  # white noise like x, another at each call: a `Noise`


def geometric(sigma_max: float, sigma_min: float, steps: int) -> list[float]:
    """`steps` levels, evenly spaced in ln sigma from sigma_max to sigma_min, and 0."""
    ratio = math.log(sigma_min / sigma_max)
    return [sigma_max * math.exp(ratio * i / max(steps - 1, 1)) for i in range(steps)] + [0.0]


def karras(sigma_max: float, sigma_min: float, steps: int, rho: float = 7.0) -> list[float]:
    """`steps` levels, evenly spaced in sigma^(1/rho) from sigma_max to sigma_min, and 0 (Karras et al., 2022)."""
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return [(high + (low - high) * i / max(steps - 1, 1)) ** rho for i in range(steps)] + [0.0]


def thinned(sigma_max: float, sigma_min: float, steps: int, density: float) -> list[float]:
    """`steps` levels from sigma_max to sigma_min, at most `density` of them per factor of e in sigma, and 0.

        density ln(sigma_i / sigma_min) + b (sigma_i - sigma_min) = steps - 1 - i

    At low noise they are evenly spaced in ln sigma; the others, at high noise, in sigma. Few steps are `geometric`.
    """
    folds = math.log(sigma_max / sigma_min)
    density = min(density, (steps - 1) / folds)
    b = (steps - 1 - density * folds) / (sigma_max - sigma_min)

    def level(steps_left: int) -> float:
        low, high = sigma_min, sigma_max
        for _ in range(60):  # bisection, to rounding
            middle = math.sqrt(low * high)
            beyond = density * math.log(middle / sigma_min) + b * (middle - sigma_min) > steps_left
            low, high = (low, middle) if beyond else (middle, high)
        return high

    return [sigma_max, *(level(steps - 1 - i) for i in range(1, steps)), 0.0]


def variance_preserving(sigma_max: float, sigma_min: float, steps: int, unit: float) -> list[float]:
    """`steps` levels of DDPM's linear betas between sigma_max and sigma_min, evenly spaced in time, and 0.

    In continuous time t in [0, 1], alpha_bar(t) = exp(-0.1 t - 9.95 t^2) and sigma = unit sqrt(1 / alpha_bar - 1), with
    `unit` half the range of x: the chain was designed for images in [-1, 1] (Ho et al., 2020; Song et al., 2021).
    """

    def time(sigma: float) -> float:
        exponent = math.log1p((sigma / unit) ** 2)
        return (math.sqrt(0.01 + 39.8 * exponent) - 0.1) / 19.9

    start, stop = time(sigma_max), time(sigma_min)
    times = [start + (stop - start) * i / max(steps - 1, 1) for i in range(steps)]
    return [unit * math.sqrt(math.expm1(0.1 * t + 9.95 * t**2)) for t in times] + [0.0]


def euler(denoise: Denoiser, x: Tensor, sigmas: list[float]) -> Tensor:
    """The probability-flow ODE dx / dsigma = (x - x_hat) / sigma by Euler steps: first order in the step."""
    for sigma, sigma_next in pairwise(sigmas):
        x_hat = denoise(x, sigma)
        x = x_hat + sigma_next / sigma * (x - x_hat)
    return x


def heun(denoise: Denoiser, x: Tensor, sigmas: list[float]) -> Tensor:
    """The same ODE by Heun's method (Karras et al., 2022): second order, two evaluations per step except the last."""
    for sigma, sigma_next in pairwise(sigmas):
        slope = (x - denoise(x, sigma)) / sigma
        x_euler = x + (sigma_next - sigma) * slope
        if sigma_next == 0:
            return x_euler
        slope_next = (x_euler - denoise(x_euler, sigma_next)) / sigma_next
        x = x + (sigma_next - sigma) * (slope + slope_next) / 2
    return x


def ancestral(denoise: Denoiser, x: Tensor, sigmas: list[float], noise: Fresh, eta: float = 1.0) -> Tensor:
    """The reverse diffusion by Gaussian steps; eta scales the fresh noise: 1 ancestral, 0 DDIM (= Euler)."""
    for sigma, sigma_next in pairwise(sigmas):
        x = ancestral_step(x, denoise(x, sigma), sigma, sigma_next, noise, eta)
    return x


def multistep(denoise: Denoiser, x: Tensor, sigmas: list[float], noise: Fresh, eta: float = 1.0) -> Tensor:
    """The reverse diffusion by exponential steps that extrapolate x_hat from the previous step: second order.

        h     = ln(sigma / sigma_next),   h_ and x_hat_ those of the previous step
        D     = x_hat + h / (2 h_) (1 - eta h / 4) (x_hat - x_hat_)
        x     = (sigma_next / sigma) exp(-eta h) x + (1 - exp(-(1 + eta) h)) D + sigma_next sqrt(1 - exp(-2 eta h)) n

    eta scales the fresh noise: 1 gives the reverse diffusion, 0 its probability flow. The flow never corrects errors
    made at high noise, so approximate guidance works better with eta = 1. The first step does not extrapolate.

    The published D lacks the factor 1 - eta h / 4. x_hat - x_hat_ contains noise of the previous step, which
    extrapolation adds to the variance. The factor keeps the order; with it, 20 steps from 64 spreads preserve the
    variance of a Gaussian to 1 %, and 40 steps to 0.2 %, apart from what the last step drops
    (tests/samplers/test_integrate.py has the figures).

    References: C. Lu et al., DPM-Solver++: fast solver for guided sampling of diffusion probabilistic models, 2022.
    """
    before, h_before = None, math.inf
    for sigma, sigma_next in pairwise(sigmas):
        x_hat = denoise(x, sigma)
        if sigma_next == 0:
            return x_hat
        h = math.log(sigma / sigma_next)
        D = x_hat if before is None else x_hat + h / (2 * h_before) * (1 - eta * h / 4) * (x_hat - before)
        x = sigma_next / sigma * math.exp(-eta * h) * x - math.expm1(-(1 + eta) * h) * D
        if eta > 0:
            x = x + sigma_next * math.sqrt(-math.expm1(-2 * eta * h)) * noise(x)
        before, h_before = x_hat, h
    return x


def fresh(denoise: Denoiser, x: Tensor, sigmas: list[float], noise: Fresh, eta: float = 1.0) -> Tensor:
    """x_next = x_hat + sigma_next (sqrt(1 - eta) (x - x_hat) / sigma + sqrt(eta) n): noise drawn anew.

    This is no reverse diffusion: with eta = 1, x_next keeps only x_hat of x, so spread lost at one level does not
    return at the next. The result lies closer to the posterior mean than a draw does, and has less squared error.

    References: Y. Zhu et al., Denoising diffusion models for plug-and-play image restoration, 2023 (eta is their zeta).
    """
    for sigma, sigma_next in pairwise(sigmas):
        x_hat = denoise(x, sigma)
        eps = (x - x_hat) / sigma
        x = x_hat + sigma_next * (math.sqrt(1 - eta) * eps + math.sqrt(eta) * noise(x))
    return x


def ancestral_step(x: Tensor, x_hat: Tensor, sigma: float, sigma_next: float, noise: Fresh, eta: float = 1.0) -> Tensor:
    """x_next = x_hat + sqrt(sigma_next^2 - fresh^2) / sigma (x - x_hat) + fresh n.

    Here fresh = eta sigma_next sqrt(1 - r) and r = (sigma_next / sigma)^2. With eta = 1 this is
    r x + (1 - r) x_hat + sigma_next sqrt(1 - r) n, a draw from q(x_next | x_t, x = x_hat).
    """
    fresh = eta * sigma_next * math.sqrt(1 - (sigma_next / sigma) ** 2)
    kept = math.sqrt(sigma_next**2 - fresh**2)
    x = x_hat + kept / sigma * (x - x_hat)
    return x + fresh * noise(x) if fresh > 0 else x


@dataclass(frozen=True)
class Integrator:
    """One of the integrators above, in the form in which guidance runs it.

    Attributes:
        run: (denoise, x, sigmas, noise, eta) -> x.
        calls: number of steps -> number of calls of the denoiser.
        stochastic: whether it draws fresh noise, whose share is eta.
        reverse: whether that noise is the reverse diffusion's, so that x at the last level is a draw.
    """

    run: Callable[[Denoiser, Tensor, list[float], Fresh, float], Tensor]
    calls: Callable[[int], int] = lambda steps: steps
    stochastic: bool = False
    reverse: bool = False


INTEGRATORS: dict[str, Integrator] = {
    "ancestral": Integrator(ancestral, stochastic=True, reverse=True),
    "multistep": Integrator(multistep, stochastic=True, reverse=True),
    "fresh": Integrator(fresh, stochastic=True),
    "euler": Integrator(lambda denoise, x, sigmas, noise, eta: euler(denoise, x, sigmas)),
    "heun": Integrator(lambda denoise, x, sigmas, noise, eta: heun(denoise, x, sigmas), lambda steps: 2 * steps - 1),
}
