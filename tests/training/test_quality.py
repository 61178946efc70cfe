"""The restorations that are measured while a prior is trained: fixed, and of the error they should have."""

import math

import pytest
import torch

from genprior.noise import Noise
from genprior.priors.ddpm import DDPM
from genprior.priors.gan import GAN
from genprior.priors.vae import VAE
from genprior.training.quality import SIGMA, denoising_psnr, mean_psnr, reconstruction_psnr, search_psnr

SHAPE = (1, 8, 8)


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def images(n=4):
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(1))


def test_mean_psnr_is_that_of_each_image_of_clamped_values():
    x = torch.full((2, *SHAPE), 0.5)
    x_hat = torch.stack([x[0] + 0.1, x[1] + 7])  # the second is clamped to 1: an error of 0.5
    assert mean_psnr(x_hat, x) == pytest.approx((20 + 20 * math.log10(2)) / 2, abs=1e-5)
    assert mean_psnr(x, x) == pytest.approx(100)


def test_denoising_psnr_is_that_of_the_prior_and_the_same_every_time():
    prior, x = DDPM(SHAPE, widths=(4, 4), blocks=1, patch=1), images()
    y = x + SIGMA * Noise(0, torch.arange(4))(x)
    found = denoising_psnr(prior, x)
    assert found == denoising_psnr(prior, x)
    with torch.no_grad():
        assert found == {"denoising PSNR": mean_psnr(prior.denoise(y, SIGMA), x)}


def test_reconstruction_psnr_is_that_of_the_decoded_latent():
    prior, x = VAE(SHAPE, widths=(4, 4), blocks=(0, 0), latent=3).eval(), images()
    with torch.no_grad():
        assert reconstruction_psnr(prior, x) == {"reconstruction PSNR": mean_psnr(prior.decode(prior.encode(x)), x)}


def test_search_finds_images_that_the_generator_makes_and_tells_those_that_it_does_not():
    prior = GAN(SHAPE, widths=(4, 4), hidden=8, latent=3).eval().requires_grad_(False)
    own = prior.decode(torch.randn(4, *prior.latent_shape, generator=torch.Generator().manual_seed(2)))
    # Noise is in nobody's range of 3 dimensions: its standard deviation sqrt(1/12) is a PSNR of 10.8 dB.
    begun = mean_psnr(prior.decode(torch.zeros(4, *prior.latent_shape)), own)
    found, other = (search_psnr(prior, x)["reconstruction PSNR"] for x in (own, images()))
    assert found > begun + 20  # dB: less than a tenth of the error that it begins with
    assert other < 13
    assert all(p.grad is None for p in prior.parameters())
