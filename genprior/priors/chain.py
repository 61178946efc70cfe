"""The Gaussian chain of a diffusion: its noise schedules, its reverse chain, its evidence bound.

Notation: alpha_bar_t the cumulative product of 1 - beta_t; u = 2x - 1 the image on [-1, 1]; z_t = sqrt(alpha_bar_t) u +
sqrt(1 - alpha_bar_t) eps the chain; s_t = sqrt((1 - alpha_bar_t) / alpha_bar_t) its noise relative to the signal, and
sigma_t = s_t / 2 the same noise in the units of x.

References: J. Ho, A. Jain, P. Abbeel, Denoising diffusion probabilistic models, 2020. A. Nichol, P. Dhariwal, Improved
denoising diffusion probabilistic models, 2021 (cosine betas). D. Kingma et al., Variational diffusion models, 2021 (the
bound).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from tqdm.auto import tqdm

from genprior.noise import Noise
from genprior.priors.base import as_level

UNIT = 0.5  # one unit of the network's [-1, 1], in the units of x


def linear_betas(steps: int) -> Tensor:
    """beta_t linear from 1e-4 to 0.02 for 1000 steps (Ho et al.), scaled by 1000 / steps for other numbers of steps."""
    scale = 1000 / steps
    return torch.linspace(1e-4 * scale, min(0.02 * scale, 0.999), steps, dtype=torch.float64)


def cosine_betas(steps: int) -> Tensor:
    """alpha_bar_t = cos^2(pi/2 (t/T + 0.008) / 1.008), beta_t capped at 0.999 (Nichol and Dhariwal)."""
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    alpha_bar = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)


def geometric_betas(steps: int) -> Tensor:
    """s_t = sqrt((1 - alpha_bar_t) / alpha_bar_t) geometric, from 0.4 / 255 to 20 (0.2 / 255 and 10 in x).

    Uniform steps in t are then uniform in ln s, so the unweighted loss on eps is the bound itself, up to a factor.
    """
    s = torch.linspace(math.log(0.2 / 255 / UNIT), math.log(20), steps, dtype=torch.float64).exp()
    alpha_bar = torch.cat([torch.ones(1, dtype=torch.float64), 1 / (1 + s**2)])
    return 1 - alpha_bar[1:] / alpha_bar[:-1]


BETAS = {"linear": linear_betas, "cosine": cosine_betas, "geometric": geometric_betas}


def posterior_variance(beta: float, alpha_bar: float, alpha_bar_next: float) -> float:
    """beta-tilde_t = beta_t (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t), the variance of q(z_{t-1} | z_t, x)."""
    return beta * (1 - alpha_bar_next) / (1 - alpha_bar)


def forward_variance(beta: float, alpha_bar: float, alpha_bar_next: float) -> float:
    """beta_t, which is exact when the data themselves are N(0, I); 0 in the last step, as in Ho et al."""
    return beta if alpha_bar_next < 1 else 0.0


def constant_weight_variance(beta: float, alpha_bar: float, alpha_bar_next: float) -> float:
    """beta_t^2 / ((1 - beta_t) (1 - alpha_bar_t)), which makes all weights of the bound equal; samples collapse."""
    return beta**2 / ((1 - beta) * (1 - alpha_bar)) if alpha_bar_next < 1 else 0.0


VARIANCES = {"posterior": posterior_variance, "forward": forward_variance, "constant-weight": constant_weight_variance}


def relative_noise(alpha_bar: float) -> float:
    """s = sqrt((1 - alpha_bar) / alpha_bar)."""
    return math.sqrt((1 - alpha_bar) / alpha_bar)


def interpolated(x: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Interpolate linearly at x between increasing knots; constant beyond both ends."""
    above = torch.searchsorted(knots, x).clamp(1, len(knots) - 1)
    share = ((x - knots[above - 1]) / (knots[above] - knots[above - 1])).clamp(0, 1)
    return torch.lerp(values[above - 1], values[above], share)


def respaced(alpha_bars: list[float], steps: int | None) -> list[float]:
    """Pick `steps` values of alpha_bar, evenly spaced with both ends; for 1 the noisiest, for None all."""
    if steps is None:
        return alpha_bars
    if not 1 <= steps <= len(alpha_bars):
        raise ValueError(f"steps must lie between 1 and the {len(alpha_bars)} of the chain, got {steps}.")
    kept = torch.linspace(len(alpha_bars) - 1, 0, steps, dtype=torch.float64).tolist()
    return [alpha_bars[round(i)] for i in reversed(kept)]


