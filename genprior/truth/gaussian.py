"""Samplers against exact posteriors of Gaussian priors.

With m, S the exact posterior, draws x are compared with it along directions v by e = (v^T x - v^T m) / sqrt(v^T S v).
The directions are orthonormal bases of what A sees (its rows) and of what it does not (its null space), d each:

    error = |E e| / sqrt(d)        the bias, in exact standard deviations, root mean square over directions
    ratio = tr Cov e / d           variance over exact variance, mean over directions

With e = L^-1 (x - m), S = L L^T, in all D dimensions at once, the distance between covariances, invariant under linear
maps, is

    covariance error = |Cov e - I| / sqrt(D),   |.| the Frobenius norm.

All three are estimated from draws without bias: |E e|^2 by the mean of <e, e'> over pairs of independent draws, the
ratio by that of |e - e'|^2 / (2 d), and |Cov e - I|^2 by that of <C - I, C' - I> over pairs of sample covariances of
different groups of draws. This removes the contribution of chance to distances, so squares may come out negative.
`pairs` gives the standard errors, which assume only that the draws are independent.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import torch
from einops import rearrange
from torch import Tensor

from genprior.ambient import settled
from genprior.checks import Count, Shape
from genprior.noise import Noise
from genprior.operators import (
    Blur,
    Colorize,
    Denoise,
    Inpaint,
    LinearOperator,
    Matrix,
    Measurement,
    SuperResolution,
    gaussian_kernel,
    motion_kernel,
    random_mask,
)
from genprior.posteriors.exact import posterior_of
from genprior.priors.base import Prior
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.samplers.base import Denoiser, Sampler
from genprior.samplers.chains.langevin import HMC
from genprior.samplers.guidance.base import Guidance
from genprior.samplers.guidance.mmps import moment_matching
from genprior.samplers.integrate import geometric
from genprior.samplers.particles.tds import TDSMoments
from genprior.table import Cell, Estimate, Table

SHAPE = (1, 8, 8)
NOISES = (0.01, 0.1, 0.5)
KINDS = ("inpaint", "super-resolution", "circular blur")  # operators of the quick suite
GROUPS = 20  # groups of independent draws; each gives one sample covariance
CLOUDS = 10  # clouds of particles, for samplers whose draws of one image are not independent


def independent(shape: Shape = SHAPE) -> Gaussian:
    """Independent pixels of mean 0.5 and variances 0.02 to 0.1."""
    variances = 0.02 + 0.08 * torch.linspace(0, 1, math.prod(shape), dtype=torch.float64)
    return Gaussian(torch.full(shape, 0.5, dtype=torch.float64), variances.reshape(shape))


def correlated(shape: Shape = SHAPE) -> Gaussian:
    """Correlations exp(-distance / 3) between pixels and 0.8 between channels, sd 0.25: smooth, like a photograph."""
    channels, height, width = shape
    i, j = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    points = torch.stack([i.flatten(), j.flatten()], 1).double()
    between_pixels = torch.exp(-torch.cdist(points, points) / 3)
    between_channels = 0.2 * torch.eye(channels, dtype=torch.float64) + 0.8
    covariance = 0.25**2 * torch.kron(between_channels, between_pixels)
    return Gaussian(torch.full(shape, 0.5, dtype=torch.float64), covariance)


PRIORS = {"independent": independent, "correlated": correlated}


def operators(shape: Shape = SHAPE) -> dict[str, LinearOperator]:
    """One operator of each kind, on images of that shape, except "colorize", which needs three channels."""
    D = math.prod(shape)
    matrix = torch.randn(20, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / math.sqrt(D)
    return {
        "inpaint": Inpaint(random_mask(shape, 0.5, 0), shape),
        "super-resolution": SuperResolution(2, shape),
        "circular blur": Blur(gaussian_kernel(1.0), shape, "circular"),
        "valid blur": Blur(motion_kernel(3, 30.0), shape, "valid"),
        "colorize": Colorize((3, *shape[1:])),
        "denoise": Denoise(shape),
        "matrix": Matrix(matrix, shape),
    }


def blind(shape: Shape = SHAPE) -> LinearOperator:
    """The operator that sees nothing, whose posterior is the prior."""
    return Inpaint(torch.ones(shape[1:], dtype=torch.bool), shape)


@dataclass(frozen=True)
class ConvergedMMPS(Guidance):
    """`MMPS` without its numerical errors: Heun steps instead of ancestral ones, from 4 sigma_max to sigma_min / 5.

    This isolates its claim that the guidance is exact for Gaussian priors. The ancestral steps of `MMPS` have an error
    of first order in the step, 2 % of the variance at 400 steps; if y is less noisy than 10 sigma_min, ending at
    sigma_min costs as much again. For the priors and noises here, Heun's variances are at most 0.2 % too large (a test
    pins that).

    Attributes:
        steps: noise levels, each with two evaluations of the guided denoiser.
        iterations: of conjugate gradients; 64 solve all the systems here to 1e-6 of a standard deviation, 32 those with
            noise of 0.1 or more.
    """

    steps: int = 150
    integrator: str | None = "heun"
    iterations: Count = 64

    def levels(self, prior: Prior, side: int) -> list[float]:
        return geometric(4 * prior.sigma_max, prior.sigma_min / 5, self.steps)

    def guided(self, prior: Prior, measurement: Measurement) -> Denoiser:
        return moment_matching(prior.denoise, measurement, self.iterations)


# Methods that are exact in the limit, with enough work for their remaining error to be smaller than chance.
CONVERGED: dict[str, Sampler] = {
    "mmps-converged": ConvergedMMPS(),
    "hmc-long": HMC(steps=40, burn_in=40, leapfrog=20),
    # For Gaussian priors its weights hardly vary, so few particles do; the ancestral steps' error needs many steps.
    "tds-long": TDSMoments(steps=600, particles=60),
}


@dataclass(frozen=True)
class Part:
    """Figures over the directions that A sees, or over those that it does not.

    Attributes:
        square: of the error; may be negative by chance.
        ratio: variance over exact variance.
    """

    square: Estimate
    ratio: Estimate

    @property
    def error(self) -> Estimate:
        return root(self.square)


@dataclass(frozen=True)
class Judgement:
    """How far draws are from an exact posterior; see the module.

    Attributes:
        seen, unseen: the part that A sees and the part that it does not; None for an empty part.
        square: of the covariance error; may be negative by chance.
    """

    seen: Part | None
    unseen: Part | None
    square: Estimate

    @property
    def covariance_error(self) -> Estimate:
        return root(self.square)

    @property
    def deviation(self) -> float:
        """The largest deviation of a figure from its exact value, in its standard errors."""
        far = [self.square]
        for part in filter(None, (self.seen, self.unseen)):
            far += [part.square, (part.ratio.value - 1, part.ratio.error)]
        return max(abs(value) / error if error and error > 0 else math.inf for value, error in far)


def judge(
    sampler: Sampler, prior: Gaussian, operator: LinearOperator, n: int = 1000, noise: float = 0.1, seed: int = 0
) -> Judgement:
    """Compare n draws from the posterior of one measurement with the exact posterior.

    Arguments:
        sampler, prior, operator: a compatible set, see `Sampler.lacks`.
        n: number of draws.
        noise: of the measurement.
        seed: of the draws; the measurement is always the same.
    """
    one = measure(prior, operator, noise)
    return compare(draw(sampler, prior, one, n, seed), posterior_of(prior, one), operator)


def compare(x: Tensor, posterior: Gaussian, operator: LinearOperator) -> Judgement:
    """Compare draws (U, b, D), in U independent groups, with the posterior of a measurement by that operator."""
    mean, S = moments(posterior)

    def figures(V: Tensor) -> Part | None:
        if not len(V):
            return None
        e = (x - mean) @ V.T / ((V @ S) * V).sum(1).sqrt()
        return Part(bias_square(e), variance_ratio(e))

    l, V = torch.linalg.eigh(S)
    seen, unseen = directions(operator)
    return Judgement(figures(seen), figures(unseen), covariance_square((x - mean) @ V / l.sqrt()))


def measure(prior: Gaussian, operator: LinearOperator, noise: float) -> Measurement:
    """The measurement of one draw from the prior, (1, ...)."""
    y = operator(prior.sample(1, seed=7))
    return Measurement(y + noise * Noise(8, [0])(y), operator, noise)


def draw(sampler: Sampler, prior: Prior, one: Measurement, n: int, seed: int = 0) -> Tensor:
    """n draws for one measurement, (U, n / U, D), in U independent groups: single draws, or clouds."""
    size = n // CLOUDS if sampler.clouds else 1
    n = n // size * size
    rows = torch.zeros(n, dtype=torch.long)
    k = torch.arange(n)
    noise = Noise(seed, k // size, k % size) if sampler.clouds else Noise(seed, rows, k)
    with torch.no_grad():  # samplers that need gradients enable them
        x = sampler(prior, one.select(rows), noise)
    return rearrange(x, "(u b) c h w -> u b (c h w)", b=size)


def moments(gaussian: Gaussian) -> tuple[Tensor, Tensor]:
    """Mean (D,) and covariance (D, D)."""
    size = gaussian.mean.numel()
    eye = torch.eye(size, dtype=torch.float64).reshape(size, *gaussian.mean.shape)
    return gaussian.mean.flatten(), gaussian.covariance.filter(eye, gaussian.covariance.eigenvalues).flatten(1)


def directions(operator: LinearOperator) -> tuple[Tensor, Tensor]:
    """Orthonormal bases of what A sees and what it does not, (r, D) and (D - r, D)."""
    size = math.prod(operator.image_shape)
    eye = torch.eye(size, dtype=torch.float64).reshape(size, *operator.image_shape)
    _, s, Vt = torch.linalg.svd(operator(eye).flatten(1).T, full_matrices=True)
    rank = int((s > 1e-9 * s.max()).sum())
    return Vt[:rank], Vt[rank:]


def pairs(h: Tensor) -> Estimate:
    """The mean of h(i, j) over pairs i < j of N independent draws, and its standard error, for a symmetric kernel h.

    With z_1 = Var E[h | i] and z_2 = Var h, each estimated without bias by products of h over four, three and two
    draws, the variance of the mean is 2 (2 (N - 2) z_1 + z_2) / (N (N - 1)).

    Arguments:
        h: (N, N) symmetric, N at least 4; the diagonal is ignored.

    References: W. Hoeffding, A class of statistics with asymptotically normal distribution, 1948.
    """
    h = h - h.diagonal().diag()
    N = len(h)
    number, total, squares, rows = N * (N - 1), h.sum(), h.square().sum(), h.sum(1).square().sum()
    four = (total**2 - 4 * rows + 2 * squares) / (number * (N - 2) * (N - 3))
    three = (rows - squares) / (number * (N - 2))
    variance = 2 * (2 * (N - 2) * (three - four).clamp_min(0) + squares / number - four) / number
    return Estimate(float(total / number), float(variance.clamp_min(0).sqrt()))


def bias_square(e: Tensor) -> Estimate:
    """|E e|^2 / d of draws (U, b, d) in U independent groups."""
    m = e.mean(1)
    return pairs(m @ m.T / e.shape[2])


def variance_ratio(e: Tensor) -> Estimate:
    """tr Cov e / d of draws (U, b, d) in U independent groups."""
    m, half = e.mean(1), e.square().sum(2).mean(1) / 2
    return pairs((half[:, None] + half - m @ m.T) / e.shape[2])


def covariance_square(e: Tensor) -> Estimate:
    """|Cov e - I|^2 / d of draws (U, b, d) in U independent groups, U at least 8."""
    eye = torch.eye(e.shape[2], dtype=e.dtype)
    parts = e.tensor_split(min(GROUPS, len(e) // 2))
    far = torch.stack([_covariance(part) - eye for part in parts]).flatten(1)
    return pairs(far @ far.T / e.shape[2])


def _covariance(e: Tensor) -> Tensor:
    """The covariance of one draw, (d, d), without bias: E e e^T less the mean of e e'^T over pairs of groups."""
    U, b, _ = e.shape
    m, total = e.mean(1), e.mean(1).sum(0)
    return torch.einsum("ubi,ubj->ij", e, e) / (U * b) - (torch.outer(total, total) - m.T @ m) / (U * (U - 1))


