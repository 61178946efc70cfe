"""Hamiltonian Monte Carlo in the latent against posteriors in closed form, linear and with two modes."""

import math

import pytest
import torch
from linear import OPERATORS, SHAPE, LinearDecoder, draw, farthest, measure

from genprior.noise import Noise
from genprior.operators import Denoise, Inpaint, Measurement, random_mask
from genprior.priors.base import Prior
from genprior.samplers.latents.latent_hmc import LatentHMC

QUICK = LatentHMC(anneal=15, burn_in=10, steps=8, leapfrog=5)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("v", [0.0, 0.02])
def test_latent_hmc_matches_linear_posterior(operator, v):
    """Of n exact draws, all figures are below 3.3; see `linear`."""
    prior = LinearDecoder(OPERATORS[operator].image_shape, v=v)
    one = measure(prior, OPERATORS[operator])
    # a valid blur solves by conjugate gradients, in every leapfrog step where v > 0
    n = 100 if (operator, v) == ("valid blur", 0.02) else 600
    draws, _ = draw(QUICK, prior, one, n)
    assert farthest(draws, prior, one) < 3.3


@pytest.mark.parametrize(
    "sampler", [LatentHMC(anneal=20, burn_in=60, steps=100, leapfrog=1), LatentHMC(anneal=1, burn_in=40, steps=20)]
)
def test_langevin_and_unannealed_chains_match_linear_posterior(sampler):
    prior = LinearDecoder(v=0.02)
    one = measure(prior, OPERATORS["inpaint"])
    draws, told = draw(sampler, prior, one, 600)
    assert farthest(draws, prior, one) < 3.3
    # adapted to 0.574 and to 0.8; that steps vary while they adapt leaves the settled ones somewhat shorter
    assert told["acceptance"].mean() > (0.5 if sampler.leapfrog == 1 else 0.75)
    assert told["acceptance"].mean() < (0.8 if sampler.leapfrog == 1 else 0.97)


class Fold(Prior):
    """G(z) = ((z_0 - 0.5)^2, z_1): two latents for each image. It keeps the last z, and counts."""

    image_shape, latent_shape, decoder_variance = (2, 1, 1), (2,), 0.0
    centre, spread = 0.5, 1.0
    calls = 0

    def decode(self, z):
        self.z, self.calls = z, self.calls + 1
        return torch.stack([(z[:, 0] - 0.5) ** 2, z[:, 1]], 1)[:, :, None, None]


@pytest.mark.parametrize(("anneal", "known"), [(1, 0.394), (20, 0.324), (80, 0.294)])
def test_share_of_each_mode_errs_as_known(anneal, known):
    """z_0 = 1.5 and -0.5 give the same image; no chain crosses the 12 nats between them once the noise is low.

    The exact shares follow by quadrature: 0.274 for the upper mode, which has 0.309 of the prior on its side of 0.5.
    Annealing quickly leaves chains in the mode nearer to where they began; slowly, it comes close to the truth.
    `known` was measured on 16000 draws; of n, a share p is off by sqrt(p (1 - p) / n), and 3.3 of those bound it.
    R-hat says so: the modes are 2 apart, and their sd is 0.1.
    """
    n, y, noise = 4000, torch.tensor([1.0, 0.3], dtype=torch.float64), 0.2
    z = torch.linspace(-8, 8, 40001, dtype=torch.float64)
    p = torch.exp(-(z**2) / 2 - ((z - 0.5) ** 2 - y[0]) ** 2 / (2 * noise**2))
    assert abs(p[z > 0.5].sum() / p.sum() - 0.2743) < 1e-4

    prior = Fold()
    one = Measurement(y.reshape(1, 2, 1, 1), Denoise((2, 1, 1)), noise)
    _, told = draw(LatentHMC(anneal=anneal, burn_in=8, steps=4, leapfrog=6), prior, one, n)
    share = (prior.z[:, 0] > 0.5).double().mean()
    bound = 3.3 * math.sqrt(known * (1 - known) / n)
    assert abs(share - known) < bound
    assert told["rhat"].min() > 3