def ancestral_chain(
    denoise: Callable[[Tensor, float], Tensor],
    z: Tensor,
    alpha_bars: list[float],
    noise: Callable[[Tensor], Tensor],
    variance: Callable[[float, float, float], float],
    centre: float | Tensor = 0.5,
    progress: bool = False,
) -> Tensor:
    """Run the reverse chain from z_T = z to x, with a progress bar on a terminal if requested.

    With beta_t = 1 - alpha_bar_t / alpha_bar_{t-1} and alpha_bar_0 = 1,
        mu_t = (z_t - beta_t / sqrt(1 - alpha_bar_t) eps_hat(z_t)) / sqrt(1 - beta_t),
        z_{t-1} = mu_t + sqrt(variance(beta_t, alpha_bar_t, alpha_bar_{t-1})) n.
    """
    pairs = list(zip(reversed(alpha_bars), [*reversed(alpha_bars[:-1]), 1.0]))
    for alpha_bar, alpha_bar_next in tqdm(pairs, "sample", leave=False, disable=None if progress else True):
        beta = 1 - alpha_bar / alpha_bar_next
        s = relative_noise(alpha_bar)
        u_t = z / math.sqrt(alpha_bar)
        u_hat = (denoise(centre + UNIT * u_t, UNIT * s) - centre) / UNIT
        eps_hat = (u_t - u_hat) / s
        mu = (z - beta / math.sqrt(1 - alpha_bar) * eps_hat) / math.sqrt(1 - beta)
        z = mu + math.sqrt(variance(beta, alpha_bar, alpha_bar_next)) * noise(z)
    return centre + UNIT * z


def chain_elbo(
    denoise: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    sigmas: list[float],
    centre: float | Tensor,
    prior_variance: float,
    decoder: Callable[[Tensor, Tensor], Tensor],
    *,
    seed: int = 0,
    terms: int = 64,
    progress: bool = False,
) -> Tensor:
    """The evidence lower bound of the chain x_T -> … -> x_1 -> x, in nats, (B,).

    In the coordinates x_t = x + sigma_t n, with p(x_T) = N(centre, prior_variance I) and steps that have the posterior
    variance,
        elbo = E ln p(x | x_hat(x_1)) - KL(q(x_T | x) || p(x_T))
               - sum_{t=2}^{T} 1/2 (1 / sigma_{t-1}^2 - 1 / sigma_t^2) E |x - x_hat(x_t)|^2.
    `terms` steps, one drawn from each of as many strata of equal length, estimate the sum (all of them if
    terms >= T - 1).
    """
    if terms < 1:
        raise ValueError(f"terms is {terms}: give a whole number, at least 1; without the sum there is no bound.")
    batch, dimension = len(x), x[0].numel()
    noise = Noise(seed, torch.arange(batch))

    def estimate(sigma: Tensor) -> Tensor:
        return denoise(x + sigma * noise(x), sigma)

    reconstruction = decoder(x, estimate(as_level(sigmas[0], x)))
    ratio = sigmas[-1] ** 2 / prior_variance
    distance = (x - centre).flatten(1).square().sum(1) / prior_variance
    kl = 0.5 * (distance + dimension * (ratio - 1 - math.log(ratio)))

    level = torch.tensor(sigmas, dtype=torch.float64, device=x.device)
    weight = 0.5 * (level[:-1] ** -2 - level[1:] ** -2)
    steps = len(weight)
    terms = min(terms, steps)
    total = torch.zeros_like(kl)
    for k in tqdm(range(terms), "elbo", leave=False, disable=None if progress else True):
        low, high = k * steps // terms, (k + 1) * steps // terms
        t = low + (noise.uniform(x[:, :1, :1, :1]).flatten() * (high - low)).long().clamp(max=high - low - 1)
        sigma = level[t + 1].to(x.dtype).reshape(-1, 1, 1, 1)
        total = total + (high - low) * weight[t].to(x.dtype) * (x - estimate(sigma)).flatten(1).square().sum(1)
    return reconstruction - kl - total


def gaussian_decoder(v: float | Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """(x, x_hat) -> ln N(x; x_hat, v I) in nats, (B,)."""

    def log_likelihood(x: Tensor, x_hat: Tensor) -> Tensor:
        variance = torch.as_tensor(v, dtype=x.dtype, device=x.device)
        return -0.5 * ((x - x_hat) ** 2 / variance + (2 * math.pi * variance).log()).flatten(1).sum(1)

    return log_likelihood


def grey_level_decoder(v: float | Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """(x, x_hat) -> ln P(255 x | x_hat) + D ln 256 in nats, (B,), for 8-bit images x: the discretised decoder.

    P is the mass of N(x_hat, v I) in the cell of one grey level around x; the cells of black and white reach to
    infinity. Adding D ln 256 makes it the log-density of dequantised images on [0, 1]^D, constant in each cell.
    """

    def log_likelihood(x: Tensor, x_hat: Tensor) -> Tensor:
        sd = torch.as_tensor(v, dtype=torch.float64, device=x.device).sqrt()
        r, half = (x - x_hat).double(), 0.5 / 255
        upper = torch.where(x > 1 - half, math.inf, (r + half) / sd)
        lower = torch.where(x < half, -math.inf, (r - half) / sd)
        # difference of two tail probabilities near 0, not of two near 1, which would cancel
        low, high = torch.where(lower > 0, -upper, lower), torch.where(lower > 0, -lower, upper)
        mass = (torch.erfc(-high / math.sqrt(2)) - torch.erfc(-low / math.sqrt(2))) / 2
        return (mass.clamp_min(1e-300).log() + math.log(256)).flatten(1).sum(1).to(x.dtype)

    return log_likelihood
