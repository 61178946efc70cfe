"""Samplers against exact posteriors.

With m, S the exact posterior of a Gaussian prior and an orthonormal basis of what A sees (its rows) and of what it does
not (its null space), each direction v has an exact mean v^T m and variance v^T S v. Two figures for each of the two
parts:
    error = root mean square over directions of (sample mean - exact mean) / exact sd
    ratio = mean over directions of sample variance / exact variance
Of n independent exact draws, error^2 is chi^2_1 / n in the worst case of fully dependent directions, and the ratio's sd
is at most sqrt(2 / n).
"""

import math

import torch

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
from genprior.operators.base import Shape
from genprior.priors.exact import Gaussian
from genprior.samplers.base import Sampler

SHAPE = (1, 8, 8)
Figures = tuple[float, float]


def independent(shape: Shape = SHAPE) -> Gaussian:
    """Pixels of mean 0.5 and variances 0.02 to 0.1."""
    variances = 0.02 + 0.08 * torch.linspace(0, 1, math.prod(shape), dtype=torch.float64)
    return Gaussian(torch.full(shape, 0.5, dtype=torch.float64), variances.reshape(shape))


def correlated(shape: Shape = SHAPE) -> Gaussian:
    """exp(-distance / 3) between pixels, 0.8 between channels, sd 0.25: smooth, like a photograph."""
    channels, height, width = shape
    i, j = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    points = torch.stack([i.flatten(), j.flatten()], 1).double()
    between_pixels = torch.exp(-torch.cdist(points, points) / 3)
    between_channels = 0.2 * torch.eye(channels, dtype=torch.float64) + 0.8
    covariance = 0.25**2 * torch.kron(between_channels, between_pixels)
    return Gaussian(torch.full(shape, 0.5, dtype=torch.float64), covariance)


PRIORS = {"independent": independent, "correlated": correlated}


def operators() -> dict[str, LinearOperator]:
    """One operator of each kind, on images of 8 x 8."""
    matrix = torch.randn(20, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 8
    return {
        "inpaint": Inpaint(random_mask(SHAPE, 0.5, 0), SHAPE),
        "super-resolution": SuperResolution(2, SHAPE),
        "circular blur": Blur(gaussian_kernel(1.0), SHAPE, "circular"),
        "valid blur": Blur(motion_kernel(3, 30.0), SHAPE, "valid"),
        "colorize": Colorize((3, 8, 8)),
        "denoise": Denoise(SHAPE),
        "matrix": Matrix(matrix, SHAPE),
    }


def judge(
    sampler: Sampler, prior: Gaussian, operator: LinearOperator, n: int = 1000, noise: float = 0.1
) -> tuple[Figures | None, Figures | None]:
    """(error, ratio) of the part that A sees and of the part that it does not; None for a part that is empty."""
    x = prior.sample(1, seed=7)
    y = operator(x)
    y = y + noise * Noise(8, [0])(y)
    one = Measurement(y, operator, noise)
    exact = prior.posterior(one)
    rows = torch.zeros(n, dtype=torch.long)
    with torch.no_grad():  # samplers that want gradients ask for them
        draws = sampler(prior, one.select(rows), Noise(0, rows, torch.arange(n))).flatten(1)

    size = x[0].numel()
    eye = torch.eye(size, dtype=torch.float64).reshape(size, *x.shape[1:])
    A = operator(eye).flatten(1).T
    _, s, Vt = torch.linalg.svd(A, full_matrices=True)
    rank = int((s > 1e-9 * s.max()).sum())
    mean = exact.mean.flatten()
    S = exact.covariance.filter(eye, exact.covariance.eigenvalues).flatten(1)

    def figures(V: torch.Tensor) -> Figures | None:
        if not len(V):
            return None
        variance = ((V @ S) * V).sum(1)
        projected = (draws - mean) @ V.T
        error = (projected.mean(0) / variance.sqrt()).square().mean().sqrt()
        return float(error), float((projected.var(0) / variance).mean())

    return figures(Vt[:rank]), figures(Vt[rank:])
