"""Samplers against the exact posterior of Gaussian priors, 8 x 8, for every operator.

With m, S the exact posterior and an orthonormal basis of what A sees (its rows) and of what it does not see (its null
space), each direction v has an exact mean v^T m and variance v^T S v. Two figures each for the seen and the unseen part:
    error = root mean square over directions of (sample mean - exact mean) / exact sd
    ratio = mean over directions of sample variance / exact variance
Of n independent exact draws, error^2 <= chi^2_1 / n in the worst case of fully dependent directions, and the ratio's sd is
at most sqrt(2 / n): 3.3 standard deviations, which chance exceeds once in a thousand, bound both.
"""

import math

import pytest
import torch

from genprior.noise import Noise
from genprior.operators import (
    Blur,
    Colorize,
    Denoise,
    Inpaint,
    Matrix,
    Measurement,
    SuperResolution,
    gaussian_kernel,
    motion_kernel,
    random_mask,
)
from genprior.priors.exact import Gaussian
from genprior.samplers import SAMPLERS
from genprior.samplers.diffpir import DiffPIR
from genprior.samplers.dps import DPS
from genprior.samplers.exact import Exact
from genprior.samplers.mmps import MMPS

N = 1000
NOISE = 0.1
SHAPE = (1, 8, 8)
torch.set_default_dtype(torch.float32)


def diagonal(shape):
    variances = 0.02 + 0.08 * torch.linspace(0, 1, math.prod(shape), dtype=torch.float64)
    return Gaussian(torch.full(shape, 0.5, dtype=torch.float64), variances.reshape(shape))


def correlated(shape):
    """exp(-distance / 3) between pixels, 0.8 between channels, sd 0.25: smooth, like a photograph."""
    channels, height, width = shape
    i, j = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    points = torch.stack([i.flatten(), j.flatten()], 1).double()
    between_pixels = torch.exp(-torch.cdist(points, points) / 3)
    between_channels = 0.2 * torch.eye(channels, dtype=torch.float64) + 0.8
    covariance = 0.25**2 * torch.kron(between_channels, between_pixels)
    return Gaussian(torch.full(shape, 0.5, dtype=torch.float64), covariance)


PRIORS = {"diagonal": diagonal, "correlated": correlated}
OPERATORS = {
    "inpaint": Inpaint(random_mask(SHAPE, 0.5, 0), SHAPE),
    "super-resolution": SuperResolution(2, SHAPE),
    "circular blur": Blur(gaussian_kernel(1.0), SHAPE, "circular"),
    "valid blur": Blur(motion_kernel(3, 30.0), SHAPE, "valid"),
    "colorize": Colorize((3, 8, 8)),
    "denoise": Denoise(SHAPE),
    "matrix": Matrix(torch.randn(20, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 8, SHAPE),
}


def judge(sampler, prior, operator, n=N):
    """((error, ratio) of the seen part, (error, ratio) of the unseen part or None)."""
    x = prior.sample(1, seed=7)
    y = operator(x)
    y = y + NOISE * Noise(8, [0])(y)
    one = Measurement(y, operator, NOISE)
    exact = prior.posterior(one)
    rows = torch.zeros(n, dtype=torch.long)
    draws = sampler(prior, one.select(rows), Noise(0, rows, torch.arange(n))).flatten(1)

    size = x[0].numel()
    eye = torch.eye(size, dtype=torch.float64).reshape(size, *x.shape[1:])
    A = operator(eye).flatten(1).T
    _, s, Vt = torch.linalg.svd(A, full_matrices=True)
    rank = int((s > 1e-9 * s.max()).sum())
    mean = exact.mean.flatten()
    S = exact.covariance.filter(eye, exact.covariance.eigenvalues).flatten(1)

    def figures(V):
        if not len(V):
            return None
        variance = ((V @ S) * V).sum(1)
        projected = (draws - mean) @ V.T
        error = (projected.mean(0) / variance.sqrt()).square().mean().sqrt()
        return float(error), float((projected.var(0) / variance).mean())

    return figures(Vt[:rank]), figures(Vt[rank:])


def assert_exact(figures, n=N):
    for error, ratio in filter(None, figures):
        assert error < 3.3 / math.sqrt(n)
        assert abs(ratio - 1) < 3.3 * math.sqrt(2 / n)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("sampler", [Exact(), MMPS(steps=150, iterations=12)], ids=["exact", "mmps"])
def test_sampler_matches_gaussian_posterior(sampler, prior, operator):
    operator = OPERATORS[operator]
    assert_exact(judge(sampler, PRIORS[prior](operator.image_shape), operator))
