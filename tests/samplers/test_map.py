"""MAP against the minimum in closed form, and on an energy that is not convex."""

import math

import pytest
import torch
from linear import OPERATORS, SHAPE, draw, measure

from genprior.noise import Noise
from genprior.operators import Denoise, Inpaint, Measurement, random_mask
from genprior.posteriors.exact import posterior_of
from genprior.priors.base import Prior
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.samplers.chains.map import MAP


def smooth(shape):
    """A Gaussian whose largest and smallest variance are 100 apart along random directions."""
    D = math.prod(shape)
    V = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    l = torch.logspace(-1, -3, D, dtype=torch.float64)
    return Gaussian(torch.full(shape, 0.5, dtype=torch.float64), V * l @ V.T)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_map_is_the_mode_in_closed_form(operator, weight):
    """That of a Gaussian: the mean of the posterior for a prior covariance S / weight, to a thousandth of its sd."""
    prior = smooth(OPERATORS[operator].image_shape)
    one = measure(prior, OPERATORS[operator])
    D = prior.mean.numel()
    S = prior.covariance.filter(torch.eye(D).double().reshape(D, *prior.mean.shape), prior.covariance.eigenvalues)
    exact = posterior_of(Gaussian(prior.mean, S.flatten(1) / weight), one)
    x, _ = draw(MAP(steps=150, weight=weight), prior, one, 1)
    assert (x[0] - exact.mean).abs().max() < 1e-3 * exact.spread


class DoubleWell(Prior):
    """Each pixel in one of two wells, energy 50 (x^2 - 1)^2: not convex between -0.58 and 0.58."""

    image_shape = SHAPE
    centre, spread = 0.0, 1.0

    def energy(self, x):
        return 50 * (x**2 - 1).square().sum((1, 2, 3))


def test_each_pixel_falls_into_the_nearer_well():
    """The minimum of 50 (x^2 - 1)^2 + (y - x)^2 / (2 noise^2) on the side of y, found on a grid of 1e-5."""
    y = torch.linspace(-0.9, 0.9, 64, dtype=torch.float64)
    x, _ = draw(MAP(steps=300), DoubleWell(), Measurement(y.reshape(1, *SHAPE), Denoise(SHAPE), 0.3), 1)
    grid = torch.linspace(0, 1.2, 120001, dtype=torch.float64)
    objective = 50 * (grid**2 - 1) ** 2 + (y.abs()[:, None] - grid) ** 2 / (2 * 0.3**2)
    best = y.sign() * grid[objective.argmin(1)]
    assert (x.flatten() - best).abs().max() < 1e-4


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_units_do_not_matter(scale):
    """A prior and a measurement in other units give the same image in those units; without noise, too."""
    one = smooth(SHAPE)
    D = one.mean.numel()
    S = one.covariance.filter(torch.eye(D).double().reshape(D, *SHAPE), one.covariance.eigenvalues).flatten(1)
    other = Gaussian(scale * one.mean, scale**2 * S)
    operator = OPERATORS["inpaint"]
    y = operator(one.sample(2, seed=1))
    for noise in (0.05, 0.0):
        x = MAP(steps=20)(one, Measurement(y, operator, noise), Noise(0, range(2)))
        scaled = MAP(steps=20)(other, Measurement(scale * y, operator, scale * noise), Noise(0, range(2)))
        assert torch.allclose(scaled / scale, x, rtol=0, atol=1e-6)


def test_image_of_a_batch_does_not_depend_on_its_company():
    """Each image with its own mask and noise level, alone and in a batch: the same to rounding (float64)."""
    masks = torch.stack([random_mask(SHAPE, fraction, seed) for seed, fraction in enumerate((0.3, 0.5, 0.7))])
    prior = smooth(SHAPE)
    noise = torch.tensor([0.0, 0.1, 0.2], dtype=torch.float64).reshape(-1, 1, 1, 1)
    measurement = Measurement(Inpaint(masks, SHAPE)(prior.sample(3, seed=1)), Inpaint(masks, SHAPE), noise)
    together = MAP(steps=20)(prior, measurement, Noise(0, [0, 1, 2]))
    for i in range(3):
        alone = MAP(steps=20)(prior, measurement.select(torch.tensor([i])), Noise(0, [i]))
        assert torch.allclose(alone[0], together[i], rtol=0, atol=1e-9)


def test_calls_are_counted():
    prior, calls = smooth(SHAPE), []
    energy = prior.energy
    prior.energy = lambda x: calls.append(1) or energy(x)
    draw(MAP(steps=9), prior, measure(prior, OPERATORS["inpaint"]), 2)
    assert len(calls) == MAP(steps=9).calls == 9
    assert MAP(steps=9).evaluations == 18


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"weight": -1}])
def test_wrong_parameters_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MAP(**wrong)
