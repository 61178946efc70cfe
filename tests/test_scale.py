"""Mistakes of scale are told, of images, noise and kernels; what is sound passes."""

import warnings

import numpy as np
import pytest
import torch
from skimage import data

import genprior
from genprior.operators import Blur, Composition, Denoise, Matrix, SuperResolution, gaussian_kernel
from genprior.operators.measurement import Measurement
from genprior.scale import warn_of_scale

TASKS = {
    "denoise": {},
    "inpaint": {"mask": "random", "fraction": 0.8},
    "super-resolution": {"scale": 2},
    "gaussian-deblur": {"width": 1.5},
    "motion-deblur": {"length": 7, "angle": 30},
    "colorize": {},
}


def denoiser(x_t, sigma):
    return 0.5 + 0.06 / (0.06 + sigma**2) * (x_t - 0.5)


PRIOR = genprior.from_denoiser(denoiser)


def photograph(size=64):
    return np.float32(data.astronaut()[:size, 200 : 200 + size] / 255)


def warned(measurement, prior=PRIOR):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_scale(measurement, prior)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.2])
@pytest.mark.parametrize("op", TASKS)
def test_mistakes_of_scale_are_told_and_sound_measurements_pass(op, noise):
    sound = genprior.degrade(photograph(), op, noise=noise, seed=1, **TASKS[op])
    assert warned(sound) == []
    (message,) = warned(Measurement(255 * sound.y, sound.operator, 255 * noise if noise < 0.01 else noise))
    assert "Divide 0..255 by 255" in message
    if noise < 0.1:
        (message,) = warned(Measurement(2 * sound.y - 1, sound.operator, 2 * noise))
        assert "map -1..1" in message


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_black_and_white_images_pass_even_where_the_noise_is_taken_too_low(value):
    y = value + 0.05 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert warned(Measurement(y, Denoise((3, 64, 64)), 0.03)) == []


def test_operators_with_negative_weights_are_judged_by_what_they_make():
    A = Matrix(torch.randn(40, 64, generator=torch.Generator().manual_seed(0)), (1, 8, 8))
    x = torch.from_numpy(photograph(8)).mean(-1)[None, None]
    prior = genprior.from_denoiser(denoiser, (1, None, None))
    assert warned(Measurement(A(x), A, 0.01), prior) == []
    assert len(warned(Measurement(255 * A(x), A, 0.01), prior)) == 1


def test_the_image_of_a_batch_that_is_wrong_is_named():
    y = torch.from_numpy(photograph()).movedim(-1, 0)[None].repeat(3, 1, 1, 1)
    y[1] *= 255
    (message,) = warned(Measurement(y, Denoise((3, 64, 64)), 0.05))
    assert "of image 1 " in message


def test_priors_of_images_elsewhere_are_asked_nothing():
    far = genprior.GaussianMixture(torch.ones(1), torch.full((1, 1, 8, 8), 300.0), torch.ones(1, 8, 8))
    about_zero = genprior.Gaussian(torch.zeros(1, 8, 8), torch.full((1, 8, 8), 0.1))
    for prior in (far, about_zero):
        assert warned(Measurement(prior.sample(1), Denoise((1, 8, 8)), 2.0), prior) == []


@pytest.mark.parametrize("call", [genprior.restore, genprior.evidence])
def test_restore_and_evidence_tell_where_they_were_called(call):
    grey = photograph(28).mean(-1)
    more = {"progress": False, "seed": 0} if call is genprior.restore else {}
    with pytest.warns(UserWarning, match=r"noise is 25.*give 0.098") as caught:
        call(grey, "denoise", "gaussian", noise=25, **more)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="Divide 0..255"):
        call(255 * grey, "denoise", "gaussian", noise=0.1, **more)


def test_kernels_that_do_not_sum_to_one_are_told_by_name_and_not_as_operators():
    kernel, y = gaussian_kernel(1.0), photograph(32)
    given = {"prior": denoiser, "noise": 0.05, "steps": 2, "n": 1, "seed": 0, "progress": False}
    with pytest.warns(UserWarning, match="kernel sums to 255"):
        genprior.restore(y, "deblur", kernel=255 * kernel, **given)
    with pytest.warns(UserWarning, match="kernel sums to 0.5"):
        genprior.degrade(y, "deblur", kernel=[kernel / 2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = genprior.restore(y, "deblur", kernel=kernel, **given)
        Blur(kernel / 2, (3, 32, 32))
        Composition(Denoise((3, 16, 16)), SuperResolution(2, (3, 32, 32)))
    counts = (1000 * kernel / kernel.max()).round().long()
    floats = genprior.restore(y, "deblur", kernel=counts / counts.sum(), **given)
    for integers in (counts, counts.numpy(), [counts]):
        with pytest.warns(UserWarning, match="integers, of sum"):
            scaled = genprior.restore(y, "deblur", kernel=integers, **given)
        torch.testing.assert_close(scaled.samples, floats.samples)
        torch.testing.assert_close(scaled.mean, floats.mean)
    assert float((scaled.samples - plain.samples).abs().max()) < 0.01
