"""The mixture of 25 Gaussians: a prior with well-separated modes and a known posterior.

    p(x) = sum_ij w_ij N(x; m_ij, I),  m_ij = (8 i, 8 j, 8 i, 8 j, …),  i, j in {-2, …, 2},  w proportional to chi^2_1
    y = A x + noise n,  A = U diag(s) V^T,  s uniform in (0, 1),  noise uniform in (0, max s),  x drawn from p

The sliced Wasserstein distance compares draws with exact ones. Two sets of exact draws differ too, by the floor.

References: G. Cardoso, Y. Janati el Idrissi, S. Le Corff, E. Moulines, Monte Carlo guided diffusion for Bayesian linear
inverse problems, 2024.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from itertools import pairwise, product

import torch
from torch import Tensor

from genprior.ambient import settled
from genprior.divergences import sliced_wasserstein
from genprior.noise import Noise
from genprior.operators.matrix import Matrix
from genprior.operators.measurement import Measurement
from genprior.posteriors.exact import posterior_of
from genprior.priors.gaussian.mixture import GaussianMixture
from genprior.samplers.annealing.ddrm import begin_at_y, spectral_step
from genprior.samplers.base import Sampler
from genprior.samplers.integrate import ancestral, geometric
from genprior.samplers.particles.mcgdiff import MCGDiff
from genprior.table import Estimate, Table

CELLS: tuple[tuple[int, int], ...] = tuple(product((8, 80, 800), (1, 2, 4)))  # d, values of y
SEEDS = 20
DRAWS = 2000
# Table 1 of Cardoso et al. (2024), 20 steps: per cell, means over 20 seeds and half-widths of their 95 % intervals.
PUBLISHED = {
    "MCG-diff": (
        (1.43, 0.49, 0.38, 1.39, 0.67, 0.28, 2.40, 1.31, 0.47),
        (0.55, 0.24, 0.25, 0.45, 0.24, 0.14, 1.00, 0.60, 0.19),
    ),
    "DDRM": (
        (5.88, 5.20, 2.51, 5.64, 7.07, 7.81, 7.44, 8.95, 8.39),
        (1.16, 1.00, 1.29, 1.10, 1.35, 1.48, 1.15, 1.12, 1.48),
    ),
    "DPS": (
        (4.86, 5.79, 3.48, 4.98, 5.10, 4.28, 6.49, 6.88, 5.51),
        (1.01, 1.96, 1.52, 1.14, 1.23, 1.26, 1.16, 1.01, 1.18),
    ),
}

# (prior, measurement of one image, noise of the draws) -> draws.
Method = Callable[[GaussianMixture, Measurement, Noise], Tensor]


@settled
def mixture_suite(
    samplers: dict[str, Sampler],
    *,
    steps: Sequence[int] = (20, 100),
    cells: Sequence[tuple[int, int]] = CELLS,
    seeds: int = SEEDS,
    draws: int = DRAWS,
) -> Table:
    """Sliced Wasserstein distances to the exact posterior: a row per method, a column per cell (d, values of y).

    The first rows are not samplers: "published" is the paper's own table; "exact" is another set of exact draws, the
    floor; "unconditional" compares the chain of `ancestral` without y with the prior, the error of its steps alone; and
    the rows "as published" are our samplers on the paper's schedule. A sampler's `unit`, if any, is 1, as in the paper.

    Arguments:
        samplers: name -> sampler.
        steps: numbers of steps to run each sampler with, if it has steps.
        cells: pairs of d and the number of values of y.
        seeds: number of problems per cell, over which mean and standard error are taken.
        draws: number of draws of each method.
    """
    methods: dict[tuple[str, int | None], Method] = {("exact", None): _exact}
    methods |= {("unconditional", n): _unconditional(n) for n in steps}
    methods |= {("DDRM as published", 20): _published_ddrm, ("MCG-diff as published", 20): _published_mcgdiff}
    for name, sampler in samplers.items():
        for n in steps if sampler.steps else (None,):
            methods[name, n] = _sampled(_with(sampler, n))
    distances: dict[tuple, list[float]] = {}
    for d, observed in cells:
        for seed in range(seeds):
            prior, measurement = problem(d, observed, seed)
            for key, method in methods.items():
                target = prior if key[0] == "unconditional" else posterior_of(prior, measurement)
                noise = Noise(seed, torch.zeros(draws, dtype=torch.long), torch.arange(draws))
                with torch.no_grad():
                    distance = sliced_wasserstein(
                        method(prior, measurement, noise), target.sample(draws, seed=seed + 1)
                    )
                distances.setdefault((key, d, observed), []).append(distance)
    rows = [
        {"method": f"{name}, published", "steps": 20, **_published(means, halves, cells)}
        for name, (means, halves) in PUBLISHED.items()
    ]
    for name, n in methods:
        figures = {f"{d}, {m}": Estimate.mean(distances[(name, n), d, m]) for d, m in cells}
        rows.append({"method": name, "steps": n, **figures})
    return Table(rows)


def problem(d: int, observed: int, seed: int) -> tuple[GaussianMixture, Measurement]:
    """A prior on images of shape (1, 1, d) and one measurement, (1, observed, 1, 1), in float64."""
    generator = torch.Generator().manual_seed(10_000 * d + 1_000 * observed + seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    places = torch.arange(-2.0, 3.0, dtype=torch.float64)
    means = 8 * torch.cartesian_prod(places, places).repeat(1, d // 2)
    weights = normal(25).square()
    prior = GaussianMixture(
        weights / weights.sum(), means.reshape(25, 1, 1, d), torch.ones(1, 1, d, dtype=torch.float64)
    )
    U, _, Vt = torch.linalg.svd(normal(observed, d), full_matrices=False)
    s = torch.rand(observed, generator=generator, dtype=torch.float64).sort(descending=True).values
    noise = float(s.max() * torch.rand((), generator=generator, dtype=torch.float64))
    A = Matrix(U @ torch.diag(s) @ Vt, (1, 1, d))
    y = A(prior.sample(1, seed=seed)) + noise * normal(1, observed, 1, 1)
    return prior, Measurement(y, A, noise)


def published_schedule(steps: int, more: Sequence[float] = ()) -> list[float]:
    """Noise levels of the paper: alpha_bar of betas from 0.02 to 1e-4, in `steps` equal steps of its root, then 0.

    The levels nearest to `more`, among the same 1000, are included too.
    """
    alpha_bar = torch.cat([torch.ones(1), 1 - torch.linspace(0.02, 1e-4, 999)]).double().cumprod(0)
    sigmas = ((1 - alpha_bar) / alpha_bar).sqrt()
    wanted = torch.linspace(float(alpha_bar[-1].sqrt()), 1, steps + 1, dtype=torch.float64)
    nearest = (alpha_bar.sqrt()[None] - wanted[:, None]).abs().argmin(1).tolist()
    nearest += [int((sigmas - sigma).abs().argmin()) for sigma in more]
    return sorted(sigmas[sorted(set(nearest))].tolist(), reverse=True)


def _exact(prior: GaussianMixture, measurement: Measurement, noise: Noise) -> Tensor:
    return posterior_of(prior, measurement).draw(noise)


def _unconditional(steps: int) -> Method:
    def draw(prior: GaussianMixture, measurement: Measurement, noise: Noise) -> Tensor:
        sigmas = geometric(prior.sigma_max, prior.sigma_min, steps)
        centre = prior.centre.expand(len(noise.image), *prior.image_shape)
        return ancestral(prior.denoise, centre + sigmas[0] * noise(centre), sigmas, noise)

    return draw


def _sampled(sampler: Sampler) -> Method:
    def draw(prior: GaussianMixture, measurement: Measurement, noise: Noise) -> Tensor:
        return sampler(prior, measurement.select(torch.zeros_like(noise.image)), noise)

    return draw


def _published_ddrm(prior: GaussianMixture, measurement: Measurement, noise: Noise) -> Tensor:
    """eta 0.85, eta_b = eta_c = 1, 20 steps from N(0, I)."""
    sigmas = published_schedule(20)
    svd = measurement.linear.svd()
    x = math.hypot(1, sigmas[0]) * noise(prior.centre.expand(len(noise.image), *prior.image_shape))
    x = begin_at_y(svd, measurement, x, sigmas[0], noise)
    step = spectral_step(svd, measurement, noise, eta=0.85, eta_b=1.0, eta_c=1.0)
    for sigma, sigma_next in pairwise(sigmas):
        x = step(x, prior.denoise(x, sigma), sigma, sigma_next)
    return x


def _published_mcgdiff(prior: GaussianMixture, measurement: Measurement, noise: Noise) -> Tensor:
    """kappa 0.01, eta 0.6, 20 steps plus one at each coordinate's own level, from N(0, I), two clouds."""
    s = measurement.linear.svd().singular_values
    sigmas = published_schedule(20, (measurement.sd / s[s > 0]).tolist())
    sampler = MCGDiff(kappa=1e-2, eta=0.6, unit=1.0)
    origin = torch.zeros_like(prior.centre)[None]
    clouds = [noise.select(rows) for rows in torch.arange(len(noise.image)).chunk(2)]
    return torch.cat(
        [sampler.filter(prior.denoise, measurement, origin, math.hypot(1, sigmas[0]), sigmas, c)[0] for c in clouds]
    )


def _with(sampler: Sampler, steps: int | None) -> Sampler:
    """The sampler with that number of steps and with unit 1, where it has these fields."""
    changes = {"steps": steps, "unit": 1.0}
    own = {field.name for field in fields(sampler)}
    return replace(sampler, **{k: v for k, v in changes.items() if k in own and v is not None})


def _published(
    means: Sequence[float], halves: Sequence[float], cells: Sequence[tuple[int, int]]
) -> dict[str, Estimate]:
    figures = {cell: Estimate(mean, half / 1.96) for cell, mean, half in zip(CELLS, means, halves)}
    return {f"{d}, {m}": figures[d, m] for d, m in cells if (d, m) in figures}
