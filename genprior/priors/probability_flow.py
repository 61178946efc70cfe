"""The density of a diffusion prior by its probability flow, an ordinary differential equation with the same marginals.

With tau = ln sigma and D(x, sigma) = E[x | x_t], images flow by dx / dtau = x - D(x, sigma), and the log-density falls
along a path at the rate of the divergence; so, with d = dim x,
    ln p_sigma_min(x) = ln p_sigma_max(x_T) + int (d - tr dD/dx) dtau.

References: Y. Song et al., Score-based generative modeling through stochastic differential equations, 2021.
W. Grathwohl et al., FFJORD: free-form continuous dynamics for scalable reversible generative models, 2019 (the trace
from random probes).
"""

import copy
import math
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genprior.linalg import inner
from genprior.noise import Noise
from genprior.priors.base import Prior


class FlowDensity(NamedTuple):
    """A log-density in nats with its numerical errors, each (B,).

    Attributes:
        value: the estimate.
        probe_error: standard error of the mean over the random probes of the trace; with K probes its own relative
            error is 1 / sqrt(2 (K - 1)). NaN for a single probe.
        step_error: difference from the value that half as many integrator steps give; since the integrator is of second
            order, the actual error is about a third of that.
    """

    value: Tensor
    probe_error: Tensor
    step_error: Tensor

    @property
    def error(self) -> Tensor:
        """The stated error, (B,): `probe_error` + `step_error`."""
        return self.probe_error + self.step_error


def flow_log_prob(
    prior: Prior, x: Tensor, label: Tensor | None = None, *, seed: int = 0, steps: int = 100, probes: int = 4
) -> FlowDensity:
    """ln p_sigma_min(x) in nats: the density of images with noise sigma_min, by Heun's method.

    The result states two errors, see `FlowDensity`: that of the random probes, which are unbiased and each fixed along
    the whole path; and the integrator's, of second order in 1 / steps. It omits the denoiser's own error, and that of
    taking N(centre, (spread^2 + sigma_max^2) I) for the law of x_T, which changes ln p by about half the sum of the
    variances of x in all directions over sigma_max^2.

    Arguments:
        prior: has a differentiable `denoise`. It computes here in the precision of its weights, whatever its
            `autocast`, because the noise of the lowest levels is finer than bfloat16 resolves.
        x: (B, C, H, W).
        label: (B,), for a prior whose `denoise` takes labels; None for none.
        seed: keys the probes.
        steps: an even number; each takes two forward evaluations, and one backward pass through each of them per probe.
            Half as many further steps give `step_error`.
        probes: K, of values -1 and 1.

    Raises:
        ValueError: the steps are odd or fewer than 2, or there is no probe.
    """
    if steps < 2 or steps % 2:
        raise ValueError(f"steps is {steps}: give an even number, at least 2; half as many tell the error.")
    fine, coarse = (flow_estimates(prior, x, label, seed, k, probes) for k in (steps, steps // 2))
    value = fine.mean(0)
    deviation = fine.std(0) if probes > 1 else torch.full_like(value, math.nan)
    return FlowDensity(value, deviation / math.sqrt(probes), (value - coarse.mean(0)).abs())


def flow_estimates(prior: Prior, x: Tensor, label: Tensor | None, seed: int, steps: int, probes: int) -> Tensor:
    """ln p_sigma_min(x) from each probe, (K, B): `flow_log_prob` without its errors, for any number of steps."""
    if probes < 1:
        raise ValueError(f"probes is {probes}: give a whole number, at least 1.")
    exact: Any = copy.copy(prior)  # shares the network; Any, because some priors' `denoise` takes labels
    exact.autocast = None
    denoise = exact.denoise if label is None else partial(exact.denoise, label=label)
    noise = Noise(seed, torch.arange(len(x)))
    signs = torch.stack([torch.where(noise.uniform(x) < 0.5, -1.0, 1.0).to(x) for _ in range(probes)])
    low, high = math.log(prior.sigma_min), math.log(prior.sigma_max)
    taus = [low + (high - low) * k / steps for k in range(steps + 1)]

    def velocity(x_t: Tensor, tau: float) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            v = x_t - denoise(x_t, math.exp(tau))
        products = [torch.autograd.grad(v, x_t, z, retain_graph=True)[0] for z in signs]
        return v.detach(), torch.stack([inner(product, z).flatten() for product, z in zip(products, signs)])

    x_t, total = x, x.new_zeros(probes, len(x))
    for tau, tau_next in pairwise(taus):
        h = tau_next - tau
        v, divergence = velocity(x_t, tau)
        v_next, divergence_next = velocity(x_t + h * v, tau_next)
        x_t = x_t + h * (v + v_next) / 2
        total = total + h * (divergence + divergence_next) / 2

    variance = prior.spread**2 + prior.sigma_max**2
    r = x_t - prior.centre
    return total - 0.5 * (inner(r, r).flatten() / variance + x[0].numel() * math.log(2 * math.pi * variance))
