"""The density of a diffusion prior by its probability flow: an ordinary differential equation with the same marginals.

With tau = ln sigma and D(x, sigma) = E[x | x_t], images flow by dx / dtau = x - D(x, sigma), and the log-density falls
along a path by the divergence, so that with d = dim x
    ln p_sigma_min(x) = ln p_sigma_max(x_T) + int (d - tr dD/dx) dtau.

References: Y. Song et al., Score-based generative modeling through stochastic differential equations, 2021.
W. Grathwohl et al., FFJORD: free-form continuous dynamics for scalable reversible generative models, 2019 (the trace by
random probes).
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from genprior.linalg import inner
from genprior.noise import Noise


def flow_log_prob(
    denoise: Callable[[Tensor, float], Tensor],
    x: Tensor,
    sigmas: tuple[float, float],
    centre: float | Tensor,
    spread: float,
    *,
    seed: int = 0,
    steps: int = 100,
) -> Tensor:
    """ln p_sigma_min(x) in nats, (B,): the density of images with noise sigma_min, by Heun's method.

    Its errors: the integrator's, of second order in 1 / steps; one random probe for the trace, without bias, the same
    along a path; at sigma_max, N(centre, (spread^2 + sigma_max^2) I) is taken for the law of x_T.

    Arguments:
        denoise: (x_t, sigma) -> E[x | x_t], differentiable.
        x: (B, C, H, W).
        sigmas: sigma_min and sigma_max, in the units of x.
        centre, spread: mean and standard deviation of a value of x.
        seed: keys the probes.
        steps: of two evaluations, forward and backward, each.
    """
    low, high = map(math.log, sigmas)
    taus = [low + (high - low) * k / steps for k in range(steps + 1)]
    probe = torch.where(Noise(seed, torch.arange(len(x))).uniform(x) < 0.5, -1.0, 1.0).to(x)

    def velocity(x_t: Tensor, tau: float) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            v = x_t - denoise(x_t, math.exp(tau))
        (product,) = torch.autograd.grad(v, x_t, probe)
        return v.detach(), inner(product, probe).flatten()

    x_t, total = x, torch.zeros_like(x[:, 0, 0, 0])
    for tau, tau_next in pairwise(taus):
        h = tau_next - tau
        v, divergence = velocity(x_t, tau)
        v_next, divergence_next = velocity(x_t + h * v, tau_next)
        x_t = x_t + h * (v + v_next) / 2
        total = total + h * (divergence + divergence_next) / 2

    variance = spread**2 + sigmas[1] ** 2
    r = x_t - centre
    return total - 0.5 * (inner(r, r).flatten() / variance + x[0].numel() * math.log(2 * math.pi * variance))