def root(square: Estimate) -> Estimate:
    """The square root of a figure, 0 if it is negative; near 0, its standard error is half the root of the error."""
    value, error = square
    own = error / (2 * math.sqrt(max(value, error))) if error and error > 0 else 0.0
    return Estimate(math.sqrt(max(value, 0)), own)


@settled
def gaussian_suite(samplers: Mapping[str, Sampler], *, quick: bool = False, seed: int = 0) -> Table:
    """Every sampler on both priors, all operators it supports and all noise levels, a row each; see the module.

    "deviation" is the largest deviation of a figure from its ideal value, in standard errors. The "blind" columns are
    those of the same sampler with an operator that sees nothing, whose posterior is the prior: they show the error of
    its integrator without any guidance.

    Arguments:
        samplers: name -> sampler.
        quick: 100 draws for the correlated prior, three operators and one noise level, instead of 500 for all.
        seed: of the draws.
    """
    n, noises, kinds, priors = 500, NOISES, list(operators()), PRIORS
    if quick:
        n, noises, kinds, priors = 100, (0.1,), KINDS, {"correlated": correlated}
    rows = []
    for (name, sampler), (prior_name, make) in product(samplers.items(), priors.items()):
        blinds = {}
        for kind in kinds:
            operator = operators()[kind]
            shape = operator.image_shape
            prior = make(shape)
            if sampler.lacks(prior, operator):
                continue
            if shape not in blinds:
                blinds[shape] = judge(sampler, prior, blind(shape), n, seed=seed)
            for noise in noises:
                judged = judge(sampler, prior, operator, n, noise, seed)
                row = {"sampler": name, "prior": prior_name, "operator": kind, "noise": noise}
                rows.append(row | _columns(judged, blinds[shape]))
    return Table(rows)


def _columns(judged: Judgement, control: Judgement) -> dict[str, Cell]:
    parts = {"seen": judged.seen, "unseen": judged.unseen}
    return {
        **{f"error, {name}": part.error for name, part in parts.items() if part},
        **{f"ratio, {name}": part.ratio for name, part in parts.items() if part},
        "covariance error": judged.covariance_error,
        "deviation": judged.deviation,
        "blind ratio": control.unseen and control.unseen.ratio,
        "blind covariance error": control.covariance_error,
    }
