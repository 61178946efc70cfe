"""Clouds of particles, and what they tend to as they grow.

K independent clouds give K means of any figure, whose own mean is Student's t from its expectation, with K - 1 degrees
of freedom: for K = 12, |t| > 5.9 in one of 10,000 cases, which leaves room for the dozen figures of a test. (Weights of
a cloud sum to 1, which biases it by about 1 / P of a standard deviation: a fifth of a standard error for K = 12 and
P = 300.)
"""

import functools
import math
from itertools import pairwise

import torch

from genprior.noise import Noise
from genprior.operators import Matrix, Measurement
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.priors.gaussian.mixture import GaussianMixture
from genprior.samplers.integrate import ancestral_step, geometric
from genprior.samplers.particles.base import begin_free
from genprior.truth.gaussian import moments

K = 12
FAR = 5.9


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_cloud(P, seed=0):
    """The noise of one cloud."""
    return Noise(seed, torch.zeros(P, dtype=torch.long), torch.arange(P))


def of_clouds(sampler, prior, one, P, count=K):
    """P draws from each of `count` clouds for one measurement, (count, P, D), and their diagnostics, (count, P)."""
    rows = torch.arange(count * P)
    with torch.no_grad():  # as `restore` does; samplers that want gradients ask for them
        x, told = sampler.draw(prior, one.select(torch.zeros_like(rows)), Noise(0, rows // P, rows % P))
    return x.reshape(count, P, -1), {name: figures.reshape(count, P) for name, figures in told.items()}


def farthest(figures, expected, error=0.0):
    """The largest |t| of figures (K, P, …) from what is expected of them, itself known up to a standard error."""
    means = figures.mean(1) - expected
    return float((means.mean(0).abs() / (means.var(0) / len(means) + error**2).sqrt()).max())


def farthest_of_gaussian(x, mean, S):
    """The largest |t| of all first and second moments of draws (K, P, D), whitened."""
    l, V = torch.linalg.eigh(S)
    e = (x - mean) @ V / l.sqrt()
    products = e[..., :, None] * e[..., None, :]
    i, j = torch.triu_indices(len(l), len(l))
    return max(farthest(e, 0), farthest(products[..., i, j], torch.eye(len(l), dtype=x.dtype)[i, j]))


def gaussian():
    """A prior on images of 2 x 2 whose standard deviations differ by a factor of 3, and a measurement of two values."""
    Q = torch.linalg.qr(normal(4, 4)).Q
    prior = Gaussian(normal(1, 2, 2, seed=1), Q @ torch.diag(torch.tensor([0.2, 0.5, 1.0, 2.0]).double()) @ Q.T)
    A = Matrix(normal(2, 4, seed=2) / 2, (1, 2, 2))
    return prior, Measurement(A(prior.sample(1, seed=1)) + 0.4 * normal(1, 2, 1, 1, seed=3), A, 0.4)


def mixture():
    """Three modes on images of 1 x 2, and the first value measured: the mode that agrees with it best is rare."""
    means = torch.tensor([[-3.0, -6.0], [3.0, 0.0], [0.0, 6.0]]).double().reshape(3, 1, 1, 2)
    prior = GaussianMixture(torch.tensor([0.6, 0.36, 0.04]).double(), means, torch.ones(1, 1, 2).double())
    A = Matrix(torch.tensor([[1.0, 0.0]]).double(), (1, 1, 2))
    return prior, Measurement(torch.full((1, 1, 1, 1), 0.3).double(), A, 0.7)


def modes(x):
    """For draws (…, 2) of that mixture, in which of its modes each is, (…, 3)."""
    places = torch.bucketize(x[..., 1].contiguous(), torch.tensor([-3.0, 3.0]).double())
    return torch.nn.functional.one_hot(places, 3).double()


@functools.cache
def weighed_chain(steps, level=None, count=100_000):
    """The weights of those modes by the chain alone, its paths weighed by p(y | x): (3,), and their errors.

    What particles tend to at that number of steps. Paths are weighed at their ends, or by p(y | x_t) at a level where
    y is x_t and what noise is left.
    """
    prior, one = mixture()
    sigmas, noise = geometric(prior.sigma_max, prior.sigma_min, steps), one_cloud(count, seed=1)
    x = begin_free(prior, one, sigmas[0], noise)
    for sigma, sigma_next in pairwise(sigmas):
        if sigma == (level or sigmas[-2]):
            at, left = (x, one.noise**2 - level**2) if level else (prior.denoise(x, sigma), one.noise**2)
            w = (-((one.y - one.operator(at)) ** 2) / (2 * left)).flatten().softmax(0)[:, None]
        x = ancestral_step(x, prior.denoise(x, sigma), sigma, sigma_next, noise)
    of_mode = modes(x.flatten(1))
    mean = (w * of_mode).sum(0)
    return mean, (w * (of_mode - mean)).square().sum(0).sqrt()


def chain_law(prior, sigmas):
    """Covariance of x_t at the last level of the chain without y, about the prior's mean."""
    _, S = moments(prior)
    eye = torch.eye(len(S), dtype=S.dtype)
    C = (prior.spread**2 + sigmas[0] ** 2) * eye
    for sigma, sigma_next in pairwise(sigmas[:-1]):
        step = ancestral_matrix(S, sigma, sigma_next)
        C = step @ C @ step.T + sigma_next**2 * (1 - (sigma_next / sigma) ** 2) * eye
    return C


def ancestral_matrix(S, sigma, sigma_next):
    """r I + (1 - r) S (S + sigma^2 I)^-1."""
    eye, r = torch.eye(len(S), dtype=S.dtype), (sigma_next / sigma) ** 2
    return r * eye + (1 - r) * gain(S, sigma)


def gain(S, sigma):
    return S @ torch.linalg.inv(S + sigma**2 * torch.eye(len(S), dtype=S.dtype))


def conditioned(mean, C, H, R, y):
    """N(mean, C) given y = H x + n, n ~ N(0, R)."""
    G = C @ H.T @ torch.linalg.inv(H @ C @ H.T + R)
    return mean + G @ (y - H @ mean), C - G @ H @ C


def mapped(f, mean, C, shape):
    """The law of f(x), f linear about the mean, of x ~ N(mean, C)."""
    eye = torch.eye(len(C), dtype=C.dtype)
    moved = f((mean + 1e-4 * torch.cat([0 * eye[:1], eye])).reshape(-1, *shape)).flatten(1)
    matrix = (moved[1:] - moved[0]).T / 1e-4
    return moved[0], matrix @ C @ matrix.T


def matrix_of(operator):
    D = math.prod(operator.image_shape)
    return operator(torch.eye(D, dtype=torch.float64).reshape(D, *operator.image_shape)).flatten(1).T


def twisted_posterior(prior, one, sigmas, V, guided):
    """What a twisted filter tends to: the chain without y at its last level, given y, and denoised by `guided`.

    Arguments:
        V: (S, sigma) -> the covariance of x given x_t in the twist.
        guided: (x_t, sigma) -> E[x | x_t, y] of the twist.
    """
    mean, S = moments(prior)
    A, sigma = matrix_of(one.operator), sigmas[-2]
    G = gain(S, sigma)
    R = one.noise**2 * torch.eye(len(A), dtype=S.dtype) + A @ V(S, sigma) @ A.T
    # y = A x_hat + n, x_hat = mean + G (x_t - mean)
    at_last = conditioned(mean, chain_law(prior, sigmas), A @ G, R, one.y.flatten() - A @ (mean - G @ mean))
    return mapped(lambda x: guided(x, sigma), *at_last, prior.image_shape)


def white(spread):
    return lambda S, sigma: (sigma * spread) ** 2 / (sigma**2 + spread**2) * torch.eye(len(S), dtype=S.dtype)


def exact_moments(S, sigma):
    return sigma**2 * gain(S, sigma)
