"""The adversarial prior: draws, latents, what it lacks, and what it refuses."""

import re

import pytest
import torch

from genprior.checks import UnsupportedError
from genprior.noise import Noise
from genprior.priors.base import supports
from genprior.priors.gan import GAN
from genprior.priors.wrappers.given import CHUNK

SMALL = {"latent": 6, "widths": (8, 4), "hidden": 8, "spread": 0.3}


def small(shape=(1, 8, 8), seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        prior = GAN(shape, **SMALL)
        for parameter in prior.parameters():
            parameter.data.normal_(std=0.4)
    return prior.double()


def test_sample_is_the_decoded_noise_of_its_rows():
    prior = small()
    noise = Noise(7, torch.zeros(3, dtype=torch.long), torch.arange(3))
    z = noise(torch.empty(3, 6, dtype=torch.float64))
    torch.testing.assert_close(prior.sample(3, seed=7), prior.decode(z), rtol=0, atol=0)


def test_draw_does_not_depend_on_how_many_there_are():
    prior = small()
    many = prior.sample(CHUNK + 3, seed=1)
    assert len(many) == CHUNK + 3
    # float64 rounding of sums of some hundred terms
    torch.testing.assert_close(prior.sample(5, seed=1), many[:5], rtol=0, atol=1e-12)
    assert (prior.sample(5, seed=2) - many[:5]).abs().max() > 1e-2
    # the second chunk goes on where the first ended
    assert (many[CHUNK:] - many[:3]).abs().max() > 1e-2


def test_sampling_leaves_no_trace():
    prior = small()
    before = torch.get_rng_state()
    assert not prior.sample(2).requires_grad
    assert torch.equal(torch.get_rng_state(), before)


def test_decode_passes_gradients_to_the_latent():
    """Against central differences of step h = 1e-5: their error is h^2 f''' / 6, rounding 1e-16 / h; both < 1e-8."""
    prior, h = small(), 1e-5
    z, v = torch.randn(2, 1, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, forward = torch.autograd.functional.jvp(prior.decode, z, v)
    central = (prior.decode(z + h * v) - prior.decode(z - h * v)) / (2 * h)
    torch.testing.assert_close(forward, central, rtol=0, atol=1e-8)
    assert forward.abs().max() > 1e-2


def test_gan_says_what_it_is():
    prior = small()
    assert prior.capabilities == {"sample", "decode"}
    assert prior.latent_shape == (6,)
    assert prior.decoder_variance == 0
    assert prior.sized(8, 8) is prior


@pytest.mark.parametrize("method", ["log_prob", "energy", "score", "elbo", "encode", "infer"])
def test_gan_has_no_density_and_says_so(method):
    prior = small()
    assert not supports(prior, method)
    # the energy is -log_prob, so it is log_prob that is missed
    missed = "log_prob" if method == "energy" else method
    with pytest.raises(UnsupportedError, match=f"GAN has no {missed}; it has decode, sample. Try another prior for"):
        getattr(prior, method)(torch.zeros(1, 1, 8, 8))


def test_gan_cannot_denoise():
    with pytest.raises(UnsupportedError, match="GAN has no denoise; it has decode, sample"):
        small().denoise(torch.zeros(1, 1, 8, 8), 0.1)


def test_config_builds_the_same_prior():
    prior = small((3, 12, 8))
    with torch.random.fork_rng(devices=[]):
        twin = GAN(**prior.config).double()
    twin.load_state_dict(prior.state_dict())
    assert twin.config == prior.config
    assert twin.spread == prior.spread == 0.3
    assert torch.equal(twin.sample(2), prior.sample(2))


def test_network_computes_in_the_dtype_of_autocast_and_images_have_that_of_the_latent():
    prior, seen = small().float(), []
    prior.net.tail.register_forward_hook(lambda module, given, h: seen.append(h.dtype))
    z = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    exact = prior.decode(z)
    prior.autocast = torch.bfloat16
    rounded = prior.decode(z)
    assert seen == [torch.float32, torch.bfloat16]
    assert rounded.dtype == torch.float32
    # bfloat16 rounds by 2^-9, six layers deep; the slope of the sigmoid is at most 1/4
    assert 0 < (rounded - exact).abs().max() < 0.1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image_shape": (1, 28)}, "image_shape is (1, 28): give (C, H, W), whole numbers."),
        ({"image_shape": (1, None, None)}, "image_shape is (1, None, None): give (C, H, W), whole numbers."),
        ({"image_shape": (1, 30, 28)}, "image_shape is (1, 30, 28): give H and W multiples of 4."),
        ({"latent": 0}, "latent is 0: give a whole number, at least 1."),
        ({"spread": -1.0}, "spread is -1.0: give a positive number."),
        ({"widths": ()}, "widths is (): give a list of whole numbers, at least 1."),
        ({"widths": (8, 0)}, "widths is (8, 0): give a list of whole numbers, at least 1."),
        ({"widths": (4, 4, 4, 4)}, "image_shape is (1, 8, 8): give H and W multiples of 16."),
        ({"blocks": 1.5}, "blocks is 1.5: give a whole number."),
        ({"hidden": 0}, "hidden is 0: give a whole number, at least 1."),
    ],
)
def test_arguments_that_make_no_prior_are_refused(wrong, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        GAN(**{"image_shape": (1, 8, 8), **SMALL} | wrong)


@pytest.mark.parametrize("shape", [(6,), (2, 5), (2, 6, 1, 1)])
def test_latents_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=re.escape(f"shape {shape} was given: this GAN takes (B, 6)")):
        small().decode(torch.zeros(shape, dtype=torch.float64))
