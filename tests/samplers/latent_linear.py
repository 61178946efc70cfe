"""A prior with a linear decoder whose latents have a law of their own, white and Gaussian: p(x | y) is known.

With x = W z + b + sqrt(v) n as in `linear`, the latents are w = c + s z, kept as maps (latents, 1, 1): p(w) is the
Gaussian N(c, s^2 I), a prior of its own, and p(x), p(x | y) are those of the linear decoder.
"""

import torch
from linear import OPERATORS, SHAPE, LinearDecoder, draw, measure

from genprior.priors.base import Prior
from genprior.priors.gaussian.gaussian import Gaussian


class LinearLatents(Prior):
    """The encoder is the mean of p(w | x)."""

    def __init__(self, shape=SHAPE, v=0.02, c=0.2, s=0.3):
        super().__init__()
        self.c, self.s = c, s
        self.linear = LinearDecoder(shape, v=v)
        self.image_shape, self.decoder_variance = shape, v
        self.centre, self.spread = self.linear.centre, self.linear.spread
        self.latent_shape = (*self.linear.latent_shape, 1, 1)
        mean = torch.full(self.latent_shape, c, dtype=torch.float64)
        self.latents = Gaussian(mean, torch.full_like(mean, s**2))
        self.W = self.linear.W

    def render(self, w):
        return self.linear.decode((w.flatten(1) - self.c) / self.s)

    def encode(self, x):
        return (self.c + self.s * self.linear.infer(x)[0]).reshape(-1, *self.latent_shape)

    def sample(self, n, *, seed=0):
        return self.linear.sample(n, seed=seed)

    def exact(self, measurement):
        return self.linear.exact(measurement)


class Counted(LinearLatents):
    """Counts the calls of its decoder."""

    calls = 0

    def render(self, w):
        self.calls += 1
        return super().render(w)


def errors(sampler, operator="inpaint", n=400):
    """Along the columns of W: root mean square error of the mean in posterior sds, and mean ratio of variances.

    Over n draws the first has an error of about 1 / sqrt(n), the second a relative one of sqrt(2 / (6 n)): 0.05, 3 %.
    """
    prior = LinearLatents()
    one = measure(prior, OPERATORS[operator])
    draws, _ = draw(sampler, prior, one, n)
    mean, S = prior.exact(one)
    Q = prior.W / prior.W.norm(dim=0)
    e = (draws.flatten(1) - mean) @ Q / (Q.T @ S @ Q).diagonal().sqrt()
    return float(e.mean(0).square().mean().sqrt()), float(e.var(0).mean())
