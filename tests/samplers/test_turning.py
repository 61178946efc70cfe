"""`turning`: each call one of the eight ways, undone again."""

from functools import partial

import pytest
import torch

import genprior
from genprior.noise import Noise
from genprior.operators import Blur, Measurement, SuperResolution
from genprior.operators.inpaint import Inpaint, random_mask
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.samplers import DPIR, OptimalCovariance, find_estimator
from genprior.samplers.turning import turning

SHAPE = (3, 16, 24)


def leaning(x, sigma):
    """A denoiser that all turns change: it smears to the right and, less, downwards."""
    return 0.7 * x + 0.2 * x.roll(1, -1) + 0.1 * x.roll(1, -2)


def test_every_call_turns_the_image_in_another_way():
    """Of one number 1 in the corner, the smear comes out in the eight directions that a square has, each once."""
    x = torch.zeros(1, 1, 5, 5)
    x[..., 2, 2] = 1
    denoise = turning(leaning)
    made = [denoise(x, 0.1) for _ in range(16)]
    assert len({tuple(each.flatten().tolist()) for each in made[:8]}) == 8
    assert all(torch.equal(one, other) for one, other in zip(made[:8], made[8:]))
    assert all(each[..., 2, 2] == 0.7 for each in made)
    torch.testing.assert_close(sum(made[:8]) / 8, sum(made[:8]).flip(-1) / 8)
    torch.testing.assert_close(sum(made[:8]) / 8, sum(made[:8]).mT / 8)


def test_a_denoiser_that_no_turn_changes_is_itself():
    x = Noise(0, [0, 1])(torch.empty(2, *SHAPE))
    denoise = turning(lambda x, sigma: x / (1 + sigma**2))
    for _ in range(8):
        assert torch.equal(denoise(x, 0.5), x / 1.25)


@pytest.mark.parametrize("sampler", [DPIR, partial(OptimalCovariance, integrator="fresh")])
def test_a_prior_that_no_turn_changes_restores_the_same(sampler):
    """A stationary field whose spectrum depends on the larger of two frequencies."""
    f = torch.fft.fftfreq(16, dtype=torch.float64).abs()
    spectrum = (0.02 / (0.05 + torch.maximum(f[:, None], f))).expand(3, -1, -1)
    prior = Gaussian.stationary(torch.full((3, 16, 16), 0.5, dtype=torch.float64), spectrum)
    A = SuperResolution(4, (3, 16, 16))
    measurement = Measurement(A(prior.sample(2, seed=1)), A, 0.02)
    plain, turned = (sampler(steps=9, turns=turns)(prior, measurement, Noise(3, [0, 1])) for turns in (False, True))
    torch.testing.assert_close(turned, plain, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sampler", [DPIR, partial(OptimalCovariance, integrator="fresh")])
def test_images_need_not_be_square(sampler):
    shape = (3, 32, 48)
    A = Inpaint(random_mask(shape, 0.5), shape)
    x = torch.linspace(0, 1, 48).expand(1, *shape)
    found = sampler(steps=4, turns=True)(genprior.load_prior("ddpm-photo"), Measurement(A(x), A, 0.02), Noise(3, [0]))
    assert found.shape == x.shape
    assert (found - x)[A(torch.ones_like(x)) == 1].square().mean().sqrt() < 0.05


def test_pictures_of_photographs_turn_and_have_grain_and_those_of_digits_do_not():
    photo, digits = genprior.load_prior("ddpm-photo"), genprior.load_prior("ddpm-mnist")
    for prior, turns in ((photo, True), (photo.sized(28, 28), True), (digits, False)):
        shape = (prior.image_shape[0], 28, 28)
        for A in (Inpaint(random_mask(shape, 0.5), shape), Blur(torch.ones(3, 3) / 9, shape)):
            estimator = find_estimator(prior, A)
            assert estimator.turns is turns
            if isinstance(A, Blur):
                assert estimator.grain == (0.7 if turns else 0)
