"""A restoration tells how plausible it is, and warns only where it is not."""

import warnings

import pytest
import torch

import genprior
from genprior import plausible
from genprior.operators import Blur, Denoise, Measurement, gaussian_kernel
from genprior.priors.base import Prior
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.truth.gaussian import SHAPE, correlated, operators

PRIOR = correlated(SHAPE)
NOISE = 0.1


def restore(measurement, prior=PRIOR, **options):
    return genprior.restore(measurement, prior=prior, **{"seed": 0, "progress": False} | options)


def measured(A, prior=PRIOR, noise=NOISE):
    return genprior.degrade(prior.sample(4, seed=2).clamp(0, 1), A, noise=noise, seed=3)


@pytest.mark.parametrize("name", operators())
@pytest.mark.parametrize("sampler", ["exact", "diffpir", "mmps"])
def test_sound_restorations_never_warn(name, sampler):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        A = operators()[name]
        prior = correlated(A.image_shape)
        result = restore(measured(A, prior), prior, sampler=sampler, n=2)
    assert set(result.diagnostics) >= {"residual", "excess"}
    assert result.diagnostics["residual"].shape == (4, 2)


def test_normal_images_of_a_users_denoiser_never_warn():
    """Some of their 64 values leave 2.5 spreads by chance, as the prior expects."""
    prior = genprior.from_denoiser(
        lambda x_t, sigma: 0.5 + 0.0625 / (0.0625 + sigma**2) * (x_t - 0.5), SHAPE, sigma_min=0.001, sigma_max=10.0
    )
    x = 0.5 + 0.25 * torch.randn(40, *SHAPE, generator=torch.Generator().manual_seed(0))
    y = x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Implausible")
        restore(Measurement(y, Denoise(SHAPE), 0.05), prior, sampler="diffpir", steps=20)


def test_residual_is_what_is_left_of_y_in_multiples_of_the_noise():
    m = measured(Denoise(SHAPE))
    result = restore(m, sampler="exact", n=3)
    by_hand = ((m.y[:, None] - result.samples) / NOISE).square().mean((2, 3, 4)).sqrt()
    torch.testing.assert_close(result.diagnostics["residual"], by_hand.float())
    assert "residual" in str(result)


def test_excess_is_how_far_values_leave_the_prior():
    """Half of the values 4 spreads beyond the reach: sqrt(16 / 2)."""
    prior = Gaussian(torch.full(SHAPE, 0.5), torch.full(SHAPE, 0.01))
    x = torch.full((1, *SHAPE), 0.5)
    x[:, :, ::2] += 0.1 * (plausible.REACH + 4)
    figures = plausible.figures(x, Measurement(x, Denoise(SHAPE), NOISE), prior)
    assert float(figures["excess"]) == pytest.approx(8**0.5, rel=1e-4)
    assert float(figures["residual"]) == 0


@pytest.mark.parametrize("noise", [0.0, 1e-6])
def test_without_noise_what_the_prior_cannot_tell_is_no_residual(noise):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        restore(measured(operators()["inpaint"], noise=noise), sampler="diffpir")


def test_a_noise_that_is_too_small_is_warned_of_at_the_line_of_the_user():
    """A white prior of the noise's own deviation takes half of y for noise: 0.07 of it, where 0.02 was said."""
    prior = Gaussian(torch.full(SHAPE, 0.5), torch.full(SHAPE, 1e-4))
    y = 0.5 + NOISE * torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match=r"Implausible: residual is .*Operator and noise") as caught:
        restore(Measurement(y, Denoise(SHAPE), 0.02), prior)
    assert caught[0].filename == __file__


def test_the_images_that_are_implausible_are_named():
    y = torch.full((3, *SHAPE), 0.5)
    y[1] = 9.0
    with pytest.warns(UserWarning, match="excess of image 1 is"):
        restore(Measurement(y, Denoise(SHAPE), NOISE), sampler="exact")


def test_few_values_may_be_off_by_chance():
    """Of one value of noise alone the residual is |n|, beyond 1.5 in 13 of 100."""
    one = Gaussian(torch.full((1, 1, 1), 0.5), torch.full((1, 1, 1), 1e-8))
    n = torch.randn(200, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for y in 0.5 + NOISE * n:
            restore(Measurement(y[None], Denoise((1, 1, 1)), NOISE), one, sampler="exact")


def test_stripes_of_a_wrong_kernel_are_warned_of():
    """The prior is white, as weak as a network is against stripes: deblurring by a wider kernel amplifies edges."""
    shape = (1, 48, 48)
    prior = Gaussian(torch.full(shape, 0.5), torch.full(shape, 0.06))
    x = torch.full((1, *shape), 0.1)
    x[..., 12:36, 12:36] = 0.9
    right, wrong = (Blur(gaussian_kernel(width), shape, boundary="circular") for width in (1.5, 3.0))
    m = genprior.degrade(x[0], right, noise=0.005, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        restore(m, prior, sampler="diffpir")
    with pytest.warns(UserWarning, match="excess"):
        restore(Measurement(m.y, wrong, 0.005), prior, sampler="diffpir")


class TwoWells(Prior):
    """Modes at 0 and 1 of every pixel, between which no chain crosses."""

    image_shape, centre, spread = (1, 2, 2), 0.5, 0.5

    def log_prob(self, x):
        return -(((x * (x - 1)) / 0.02) ** 2).flatten(1).sum(1)


def test_markov_chains_that_have_not_mixed_are_warned_of():
    y = Measurement(torch.full((1, 1, 2, 2), 0.5), Denoise((1, 2, 2)), 0.5)
    with pytest.warns(UserWarning, match=r"rhat is .*more steps"):
        restore(y, TwoWells(), sampler="hmc", n=8)
    mixed = Gaussian(torch.full((1, 2, 2), 0.5), torch.full((1, 2, 2), 0.1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        restore(y, mixed, sampler="hmc", n=8)
