"""Rounded images: draws, and their mean, against the closed form of truncated normal laws."""

import math

import pytest
import torch
from scipy.stats import truncnorm

import genprior
from genprior.checks import UnsupportedError
from genprior.likelihoods import Quantised
from genprior.noise import Noise
from genprior.operators import Denoise, Inpaint, Measurement
from genprior.priors.foreign.denoiser import from_denoiser
from genprior.samplers.guidance import propagation
from genprior.samplers.guidance.quantised import QuantisedGuidance
from genprior.samplers.quantised_mean import QuantisedMean

SHAPE = (1, 6, 6)
CENTRE, SPREAD, STEP = 0.5, 0.2, 0.3
WHITE = genprior.Gaussian.stationary(torch.full(SHAPE, CENTRE), torch.full(SHAPE, SPREAD**2))


def measured(number=2):
    x = WHITE.sample(number, seed=3)
    return Measurement(STEP * (x / STEP).round(), Denoise(SHAPE), Quantised(STEP))


def truncated(y, mean, sd):
    """Means and variances of N(mean, sd^2) in the cells of y."""
    low, high = ((y + side * STEP / 2 - mean) / sd for side in (-1, 1))
    found = truncnorm.stats(low.numpy(), high.numpy(), loc=torch.as_tensor(mean).numpy(), scale=sd, moments="mv")
    return (torch.as_tensor(moment).to(y) for moment in found)


def test_it_is_that_of_its_formula(monkeypatch):
    """Of white pixels N(c, s^2): D(y, sigma) = c + s^2 / (s^2 + sigma^2) (y - c), V = s^2 sigma^2 / (s^2 + sigma^2) I.

    Variances are taken from 4000 draws, so to 5 % of each; the mean in a cell of 0.3 then errs by less than 0.002.
    """
    monkeypatch.setattr(propagation, "PROBES", 4000)
    m = measured()
    found = QuantisedMean(steps=3, weight=1.3, again=0.4, grain=0.6)(WHITE, m, Noise(0, [0, 1]))
    for y, x in zip(m.y.double(), found.double()):
        _, variance = truncated(y, torch.full_like(y, CENTRE), SPREAD)
        sigma = 1.3 * math.sqrt(float(variance.mean()))
        deviation = sigma * math.sqrt(SPREAD**2 / (SPREAD**2 + sigma**2))
        mean, still = y, Noise(0, [0])
        for level, grain in ((sigma, 0.6), (0.4 * sigma, 0.3), (0.4 * sigma, 0.3)):
            x_t = mean + grain * level * still(torch.empty(1, *SHAPE))[0].double()
            share = SPREAD**2 / (SPREAD**2 + level**2)
            mean, _ = truncated(y, CENTRE + share * (x_t - CENTRE), deviation)
        torch.testing.assert_close(x, mean, rtol=0, atol=0.002)


def test_draws_have_the_truncated_law(monkeypatch):
    """Of white pixels p(x | y) is N(c, s^2) in the cell of each: its mean and variance, of 36 pixels and 500 draws.

    The mean of 18,000 values, of deviation 0.08, errs by 0.0006, their mean variance by 1 %, and 40 steps of second
    order by as much; 1000 probes tell variances to 4 %.
    """
    monkeypatch.setattr(propagation, "PROBES", 1000)
    m = measured(1).select(torch.zeros(500, dtype=torch.long))
    draws = QuantisedGuidance(steps=40, start=None)(WHITE, m, Noise(0, range(500))).double()
    mean, variance = truncated(m.y[0].double(), torch.full_like(m.y[0].double(), CENTRE), SPREAD)
    assert float((draws.mean(0) - mean).mean().abs()) < 0.002
    assert float((draws.mean(0) - mean).square().mean().sqrt()) < 0.01
    assert float(draws.var(0).mean() / variance.mean()) == pytest.approx(1, abs=0.05)
    assert float(((draws - m.y).abs() / STEP).max()) < 0.5 + 1e-5


def test_it_takes_rounded_images_of_measured_denoisers_only():
    m = measured()
    other = Measurement(m.y, Inpaint(torch.eye(6), SHAPE), m.noise)
    with pytest.raises(UnsupportedError, match="not the rounded measurements of Inpaint"):
        QuantisedMean()(WHITE, other, Noise(0, [0, 1]))
    with pytest.raises(UnsupportedError, match="takes y of the likelihood Quantised, not of Gaussian"):
        QuantisedMean()(WHITE, Measurement(m.y, m.operator, 0.1), Noise(0, [0, 1]))
    with pytest.raises(UnsupportedError, match="which was never measured"):
        QuantisedMean()(from_denoiser(WHITE.denoise, SHAPE), m, Noise(0, [0, 1]))
