"""Metropolis-within-Gibbs against posteriors in closed form, with right and wrong encoders."""

import pytest
import torch
from linear import OPERATORS, SHAPE, LinearDecoder, draw, farthest, measure

from genprior.noise import Noise
from genprior.operators import Inpaint, Measurement, random_mask
from genprior.samplers.latents.vae_gibbs import VAEGibbs


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize(("shift", "stretch"), [(0.0, 1.0), (0.5, 1.3)])
def test_gibbs_matches_linear_posterior_whatever_the_encoder(operator, shift, stretch):
    """Of n exact draws, all figures are below 3.3; see `linear`. The true q(z | x) is always accepted."""
    prior = LinearDecoder(OPERATORS[operator].image_shape, v=0.12, shift=shift, stretch=stretch)
    one = measure(prior, OPERATORS[operator])
    # a valid blur solves by conjugate gradients in every step
    n = 60 if operator == "valid blur" else 200
    draws, told = draw(VAEGibbs(steps=200 if shift else 60, burn_in=20), prior, one, n)
    assert farthest(draws, prior, one) < 3.3
    if shift:
        assert 0.2 < told["acceptance"].mean() < 0.5
    else:
        assert told["acceptance"].min() > 1 - 1e-6


def test_no_proposal_of_a_bad_encoder_is_needed():
    """With q 6 of its standard deviations off, hardly anything of it is accepted: the random walk alone is exact."""
    prior = LinearDecoder(v=0.12, shift=6.0)
    one = measure(prior, OPERATORS["inpaint"])
    draws, told = draw(VAEGibbs(steps=400, burn_in=1), prior, one, 200)
    assert farthest(draws, prior, one) < 3.3
    assert told["acceptance"].mean() < 0.01
    assert 0.2 < told["local acceptance"].mean() < 0.4


def test_pseudo_gibbs_is_biased_by_a_wrong_encoder():
    """What the Metropolis tests are for: without them (4 steps hardly correct 100) the means are far off."""
    prior = LinearDecoder(v=0.05, shift=1.0)
    one = measure(prior, OPERATORS["inpaint"])
    draws, _ = draw(VAEGibbs(steps=4, burn_in=100), prior, one, 400)
    assert farthest(draws, prior, one) > 20


@pytest.mark.parametrize("scale", [2.0**-10, 2.0**10])
def test_units_do_not_matter(scale):
    """A prior and a measurement in other units give the same draws in those units; without noise, too."""
    one, other = LinearDecoder(v=0.05), LinearDecoder(v=0.05 * scale**2)
    other.W, other.b, other.spread = scale * one.W, scale * one.b, scale * one.spread
    other.centre = scale * one.centre
    operator = OPERATORS["inpaint"]
    y = operator(one.sample(4, seed=1))
    sampler = VAEGibbs(steps=5, burn_in=5)
    for noise in (0.05, 0.0):
        draws = sampler(one, Measurement(y, operator, noise), Noise(0, range(4)))
        scaled = sampler(other, Measurement(scale * y, operator, scale * noise), Noise(0, range(4)))
        assert torch.allclose(scaled / scale, draws, rtol=0, atol=1e-9)


def test_image_of_a_batch_does_not_depend_on_its_company():
    """Each image with its own mask and noise level, alone and in a batch: the same to rounding (float64)."""
    masks = torch.stack([random_mask(SHAPE, fraction, seed) for seed, fraction in enumerate((0.3, 0.5, 0.7))])
    prior = LinearDecoder(v=0.05, shift=0.5)
    noise = torch.tensor([0.0, 0.1, 0.2], dtype=torch.float64).reshape(-1, 1, 1, 1)
    measurement = Measurement(Inpaint(masks, SHAPE)(prior.sample(3, seed=1)), Inpaint(masks, SHAPE), noise)
    sampler = VAEGibbs(steps=10, burn_in=5)
    together, told = sampler.draw(prior, measurement, Noise(0, [0, 1, 2]))
    for i in range(3):
        alone, told_alone = sampler.draw(prior, measurement.select(torch.tensor([i])), Noise(0, [i]))
        assert torch.allclose(alone[0], together[i], rtol=0, atol=1e-9)
        for name in told:
            assert torch.allclose(told_alone[name][0], told[name][i], rtol=1e-6)


def test_calls_are_counted():
    """One call of the encoder a step; one of the decoder before, two with the Metropolis tests."""
    prior = LinearDecoder(v=0.05)
    counts = {"infer": 0, "decode": 0}

    def counted(name, method):
        def call(x):
            counts[name] += 1
            return method(x)

        return call

    prior.infer = counted("infer", prior.infer)
    prior.decode = counted("decode", prior.decode)
    one = measure(LinearDecoder(v=0.05), OPERATORS["inpaint"])
    sampler = VAEGibbs(steps=6, burn_in=3)
    draw(sampler, prior, one, 2)
    assert counts["infer"] == sampler.calls
    assert sum(counts.values()) == sampler.evaluations


def test_a_decoder_without_variance_is_refused():
    prior = LinearDecoder(v=0.0)
    with pytest.raises(ValueError, match="variance"):
        draw(VAEGibbs(), prior, measure(prior, OPERATORS["inpaint"]), 1)


@pytest.mark.parametrize("wrong", [{"steps": 3}, {"burn_in": 0}])
def test_wrong_parameters_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        VAEGibbs(**wrong)