@pytest.mark.parametrize("scale", [2.0**-10, 2.0**10])
@pytest.mark.parametrize("v", [0.0, 0.02])
def test_units_do_not_matter(scale, v):
    """A prior and a measurement in other units give the same draws in those units; without noise, too.

    Powers of 2 leave the rounding alone, which a chain enlarges: by up to a million in float64, see `DualAveraging`.
    """
    one, other = LinearDecoder(v=v), LinearDecoder(v=v * scale**2)
    other.W, other.b, other.spread = scale * one.W, scale * one.b, scale * one.spread
    operator = OPERATORS["inpaint"]
    y = operator(one.sample(4, seed=1))
    sampler = LatentHMC(anneal=5, burn_in=2, steps=4, leapfrog=3)
    for noise in (0.05, 0.0):
        with torch.no_grad():
            draws = sampler(one, Measurement(y, operator, noise), Noise(0, range(4)))
            scaled = sampler(other, Measurement(scale * y, operator, scale * noise), Noise(0, range(4)))
        assert torch.allclose(scaled / scale, draws, rtol=0, atol=1e-8)


@pytest.mark.parametrize("v", [0.0, 0.02])
def test_image_of_a_batch_does_not_depend_on_its_company(v):
    """Each image with its own mask and noise level, alone and in a batch: the same to rounding (float64)."""
    masks = torch.stack([random_mask(SHAPE, fraction, seed) for seed, fraction in enumerate((0.3, 0.5, 0.7))])
    prior = LinearDecoder(v=v)
    noise = torch.tensor([0.0, 0.1, 0.2], dtype=torch.float64).reshape(-1, 1, 1, 1)
    measurement = Measurement(Inpaint(masks, SHAPE)(prior.sample(3, seed=1)), Inpaint(masks, SHAPE), noise)
    with torch.no_grad():
        together, told = QUICK.draw(prior, measurement, Noise(0, [0, 1, 2]))
        for i in range(3):
            alone, told_alone = QUICK.draw(prior, measurement.select(torch.tensor([i])), Noise(0, [i]))
            assert torch.allclose(alone[0], together[i], rtol=0, atol=1e-9)
            for name in told:
                assert torch.allclose(told_alone[name][0], told[name][i], rtol=1e-6)


@pytest.mark.parametrize("v", [0.0, 0.02])
def test_values_under_the_holes_mean_nothing(v):
    """Whatever lies there adds a constant to the energy: 4e4, whose rounding is 1e-11, and which chains enlarge."""
    prior, operator = LinearDecoder(v=v), OPERATORS["inpaint"]
    y = operator(prior.sample(2, seed=1))
    other = y + 5 * (1 - operator(torch.ones_like(y)))
    draws = [draw(QUICK, prior, Measurement(a[:1], operator, 0.1), 5)[0] for a in (y, other)]
    assert torch.allclose(*draws, rtol=0, atol=1e-6)


def test_without_noise_the_draws_explain_the_measurement():
    """The noise is then 1/150 of the spread: 4.5 of it (p = 1e-5 for each of 32 pixels, 5 draws) bound the rest.

    With v = 0 the decoder can explain all of y, so that the rest is no larger than the noise. Coming down to so little
    takes longer than the default.
    """
    prior, operator = LinearDecoder(), OPERATORS["inpaint"]
    y = operator(prior.sample(1, seed=1))
    draws, _ = draw(LatentHMC(anneal=40, leapfrog=10), prior, Measurement(y, operator, 0.0), 5)
    assert (operator(draws) - y).abs().max() < 4.5 * prior.spread / 150


def test_calls_are_counted():
    """Every leapfrog step decodes once, and differentiates once; the last decoding is not differentiated."""
    prior = Fold()
    one = Measurement(torch.ones(1, 2, 1, 1), Denoise((2, 1, 1)), 0.1)
    sampler = LatentHMC(anneal=3, burn_in=2, steps=4, leapfrog=5)
    draw(sampler, prior, one, 2)
    assert prior.calls == sampler.calls
    assert sampler.evaluations == 2 * sampler.calls - 1


def test_draws_keep_precision():
    for dtype in (torch.float32, torch.float64):
        one = Measurement(torch.ones(1, 2, 1, 1, dtype=dtype), Denoise((2, 1, 1)), 0.1)
        assert draw(QUICK, Fold(), one, 2)[0].dtype == dtype


@pytest.mark.parametrize(
    "wrong", [{"steps": 3}, {"anneal": 0}, {"burn_in": 0}, {"leapfrog": 0}, {"start": 0}, {"steps": 10.5}]
)
def test_wrong_parameters_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LatentHMC(**wrong)
