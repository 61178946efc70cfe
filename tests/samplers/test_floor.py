"""The least noise that samplers take y to have."""

import pytest
import torch
from linear import SHAPE, LinearDecoder

from genprior.operators import Denoise, Measurement
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.samplers import DPS, Exact, LatentHMC
from genprior.samplers.base import floored, start
from genprior.samplers.latents.latent_hmc import decoder_variance


def measured(noise):
    return Measurement(torch.zeros(2, *SHAPE, dtype=torch.float64), Denoise(SHAPE), noise)


@pytest.mark.parametrize("noise", [0.1, torch.tensor([0.1, 0.3], dtype=torch.float64).reshape(-1, 1, 1, 1)])
def test_noise_above_the_floor_is_kept_to_the_last_bit(noise):
    """0.1 in float32 is 0.10000000149."""
    kept = floored(measured(noise), 0.01).noise
    assert type(kept) is type(noise)
    assert torch.equal(torch.as_tensor(kept), torch.as_tensor(noise))


def test_noise_below_the_floor_is_raised_to_it_image_by_image():
    noise = torch.tensor([0.0, 0.2], dtype=torch.float64).reshape(-1, 1, 1, 1)
    assert floored(measured(noise), 0.1).noise.flatten().tolist() == [0.1, 0.2]
    assert floored(measured(0.0), 0.1).noise == 0.1


def test_floor_is_of_what_the_method_needs_of_the_prior():
    decoder, gaussian = LinearDecoder(), Gaussian(torch.zeros(SHAPE), torch.ones(SHAPE))
    assert LatentHMC().floor(decoder) == decoder.spread / 150
    assert DPS().floor(gaussian) == gaussian.sigma_min / 5
    assert Exact().floor(gaussian) == 0


@pytest.mark.parametrize("v", [0.1, torch.tensor(0.1, dtype=torch.float64), torch.nn.Parameter(torch.tensor(0.5))])
def test_variance_of_a_decoder_is_its_own_to_the_last_bit(v):
    prior = LinearDecoder()
    prior.decoder_variance = v
    assert decoder_variance(prior) == (0.5 if isinstance(v, torch.nn.Parameter) else 0.1)


def test_chains_start_at_the_centre_to_the_last_bit_where_y_says_so():
    """With y at a centre of 0.1, nothing pulls elsewhere: a centre in float32 would, by 1.5e-9."""
    prior = LinearDecoder()
    prior.centre = 0.1
    y = torch.full((1, *SHAPE), 0.1, dtype=torch.float64)
    assert torch.allclose(start(prior, Measurement(y, Denoise(SHAPE), 0.1)), y, rtol=0, atol=1e-16)
