"""Monte Carlo guided diffusion: what its clouds tend to, by a Kalman filter or weighed paths of the chain."""

import math
from itertools import pairwise

import pytest
import torch
from clouds import (
    FAR,
    conditioned,
    farthest,
    farthest_of_gaussian,
    gain,
    gaussian,
    mixture,
    modes,
    of_clouds,
    one_cloud,
    weighed_chain,
)

from genprior.checks import UnsupportedError
from genprior.noise import Noise
from genprior.operators import Blur, Inpaint, Measurement, SuperResolution
from genprior.samplers import MCGDiff
from genprior.samplers.integrate import geometric
from genprior.truth.gaussian import moments

SHAPE = (1, 2, 2)
STEPS = 20
OPERATORS = {
    "matrix": gaussian()[1].operator,
    "inpaint": Inpaint(torch.tensor([[True, False], [False, True]]), SHAPE),
    "super-resolution": SuperResolution(2, SHAPE),
}


def own_levels(noise, s, sigmas):
    """Of each singular value s > 0: the first level not above noise / s, or the last."""
    return [next((sigma for sigma in sigmas[:-1] if sigma <= noise / value), sigmas[-2]) for value in s]


def kalman(sampler, prior, one):
    """What the clouds tend to, mean and covariance: at its own level, a coordinate of x_t is conditioned on y / s.

    Of the chain of DDIM with the sampler's eta, from N(centre, spread^2 + sigma_max^2).
    """
    sigmas = geometric(prior.sigma_max, prior.sigma_min, sampler.steps)
    svd, (m, S) = one.operator.svd(), moments(prior)
    eye = torch.eye(len(m), dtype=m.dtype)
    V = svd.V(eye.reshape(-1, *SHAPE)).flatten(1).T
    s, y = svd.singular_values.expand(1, *SHAPE).flatten(), svd.Ut(one.y).flatten()
    seen = s > 0
    s, y, H = s[seen], y[seen], V.T[seen]
    own = own_levels(one.noise, s, sigmas)
    spare = [max((one.noise / value) ** 2 - level**2, 0) for value, level in zip(s, own)]
    R = [left + sampler.kappa * (sampler.unit**2 + level**2) for left, level in zip(spare, own)]
    mean, C = torch.zeros_like(m), (prior.spread**2 + sigmas[0] ** 2) * eye
    for sigma, sigma_next in pairwise(sigmas):
        for i in (i for i in range(len(s)) if own[i] == sigma):
            variance = torch.as_tensor(R[i], dtype=m.dtype).reshape(1, 1)
            mean, C = conditioned(mean, C, H[i : i + 1], variance, y[i : i + 1] / s[i] - H[i : i + 1] @ m)
        G = gain(S, sigma)
        if sigma_next == 0:
            return m + G @ mean, G @ C @ G.T
        fresh = sampler.eta * sigma_next * math.sqrt(1 - (sigma_next / sigma) ** 2)
        step = G + math.sqrt(sigma_next**2 - fresh**2) / sigma * (eye - G)
        mean, C = step @ mean, step @ C @ step.T + fresh**2 * eye
    raise AssertionError


@pytest.mark.parametrize(
    ("kind", "noise", "parameters"),
    [
        ("matrix", 0.4, {}),
        ("matrix", 0.4, {"eta": 0.6, "kappa": 0.01, "unit": 1.0}),
        ("inpaint", 0.3, {"kappa": 0.0}),
        ("inpaint", 0.0, {"kappa": 1e-3}),  # less noise than any level has
        ("inpaint", 50.0, {}),  # more
        ("super-resolution", 0.1, {}),
    ],
)
def test_cloud_tends_to_the_posterior_of_a_gaussian_chain(kind, noise, parameters):
    prior, operator = gaussian()[0], OPERATORS[kind]
    y = operator(prior.sample(1, seed=1))
    one = Measurement(y + noise * Noise(2, [0])(y), operator, noise)
    sampler = MCGDiff(STEPS, 300, **parameters)
    x, _ = of_clouds(sampler, prior, one, sampler.particles)
    # `draw` takes y to be no less noisy than a fifth of sigma_min, which is below all levels too
    assert farthest_of_gaussian(x, *kalman(sampler, prior, one)) < FAR


def test_cloud_finds_the_weights_of_the_modes_of_a_mixture():
    prior, one = mixture()
    sampler = MCGDiff(40, 500, kappa=0.0)
    (own,) = own_levels(one.noise, [1.0], geometric(prior.sigma_max, prior.sigma_min, sampler.steps))
    x, _ = of_clouds(sampler, prior, one, sampler.particles)
    assert farthest(modes(x), *weighed_chain(sampler.steps, own)) < FAR


@pytest.mark.parametrize("steps", [2, 20])
def test_without_noise_and_kappa_what_was_seen_comes_back(steps):
    """y leaves nothing to chance at its level, the last, and nothing is divided by it. What denoising takes off there,
    sigma_min^2 / s^2 of the distance from the mean, is below sigma_min / 10 for a distance of ten times the least s.
    """
    prior, operator = gaussian()[0], OPERATORS["inpaint"]
    y = operator(prior.sample(1, seed=1))
    x, _ = of_clouds(MCGDiff(steps, 8, kappa=0.0), prior, Measurement(y, operator, 0.0), 8, count=1)
    assert (operator(x.reshape(-1, *SHAPE)) - y).abs().max() < prior.sigma_min / 10


def test_operators_without_an_svd_are_refused():
    prior = gaussian()[0]
    operator = Blur(torch.eye(2), SHAPE, "valid")
    one = Measurement(torch.zeros(1, *operator.measurement_shape).double(), operator, 0.1)
    with pytest.raises(UnsupportedError, match="no SVD in closed form"):
        MCGDiff(2, 2)(prior, one, one_cloud(1))


@pytest.mark.parametrize("wrong", [{"kappa": -1e-9}, {"eta": 0.0}, {"unit": 0.0}, {"particles": 0}, {"steps": 1.5}])
def test_wrong_parameters_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MCGDiff(**wrong)
