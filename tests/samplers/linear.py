"""Latent priors with a linear decoder, whose posterior is a Gaussian in closed form, and how draws compare with it.

With m and S the exact posterior of x given y and V, l the eigenvectors and eigenvalues of S that are not 0, r of them,
draws are whitened to e = V^T (x - m) / sqrt(l) ~ N(0, I). Of n independent exact draws,
    n |mean e|^2                  is chi^2_r:      mean r,       sd sqrt(2 r)
    n |mean (e e^T) - I|_F^2      has              mean r (r + 1), sd 2 sqrt(r (r + 1))
(an entry of the matrix off its diagonal has the variance 1 / n, and counts twice; one on it, 2 / n). Both are told in
standard deviations from their means: 3.3 of them chance exceeds about once in a thousand, a little more for small r.
"""

import math

import torch

from genprior.noise import Noise
from genprior.operators import (
    Blur,
    Colorize,
    Inpaint,
    Measurement,
    SuperResolution,
    gaussian_kernel,
    motion_kernel,
    random_mask,
)
from genprior.priors.base import Prior

NOISE = 0.1
SHAPE = (1, 8, 8)
LATENTS = 6
OPERATORS = {
    "inpaint": Inpaint(random_mask(SHAPE, 0.5, 0), SHAPE),
    "super-resolution": SuperResolution(2, SHAPE),
    "circular blur": Blur(gaussian_kernel(1.0), SHAPE, "circular"),
    "valid blur": Blur(motion_kernel(3, 30.0), SHAPE, "valid"),
    "colorize": Colorize((3, 8, 8)),
}


class LinearDecoder(Prior):
    """x = W z + b + sqrt(v) n. The columns of W are orthogonal, of lengths 0.2 sqrt(D) to 0.5 sqrt(D).

    q(z | x) is then a product of independent Gaussians; its means are moved by `shift` and its standard deviations
    multiplied by `stretch` to make a wrong one.
    """

    def __init__(self, shape=SHAPE, latents=LATENTS, v=0.0, shift=0.0, stretch=1.0):
        super().__init__()
        D = math.prod(shape)
        seed = torch.Generator().manual_seed(0)
        Q = torch.linalg.qr(torch.randn(D, latents, generator=seed, dtype=torch.float64)).Q
        self.W = Q * torch.linspace(0.2, 0.5, latents, dtype=torch.float64) * math.sqrt(D / latents)
        self.b = torch.full((D,), 0.5, dtype=torch.float64)
        self.image_shape, self.latent_shape, self.decoder_variance = shape, (latents,), v
        self.shift, self.stretch = shift, stretch
        self.centre = 0.5
        self.spread = math.sqrt(self.W.square().sum() / D + v)

    def decode(self, z):
        return (z @ self.W.T.to(z) + self.b.to(z)).reshape(-1, *self.image_shape)

    def infer(self, x):
        v = self.decoder_variance
        precision = 1 + self.W.square().sum(0) / v
        mean = (x.flatten(1) - self.b) @ self.W / v / precision
        return mean + self.shift * precision.rsqrt(), (self.stretch * precision.rsqrt()).expand_as(mean)

    def sample(self, n, *, seed=0):
        noise = Noise.of_draws(n, seed)
        x = self.decode(noise(torch.empty(n, *self.latent_shape, dtype=torch.float64)))
        return x + math.sqrt(self.decoder_variance) * noise(x)

    def exact(self, measurement):
        """Mean (D,) and covariance (D, D) of p(x | y), of one measurement, by Bayes' rule on the joint Gaussian."""
        D = math.prod(self.image_shape)
        A = dense(measurement.operator)
        S = self.W @ self.W.T + self.decoder_variance * torch.eye(D, dtype=torch.float64)
        gain = torch.linalg.solve(A @ S @ A.T + measurement.noise**2 * torch.eye(len(A), dtype=torch.float64), A @ S).T
        mean = self.b + gain @ (measurement.y.flatten() - A @ self.b)
        return mean, S - gain @ A @ S


def dense(operator):
    D = math.prod(operator.image_shape)
    return operator(torch.eye(D, dtype=torch.float64).reshape(D, *operator.image_shape)).flatten(1).T


def measure(prior, operator, noise=NOISE):
    """One measurement of a draw of the prior."""
    y = operator(prior.sample(1, seed=7))
    return Measurement(y + noise * Noise(8, [0])(y), operator, noise)


def draw(sampler, prior, one, n):
    """n draws from the posterior of one measurement, and their diagnostics."""
    rows = torch.zeros(n, dtype=torch.long)
    with torch.no_grad():  # as `restore` does; samplers that want gradients ask for them
        return sampler.draw(prior, one.select(rows), Noise(0, rows, torch.arange(n)))


def deviations(draws, mean, S):
    """How far the mean and the covariance of the draws are from the exact ones, in standard deviations; see above."""
    l, V = torch.linalg.eigh(S)
    keep = l > 1e-9 * l.max()
    e = (draws.flatten(1) - mean) @ V[:, keep] / l[keep].sqrt()
    n, r = e.shape
    off_mean = (n * e.mean(0).square().sum() - r) / math.sqrt(2 * r)
    square = n * (e.T @ e / n - torch.eye(r, dtype=e.dtype)).square().sum()
    return float(off_mean), float((square - r * (r + 1)) / (2 * math.sqrt(r * (r + 1))))


def farthest(draws, prior, one):
    """The largest of the deviations from a linear decoder's posterior: of x, and of its part in the range of W alone.

    The second hides no error of z among the many directions that only sqrt(v) n has.
    """
    mean, S = prior.exact(one)
    Q = prior.W / prior.W.norm(dim=0)
    return max(*deviations(draws, mean, S), *deviations(draws.flatten(1) @ Q, Q.T @ mean, Q.T @ S @ Q))
