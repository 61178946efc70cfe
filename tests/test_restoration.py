"""`degrade` and `restore`, judged by Gaussian priors, whose posteriors are known in closed form."""

import dataclasses
import inspect
import io
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import genprior
from genprior import devices, drawing, images
from genprior.checks import UnsupportedError
from genprior.files import write_folder
from genprior.operators import Blur, Colorize, Denoise, Inpaint, Matrix, Measurement, gaussian_kernel, random_mask
from genprior.operators.build import FOR_IMAGE, FOR_MEASUREMENT, MASKS
from genprior.priors import store
from genprior.priors.base import Prior
from genprior.priors.ddpm import DDPM
from genprior.priors.folder import write_prior
from genprior.priors.gaussian.field import GaussianField
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.priors.wrappers.given import Given
from genprior.samplers import SAMPLERS
from genprior.samplers.guidance.diffpir import DiffPIR

H, W = 6, 5
# Exact draws are made in float32 from an SVD in float64: what should be equal differs by a few roundings of 1.
ROUNDING = 2e-5


def gaussian(channels=1, height=H, width=W):
    """Neighbours correlate by exp(-distance / 2), channels by 0.6, standard deviation 0.2."""
    i, j = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    points = torch.stack([i.flatten(), j.flatten()], 1).double()
    pixels = torch.exp(-torch.cdist(points, points) / 2)
    colours = 0.4 * torch.eye(channels, dtype=torch.float64) + 0.6
    mean = torch.linspace(0.3, 0.7, channels * height * width).reshape(channels, height, width)
    return Gaussian(mean, 0.04 * torch.kron(colours, pixels))


GREY, RGB = gaussian(1), gaussian(3)
MASK = random_mask((H, W), 0.5, seed=3)[0].numpy()


def photo(channels=1, seed=0):
    """(C, H, W) with values away from 0 and 1."""
    return 0.2 + 0.6 * torch.rand(channels, H, W, generator=torch.Generator().manual_seed(seed))


def restore(img, op="inpaint", prior=GREY, **options):
    return genprior.restore(img, op, prior, **{"noise": 0.1, "seed": 0, "progress": False, **options})


def in_one(draws):
    return draws.double().flatten(1)


# ---- the distribution ----


@pytest.mark.parametrize("op", ["inpaint", "denoise", "matrix"])
def test_samples_have_the_mean_and_covariance_of_the_posterior(op):
    n, y = 4000, photo()
    if op == "inpaint":
        A, result = Inpaint(torch.from_numpy(MASK), (1, H, W)), restore(y, mask=MASK, n=n)
    elif op == "denoise":
        A, result = Denoise((1, H, W)), restore(y, "denoise", n=n)
    else:
        M = torch.randn(7, H * W, generator=torch.Generator().manual_seed(1)) / 4
        A, y = Matrix(M, (1, H, W)), torch.linspace(-1, 1, 7).reshape(7, 1, 1)
        result = restore(y, A, n=n)
    eye = torch.eye(H * W).reshape(-1, 1, H, W)
    M, S, m = (
        A(eye).flatten(1).T.double(),
        GREY.covariance.filter(eye, GREY.covariance.eigenvalues).flatten(1).double(),
        0,
    )
    m = GREY.mean.flatten().double()
    gain = S @ M.T @ torch.linalg.inv(M @ S @ M.T + 0.01 * torch.eye(len(M)).double())
    mean, covariance = m + gain @ (y.flatten().double() - M @ m), S - gain @ M @ S
    draws = in_one(result.samples)
    deviation = covariance.diagonal().sqrt()
    # 30 means and 30 variances: chance exceeds 4.5 standard deviations once in 2000.
    assert ((draws.mean(0) - mean).abs() < 4.5 * deviation / math.sqrt(n)).all()
    assert ((draws.var(0) / deviation**2 - 1).abs() < 4.5 * math.sqrt(2 / n)).all()
    correlation = torch.corrcoef(draws.T) - covariance / deviation.outer(deviation)
    assert correlation.abs().max() < 5.5 / math.sqrt(n)


def test_grey_image_with_a_colour_prior_is_the_mean_of_three_equal_channels():
    n, y = 4000, photo()
    result = restore(y, "denoise", RGB, n=n)
    # The closed form for x of three channels, each measured as y with noise sqrt(3) 0.1, averaged over channels by B.
    D = H * W
    S = RGB.covariance.filter(torch.eye(3 * D).reshape(-1, 3, H, W), RGB.covariance.eigenvalues).flatten(1).double()
    gain = S @ torch.linalg.inv(S + 3 * 0.01 * torch.eye(3 * D).double())
    m = RGB.mean.flatten().double()
    B = torch.eye(D).double().repeat(1, 3) / 3
    mean = B @ (m + gain @ (y.flatten().repeat(3).double() - m))
    variance = (B @ (S - gain @ S) @ B.T).diagonal()
    draws = in_one(result.samples)
    assert result.samples.shape == (n, 1, H, W)
    assert ((draws.mean(0) - mean).abs() < 4.5 * (variance / n).sqrt()).all()
    assert ((draws.var(0) / variance - 1).abs() < 4.5 * math.sqrt(2 / n)).all()


def test_nothing_but_holes_gives_draws_from_the_prior():
    n = 4000
    draws = in_one(restore(photo(), mask=np.ones((H, W)), n=n).samples)
    variance = GREY.covariance.filter(torch.eye(H * W).reshape(-1, 1, H, W), GREY.covariance.eigenvalues)
    variance = variance.flatten(1).diagonal()
    assert ((draws.mean(0) - GREY.mean.flatten()).abs() < 4.5 * (variance / n).sqrt()).all()
    assert ((draws.var(0) / variance - 1).abs() < 4.5 * math.sqrt(2 / n)).all()


def test_nothing_but_holes_has_no_noise_to_estimate():
    y = torch.zeros(1, H, W)
    result = genprior.restore(y, "inpaint", GREY, n=1, mask=torch.ones(1, H, W), seed=0)
    stated = genprior.restore(y, "inpaint", GREY, n=1, mask=torch.ones(1, H, W), noise=0.0, seed=0)
    assert result.measurement.noise == 0
    assert torch.equal(result.samples, stated.samples)
    assert torch.equal(result.mean, stated.mean)


def test_no_hole_at_all_is_denoising():
    whole, noisy = restore(photo(), mask=np.zeros((H, W)), n=1), restore(photo(), "denoise", n=1)
    assert torch.equal(whole.samples, noisy.samples)
    assert torch.equal(whole.mean, noisy.mean)


def test_prior_sample_measurement_noise_and_draw_of_one_seed_owe_nothing_to_each_other():
    n, flat, zero = 400, Gaussian(torch.zeros(1, 20, 20), torch.ones(1, 20, 20)), torch.zeros(1, 20, 20) + 0.5
    y = genprior.degrade(zero, "denoise", noise=1.0, seed=5)
    draw = genprior.restore(y, prior=flat, sampler="exact", noise=1e3, seed=5, progress=False).samples[0]
    three = torch.stack([draw.flatten(), y.y.flatten(), flat.sample(1, seed=5).flatten()])
    # the correlation of n independent pairs has the standard deviation 1 / sqrt(n)
    assert (torch.corrcoef(three) - torch.eye(3)).abs().max() < 4 / math.sqrt(n)


def test_degrade_is_the_operator_and_white_noise_of_the_stated_deviation():
    x = photo(3).repeat(1, 20, 20)
    m = genprior.degrade(x, "gaussian-deblur", width=1.0, noise=0.1, seed=0)
    exact = Blur(gaussian_kernel(1.0), tuple(x.shape))(x[None])
    n = (m.y - exact) / 0.1
    assert m.noise == 0.1
    assert abs(n.var() - 1) < 4 * math.sqrt(2 / n.numel())
    assert torch.equal(m.y, genprior.degrade(x, "gaussian-deblur", width=1.0, noise=0.1, seed=0).y)
    assert not torch.equal(m.y, genprior.degrade(x, "gaussian-deblur", width=1.0, noise=0.1, seed=1).y)


def test_what_is_measured_is_not_clipped():
    x = torch.tensor([0.0, 1.0]).repeat(1, 20, 10)
    y = genprior.degrade(x, "denoise", noise=0.1, seed=0).y[0]
    # half of the 200 values at either end are outside: 5 standard deviations of that count are 0.18 of them
    assert abs((y[x == 0] < 0).float().mean() - 0.5) < 0.18
    assert abs((y[x == 1] > 1).float().mean() - 0.5) < 0.18


# ---- randomness ----


def test_same_seed_gives_the_same_bytes_and_another_does_not():
    a, b, c = (restore(photo(), mask=MASK, n=2, seed=seed).samples for seed in (7, 7, 8))
    assert torch.equal(a, b)
    assert not torch.allclose(a, c, atol=1e-2)


def test_a_fresh_seed_is_reported_and_reproduces():
    a, b = (restore(photo(), mask=MASK, seed=None, n=1) for _ in range(2))
    assert a.seed != b.seed
    assert not torch.equal(a.samples, b.samples)
    assert torch.equal(a.samples, restore(photo(), mask=MASK, seed=a.seed, n=1).samples)


def test_sample_k_of_image_i_depends_on_nothing_else(monkeypatch):
    y = torch.stack([photo(seed=s) for s in range(3)])
    whole = restore(y, mask=MASK, n=4).samples
    assert whole.shape == (3, 4, 1, H, W)
    torch.testing.assert_close(restore(y, mask=MASK, n=2).samples, whole[:, :2], atol=ROUNDING, rtol=0)
    torch.testing.assert_close(restore(y[:1], mask=MASK, n=4).samples, whole[0], atol=ROUNDING, rtol=0)
    other = restore(torch.stack([y[0], y[0], y[2]]), mask=MASK, n=4).samples
    torch.testing.assert_close(other[[0, 2]], whole[[0, 2]], atol=ROUNDING, rtol=0)
    assert (other[1] - whole[1]).abs().max() > 0.1
    assert (other[1] - other[0]).abs().max() > 0.1
    monkeypatch.setitem(devices.PIXELS_AT_ONCE, "cpu", 5 * H * W)  # 12 chains in chunks of 5, 5, 2
    torch.testing.assert_close(restore(y, mask=MASK, n=4).samples, whole, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("sampler", ["diffpir", "mmps"])
def test_chunks_do_not_change_what_iterative_samplers_draw(sampler, monkeypatch):
    y = torch.stack([photo(seed=s) for s in range(2)])
    masks = [MASK, ~MASK]
    options = {
        "mask": masks,
        "n": 3,
        "sampler": sampler,
        "steps": 5,
        "noise": torch.tensor([0.1, 0.2]).reshape(2, 1, 1, 1),
    }
    whole = restore(y, **options).samples
    monkeypatch.setitem(devices.PIXELS_AT_ONCE, "cpu", 1)  # one chain at a time
    # five steps of matrix products in float32, which a batch of another size rounds otherwise
    torch.testing.assert_close(restore(y, **options).samples, whole, atol=1e-4, rtol=0)


def test_global_random_state_is_left_alone():
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    restore(genprior.degrade(photo(), "inpaint", mask="random", fraction=0.4, noise=0.1))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


# ---- where the holes are ----


def test_holes_are_the_mask_and_nan_and_transparency():
    y = photo(3)
    expected = restore(y, prior=RGB, n=1, mask=MASK).samples
    nan = torch.where(torch.from_numpy(MASK), torch.nan, y)
    assert torch.equal(restore(nan, prior=RGB, n=1).samples, expected)
    one_channel = y.clone()
    one_channel[1, MASK] = torch.nan
    assert torch.equal(restore(one_channel, prior=RGB, n=1).samples, expected)
    left, right = MASK.copy(), MASK.copy()
    left[:, :3], right[:, 3:] = False, False
    both = torch.where(torch.from_numpy(left), torch.nan, y)
    assert torch.equal(restore(both, prior=RGB, n=1, mask=right).samples, expected)
    rgba = torch.cat([y, torch.from_numpy(~MASK)[None].float()]).movedim(0, -1).numpy()
    result = restore(rgba, prior=RGB, n=1)
    assert torch.equal(result.samples, expected)
    # what was filled is opaque, what was opaque stays so
    assert result.image.shape == (H, W, 4)
    assert (result.image[..., 3] == 1).all()


def test_partial_opacity_outside_the_holes_comes_back():
    alpha = np.where(MASK, 0, 128).astype(np.uint8)
    rgba = np.dstack([(photo(3).movedim(0, -1).numpy() * 255).astype(np.uint8), alpha])
    back = restore(Image.fromarray(rgba), prior=RGB).image
    assert back.mode == "RGBA"
    np.testing.assert_array_equal(np.asarray(back)[..., 3], np.where(MASK, 255, 128))


def test_values_under_the_holes_mean_nothing():
    y = photo()
    trash = torch.where(torch.from_numpy(MASK), 77.0, y)
    assert torch.equal(restore(trash, mask=MASK, n=1).samples, restore(y, mask=MASK, n=1).samples)
    assert torch.equal(restore(trash, mask=MASK).mean, restore(y, mask=MASK).mean)


def test_images_may_have_masks_of_their_own():
    y, masks = torch.stack([photo(seed=s) for s in range(2)]), [MASK, ~MASK]
    result = restore(y, mask=masks, noise=0, n=1)
    for pictures in (result.samples[:, 0, 0], result.mean[:, 0]):
        for x, y_i, mask in zip(pictures, y[:, 0], masks):
            assert torch.equal(x[~mask], y_i[~mask])
            assert (x[mask] - y_i[mask]).abs().min() > 0


# ---- noise ----


def test_known_pixels_come_back_exactly_where_an_image_has_no_noise():
    """Whatever noise the other images of the batch have."""
    prior = genprior.Gaussian(torch.full((1, 6, 6), 0.5), torch.full((1, 6, 6), 0.06))
    y = torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, 6, 6, dtype=torch.bool)
    mask[:, 2:4, 1:5] = True
    options = {"prior": prior, "mask": mask, "sampler": "mmps", "steps": 5, "n": 2, "seed": 1, "progress": False}
    samples = genprior.restore(list(y), noise=[0.0, 0.1, 0.0], **options).samples
    known = ~mask.expand(1, 6, 6)
    for i in (0, 2):
        assert torch.equal(samples[i][:, known], y[i][known].expand(2, -1))
    assert (samples[1][:, known] - y[1][known]).abs().max() > 0.01
    alone = genprior.restore(y[0], noise=0.0, **options).samples
    torch.testing.assert_close(samples[0], alone, rtol=0, atol=1e-5)


def test_noise_is_estimated_of_the_images_that_were_measured():
    """An image that is all holes has none, and leaves the others theirs."""
    prior = genprior.Gaussian(torch.full((1, 24, 24), 0.5), torch.full((1, 24, 24), 0.06))
    y = 0.5 + 0.1 * torch.randn(2, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(2, 1, 24, 24, dtype=torch.bool)
    masks[0, :, :4], masks[1] = True, True
    options = {"prior": prior, "sampler": "exact", "progress": False}
    noise = genprior.restore(y, mask=masks, **options).measurement.noise
    alone = genprior.restore(y[0], mask=masks[0], **options).measurement.noise
    assert noise.flatten().tolist() == [float(alone), 0.0]


def test_without_noise_the_known_pixels_come_back_exactly():
    y = photo(3) * 3 - 1
    result = restore(y, prior=RGB, mask=MASK, noise=0, n=3)
    assert torch.equal(result.samples[:, :, ~MASK], y[:, ~MASK].expand(3, -1, -1))
    assert torch.equal(result.mean[:, ~MASK], y[:, ~MASK])
    assert result.measurement.noise == 0
    noisy = restore(y, prior=RGB, mask=MASK, noise=0.01, n=3)
    assert not torch.equal(noisy.samples[:, :, ~MASK], y[:, ~MASK].expand(3, -1, -1))
    assert not torch.equal(noisy.mean[:, ~MASK], y[:, ~MASK])


def test_integers_are_known_to_the_last_grey_level():
    y = np.arange(H * W, dtype=np.uint8).reshape(H, W) * 8
    back = restore(y, mask=MASK, noise=0).image
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back[~MASK], y[~MASK])


def test_a_measurement_out_of_range_is_not_clipped():
    y = 40 * photo() - 20
    result = restore(y, "denoise", noise=0.001, n=1)
    # noise 0.001 against a prior sd of at least 0.05 in any direction moves y by (0.001 / 0.05)^2 of |y - m| < 20
    assert (result.samples[0] - y).abs().max() < 20 * 4e-4 * 3 + 5 * 0.001
    assert (result.mean - y).abs().max() < 20 * 4e-4 * 3
    assert torch.equal(result.image, result.mean.clamp(0, 1))


def test_noise_is_estimated_when_it_is_not_given_and_says_so():
    y = torch.full((1, 20, 20), 0.5) + 0.08 * torch.randn(1, 20, 20, generator=torch.Generator().manual_seed(0))
    prior = Gaussian(torch.full((1, 20, 20), 0.5), torch.full((1, 20, 20), 0.04))
    result = genprior.restore(y, "denoise", prior, seed=0, progress=False)
    assert result.noise_was_estimated
    # the median of 324 dependent details: 1.17 / sqrt(324 / 9) is a generous standard deviation of its relative error
    assert abs(float(result.measurement.noise) / 0.08 - 1) < 3 * 1.17 / 6
    assert "estimated" in str(result)
    assert "estimated" not in str(restore(y, "denoise", prior, noise=0.08))


def test_measurement_brings_operator_and_noise():
    m = genprior.degrade(photo(), "inpaint", mask=MASK, noise=0.1, seed=2)
    a = genprior.restore(m, prior=GREY, n=1, seed=0)
    b = restore(m.y[0], mask=MASK, noise=0.1, n=1)
    assert torch.equal(a.samples, b.samples)
    assert torch.equal(a.mean, b.mean)
    assert not a.noise_was_estimated
    quieter = genprior.restore(m, prior=GREY, noise=0.01, seed=0)
    assert quieter.measurement.noise == 0.01
    assert a.image.shape == b.image.shape == (1, H, W)


# ---- operators given as objects ----


def test_operator_object_takes_y_with_and_without_batch_axis():
    A, y = Colorize((3, H, W)), photo()
    alone = restore(y, A, RGB, n=1)
    assert alone.samples.shape == (1, 3, H, W)
    assert torch.equal(alone.samples, restore(y, "colorize", RGB, n=1).samples)
    batched = restore(y[None], A, RGB, n=1)
    assert torch.equal(batched.samples, alone.samples)
    assert alone.image.shape == (3, H, W)
    assert batched.image.shape == (1, 3, H, W)
    from_numpy = restore(y.double().numpy(), A, RGB).image
    assert from_numpy.dtype == np.float64
    np.testing.assert_allclose(from_numpy, alone.image.numpy(), atol=1e-7)


def test_image_is_clipped_whatever_was_given():
    y = 40 * photo() - 20
    for result in (restore(y, Denoise((1, H, W)), n=1), restore(Measurement(y[None], Denoise((1, H, W)), 0.1), n=1)):
        assert result.samples.max() > 1.5
        assert result.mean.max() > 1.5
        assert 0 <= result.image.min() <= result.image.max() <= 1


def test_valid_blur_gives_the_frame_aligned_with_y():
    # a kernel of one bright point off its centre: y is x shifted, and x aligned with y is y shifted back
    kernel = np.zeros((3, 3), dtype=np.float32)
    kernel[0, 2] = 1
    result = restore(photo(), "deblur", gaussian(1, H + 2, W + 2), kernel=kernel, noise=1e-3, n=1)
    assert result.samples.shape == (1, 1, H, W)
    # y[i, j] = x[i + 1, j - 1] in the frame; noise 1e-3 against sd 0.2
    torch.testing.assert_close(result.samples[0, 0, 1:, :-1], photo()[0, :-1, 1:], atol=0.01, rtol=0)


def test_deepinv_physics_is_an_operator():
    deepinv = pytest.importorskip("deepinv")
    mask = torch.from_numpy(~MASK).float()[None]
    physics = deepinv.physics.Inpainting(
        (1, H, W), mask=mask, noise_model=deepinv.physics.GaussianNoise(0.1), device="cpu"
    )
    y = mask * photo()
    result = restore(y, physics, noise=None)
    assert float(result.measurement.noise) == pytest.approx(0.1)
    assert not result.noise_was_estimated
    # Both are draws of one posterior from the same noise; the SVD may choose other bases, so means are compared.
    n, ours = 1000, restore(y, mask=MASK, n=1000)
    theirs = restore(y, physics, noise=None, n=n)
    assert ((theirs.samples - ours.samples).mean(0).abs() < 5 * ours.std * math.sqrt(2 / n) + 1e-6).all()
    torch.testing.assert_close(theirs.mean, ours.mean, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("y", [photo(), photo().double().numpy(), photo()[None]])
def test_physics_that_does_not_say_its_size_measures_what_has_the_shape_of_y(y):
    deepinv = pytest.importorskip("deepinv")
    samples = restore(y, deepinv.physics.Denoising(), n=1).samples
    # the same posterior mean, by conjugate gradients on other noise: draws of the same seed differ by bases only
    torch.testing.assert_close(samples, restore(photo(), Denoise((1, H, W)), n=1).samples, atol=1e-4, rtol=0)


def test_physics_that_changes_the_shape_has_that_of_its_images_from_its_adjoint():
    deepinv = pytest.importorskip("deepinv")
    kernel = torch.zeros(1, 1, 3, 3)
    kernel[..., 1, 1] = 1
    physics, y = deepinv.physics.Blur(filter=kernel, padding="valid"), photo(1)[:, 1:-1, 1:-1]
    fails(ValueError, r"measures \(1, 2, 1\); give y in that shape", y, physics, image_shape=tuple(y.shape))
    fails(ValueError, "takes image_shape only", y, physics, scale=2)
    result = restore(y, physics, noise=1e-3, n=1)
    assert torch.equal(result.samples, restore(y, physics, image_shape=(1, H, W), noise=1e-3, n=1).samples)
    # noise 1e-3 against a deviation of 0.2: 5 of them
    torch.testing.assert_close(result.samples[0, :, 1:-1, 1:-1], y, atol=5e-3, rtol=0)
    assert torch.equal(genprior.degrade(photo(), physics).y[0], y)


def test_measurement_of_an_operator_keeps_double_precision():
    y = photo().double() + 1e-10
    assert torch.equal(restore(y, Denoise((1, H, W))).measurement.y[0], y)
    half = photo().half()
    assert torch.equal(restore(half, Denoise((1, H, W))).measurement.y[0], half.float())


# ---- the result ----


KINDS = {
    "path": lambda array, folder: _written(array, folder / "y.png"),
    "PIL": lambda array, _: Image.fromarray(array),
    "uint8": lambda array, _: array,
    "uint16": lambda array, _: array.astype(np.uint16) * 257,
    "float32": lambda array, _: array.astype(np.float32) / 255,
    "float64": lambda array, _: array / 255,
    "CHW": lambda array, _: torch.from_numpy(array).movedim(-1, 0).float() / 255,
    "BCHW": lambda array, _: torch.from_numpy(array).movedim(-1, 0).float()[None] / 255,
    "float64 CHW": lambda array, _: torch.from_numpy(array).movedim(-1, 0).double() / 255,
    "list": lambda array, _: [Image.fromarray(array)],
}


def _written(array, path):
    Image.fromarray(array).save(path)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_kind_comes_back(kind, tmp_path):
    array = (photo(3).movedim(0, -1).numpy() * 255).astype(np.uint8)
    given = KINDS[kind](array, tmp_path)
    back = restore(given, prior=RGB, mask=MASK, noise=0).image
    if kind in ("path", "PIL", "list"):
        back = back[0] if kind == "list" else back
        assert isinstance(back, Image.Image)
        assert back.mode == "RGB"
        back, given = np.asarray(back), array
    assert back.dtype == given.dtype
    assert back.shape == given.shape
    known = np.broadcast_to(~MASK if "CHW" in kind else ~MASK[..., None], given.shape)
    assert type(back) is type(given)
    # values are float32 inside
    atol = 2**-25 if kind.startswith("float64") else 0
    np.testing.assert_allclose(np.asarray(back)[known], np.asarray(given)[known], rtol=0, atol=atol)
    assert not np.array_equal(np.asarray(back), np.asarray(given))


def test_mean_and_deviation_of_a_named_sampler_are_those_of_the_samples():
    one = restore(photo(), mask=MASK, n=5, sampler="exact")
    several = restore(torch.stack([photo(), photo()]), mask=MASK, n=5, sampler="exact")
    assert one.mean.shape == one.std.shape == (1, H, W)
    assert several.mean.shape == several.std.shape == (2, 1, H, W)
    torch.testing.assert_close(several.mean[0], one.samples.sum(0) / 5)
    torch.testing.assert_close(one.std, ((one.samples - one.mean).square().sum(0) / 4).sqrt())
    assert one.estimator is None
    auto = restore(photo(), mask=MASK, n=5)  # the samples are the same, the picture is not their mean
    torch.testing.assert_close(auto.std, one.std)
    assert (auto.mean - one.mean).abs().max() > 0.01
    assert torch.equal(restore(photo(), mask=MASK, n=1).std, torch.zeros(1, H, W))


# ---- the picture and the draws ----


def test_the_picture_alone_has_no_draws_and_says_how_to_get_them():
    result = restore(photo(), mask=MASK)
    assert (result.n, result.sampler, str(result.estimator)) == (0, None, "ExactMean()")
    for ask in (
        lambda: result.samples,
        lambda: result.std,
        lambda: result.quantile(0.5),
        lambda: result.interval(0.9),
    ):
        with pytest.raises(UnsupportedError, match=r"has a picture only.*by ExactMean\(\).*restore\(…, n=8\)"):
            ask()
    assert restore(photo(), mask=MASK, n=8).n == 8


# One method for the picture of each kind: by closed form, by one evaluation, by several, by the draws' own mean.
PICTURES = {
    "closed form": (lambda: GREY, "inpaint", {"mask": MASK}, "ExactMean"),
    "one evaluation": (lambda: known_by_denoiser(GREY), "denoise", {}, "PosteriorMean"),
    "blur": (lambda: known_by_denoiser(GREY), "gaussian-deblur", {"width": 0.5, "boundary": "circular"}, "DPIR"),
    "measured holes": (lambda: Measured(GREY), "inpaint", {"mask": MASK}, "OptimalCovariance"),
    "measured blur": (lambda: Measured(GREY), "gaussian-deblur", {"width": 0.5, "boundary": "circular"}, "DPIR"),
}


def known_by_denoiser(prior):
    return genprior.from_denoiser(lambda x_t, sigma: prior.denoise(x_t, sigma), (1, H, W))


class Measured(Prior):
    """A Gaussian known by its denoiser and what that leaves, but not in closed form."""

    def __init__(self, gaussian):
        super().__init__()
        self.gaussian = gaussian
        for name in ("image_shape", "centre", "spread", "sigma_min", "sigma_max"):
            setattr(self, name, getattr(gaussian, name))

    def denoise(self, x_t, sigma):
        return self.gaussian.denoise(x_t, sigma)

    def posterior_covariance(self, sigma):
        return self.gaussian.posterior_covariance(sigma)


@pytest.mark.parametrize("kind", PICTURES)
def test_the_picture_is_the_same_at_every_n_and_draw_k_too(kind):
    make, op, parameters, method = PICTURES[kind]
    prior = make()
    alone, one, four = (restore(photo(), op, prior, n=n, **parameters) for n in (None, 1, 4))
    for result in (alone, one, four):
        assert type(result.estimator).__name__ == method
        assert torch.equal(result.mean, alone.mean)
        assert torch.equal(result.image, alone.image)
    drawn = {"closed form": "Exact"}.get(kind, "OptimalCovariance" if "measured" in kind else "DiffPIR")
    assert type(one.sampler).__name__ == type(four.sampler).__name__ == drawn
    torch.testing.assert_close(four.samples[:1], one.samples, atol=ROUNDING, rtol=0)
    assert (four.samples[1] - four.samples[0]).abs().max() > 0.01
    assert (four.samples.mean(0) - four.mean).abs().max() > 1e-3
    assert (four.samples - four.mean).flatten(1).abs().amax(1).min() > 0.01
    # each is paid for once
    picture, draw = alone.network_evaluations, one.sampler.evaluations
    assert [r.network_evaluations for r in (one, four)] == [picture + draw, picture + 4 * draw]
    assert picture == alone.estimator.evaluations


def test_holes_without_a_covariance_have_the_mean_of_their_draws():
    prior = known_by_denoiser(GREY)
    one, four = (restore(photo(), "inpaint", prior, mask=MASK, n=n) for n in (None, 4))
    for result in (one, four):
        assert result.estimator is None
        assert type(result.sampler).__name__ == "DiffPIR"
    assert one.n == 1
    torch.testing.assert_close(four.mean, four.samples.mean(0))


def test_a_named_sampler_gives_one_draw_unless_told_and_the_picture_is_their_mean():
    one, four = (restore(photo(), mask=MASK, sampler="diffpir", n=n) for n in (None, 4))
    assert (one.n, four.n, one.estimator, four.estimator) == (1, 4, None, None)
    assert torch.equal(one.mean, one.samples[0])
    torch.testing.assert_close(four.mean, four.samples.mean(0))
    assert [r.network_evaluations for r in (one, four)] == [one.sampler.evaluations, 4 * one.sampler.evaluations]


@pytest.mark.parametrize("op", ["inpaint", "denoise", "blur"])
def test_the_picture_of_a_gaussian_is_the_mean_of_the_exact_posterior(op):
    y = photo(3)
    A = {
        "inpaint": Inpaint(torch.from_numpy(MASK), (3, H, W)),
        "denoise": Denoise((3, H, W)),
        "blur": Blur(gaussian_kernel(0.5), (3, H, W), "circular"),
    }[op]
    M = A(torch.eye(3 * H * W).reshape(-1, 3, H, W)).flatten(1).T.double()
    S = RGB.covariance.filter(torch.eye(3 * H * W).reshape(-1, 3, H, W), RGB.covariance.eigenvalues).flatten(1).double()
    m = RGB.mean.flatten().double()
    y = torch.where(torch.from_numpy(MASK), 0.0, y) if op == "inpaint" else y
    mean = m + S @ M.T @ torch.linalg.solve(
        M @ S @ M.T + 0.01 * torch.eye(len(M)).double(), y.flatten().double() - M @ m
    )
    result = restore(y, A, RGB)
    torch.testing.assert_close(result.mean.double().flatten(), mean, atol=ROUNDING, rtol=0)


def test_array_is_the_image_in_the_layout_given():
    y = 5 * photo(3) - 2
    result = restore(y, "denoise", RGB, n=2)
    np.testing.assert_array_equal(np.asarray(result), result.mean.clamp(0, 1).numpy())
    last = restore(y.movedim(0, -1).numpy(), "denoise", RGB, n=2)
    np.testing.assert_array_equal(np.asarray(last), np.asarray(result).transpose(1, 2, 0))
    eight_bits = [Image.fromarray((photo(3, seed).movedim(0, -1).numpy() * 255).astype(np.uint8)) for seed in (0, 1)]
    result = restore(eight_bits, "denoise", RGB)
    np.testing.assert_array_equal(np.asarray(result), np.stack([np.asarray(image) for image in result.image]))
    assert np.asarray(result).dtype == np.uint8
    assert np.asarray(restore(photo(), "denoise"), dtype=np.float64).dtype == np.float64


def test_save_never_overwrites_unless_told(tmp_path):
    result = restore(photo(3), "denoise", RGB, noise=0.01)
    assert result.save(tmp_path / "a.png") == [tmp_path / "a.png"]
    written = np.asarray(Image.open(tmp_path / "a.png"))
    np.testing.assert_array_equal(written, np.rint(np.asarray(result) * 255).transpose(1, 2, 0))
    bytes_before = (tmp_path / "a.png").read_bytes()
    other = restore(photo(3, seed=1), "denoise", RGB, noise=0.01)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        other.save(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == bytes_before
    other.save(tmp_path / "a.png", overwrite=True)
    assert (tmp_path / "a.png").read_bytes() != bytes_before


def test_several_images_are_saved_to_a_folder_all_or_none(tmp_path):
    result = restore(torch.stack([photo(), photo(seed=1)]), "denoise")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "1.png").touch()
    with pytest.raises(FileExistsError, match=r"1\.png"):
        result.save(tmp_path / "out")
    assert not (tmp_path / "out" / "0.png").exists()
    assert result.save(tmp_path / "new") == [tmp_path / "new" / "0.png", tmp_path / "new" / "1.png"]
    np.testing.assert_array_equal(
        np.asarray(Image.open(tmp_path / "new" / "1.png")), np.rint(result.mean[1, 0].clamp(0, 1).numpy() * 255)
    )


def test_alpha_is_saved_with_the_image(tmp_path):
    rgba = np.dstack([np.full((H, W, 3), 99, np.uint8), np.where(MASK, 0, 128).astype(np.uint8)])
    for name, given in (("alone", Image.fromarray(rgba)), ("in a list", [Image.fromarray(rgba)])):
        restore(given, prior=RGB).save(tmp_path / f"{name}.png")
        assert Image.open(tmp_path / f"{name}.png").mode == "RGBA"


def test_png_shows_the_mean():
    result = restore(photo(3), "denoise", RGB, n=2)
    shown = np.asarray(Image.open(io.BytesIO(result._repr_png_())))
    np.testing.assert_array_equal(shown, np.rint(np.asarray(result) * 255).transpose(1, 2, 0))


def test_what_is_no_picture_has_no_png():
    two = gaussian(2)
    assert restore(photo(2), "denoise", two)._repr_png_() is None


def test_sixteen_bits_are_saved_where_the_format_has_them(tmp_path):
    grey = (photo()[0].numpy() * 65535).astype(np.uint16)
    result = restore(grey, mask=MASK, noise=0)
    result.save(tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), result.image)
    np.testing.assert_array_equal(result.image[~MASK], grey[~MASK])
    result.save(tmp_path / "a.bmp")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.bmp")), np.rint(result.image / 257))


def test_plot_shows_measurement_samples_mean_and_deviation():
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    result = restore(torch.stack([photo(), photo(seed=1)]), mask=MASK, n=2)
    figure = result.plot()
    panels = [axis for axis in figure.axes if axis.get_title()]
    assert [axis.get_title() for axis in panels] == 2 * [
        "measurement", "mean", "sample 0", "sample 1", "standard deviation"
    ]  # fmt: skip
    shown = [np.asarray(axis.images[0].get_array()) for axis in panels]
    np.testing.assert_array_equal(shown[5], result.measurement.y[1, 0])
    np.testing.assert_array_equal(shown[6], result.mean[1, 0].clamp(0, 1))
    np.testing.assert_array_equal(shown[7], result.samples[1, 0, 0].clamp(0, 1))
    np.testing.assert_array_equal(shown[8], result.samples[1, 1, 0].clamp(0, 1))
    np.testing.assert_allclose(shown[9], result.std[1, 0], rtol=1e-6)
    figure.canvas.draw()
    # without draws, what there is
    figure = restore(photo(), mask=MASK).plot()
    assert [axis.get_title() for axis in figure.axes] == ["measurement", "mean"]
    # y of no picture's shape is shown too
    restore(torch.ones(7, 1, 1), Matrix(torch.eye(H * W)[:7], (1, H, W))).plot().canvas.draw()
    assert matplotlib.get_backend() == "svg"
    plt.close("all")


def test_text_names_what_would_reproduce_the_result():
    text = str(restore(photo(), mask=MASK, n=2, sampler="diffpir", steps=3, seed=11))
    for part in (
        "picture 1 x 6 x 5: the mean of the draws; 2 draws from p(x | y) by DiffPIR(steps=3",
        "noise 0.1",
        "seed 11",
        "6 network evaluations",
    ):
        assert part in text
    text = str(restore(photo(), mask=MASK))
    assert "picture 1 x 6 x 5: an estimate of E[x | y] by ExactMean(); no draws (n=8 gives some)" in text
    text = str(restore(photo(), mask=MASK, n=2))
    assert "an estimate of E[x | y] by ExactMean(); 2 draws from p(x | y) by Exact()" in text


@pytest.mark.parametrize("kind", ["network", "wrapped", "closed form"])
def test_progress_moves_with_the_denoiser_and_hides_from_files(kind, capsys, monkeypatch):
    prior = {
        "network": DDPM((1, None, None), widths=(8, 8), blocks=1),
        "wrapped": Given(DDPM((1, None, None), widths=(8, 8), blocks=1, classes=2), 1),
        "closed form": gaussian(),
    }[kind]
    attributes = set(vars(prior))
    options = {"sampler": "diffpir", "steps": 4}
    restore(photo(), "denoise", prior, progress=True, **options)
    assert capsys.readouterr().err == ""  # not a terminal
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    totals = []

    class Bar(drawing.tqdm):
        def close(self):
            totals.append((self.n, self.total))
            super().close()

    monkeypatch.setattr(drawing, "tqdm", Bar)
    restore(photo(), "denoise", prior, progress=True, **options)
    assert set(totals) == {(4, 4)}
    assert "restore" in capsys.readouterr().err
    assert set(vars(prior)) == attributes
    restore(photo(), "denoise", prior, progress=False, **options)
    assert capsys.readouterr().err == ""


def test_prior_in_double_precision_and_measurement_in_either_meet():
    double = gaussian().double()
    for y in (photo(), photo().double()):
        m = Measurement(y[None], Denoise((1, H, W)), 0.1)
        for prior in (GREY, double):
            for sampler in ("exact", "diffpir"):
                x = restore(m, prior=prior, sampler=sampler, noise=0.1).samples
                assert x.dtype == torch.float32
                torch.testing.assert_close(
                    x, restore(photo(), "denoise", GREY, sampler=sampler).samples, atol=3e-2, rtol=0
                )


def test_network_in_single_precision_takes_a_measurement_in_double():
    prior = DDPM((1, None, None), widths=(8, 8), blocks=1)
    single, double = (Measurement(y[None], Denoise((1, H, W)), 0.1) for y in (photo(), photo().double()))
    a, b = (restore(m, prior=prior, noise=0.1, steps=3, n=1) for m in (single, double))
    assert torch.equal(a.samples, b.samples)
    assert torch.equal(a.mean, b.mean)


# ---- priors by name ----


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """Two bundled priors of a family "toy": one of grey images of H x W, one of RGB images of any size."""
    field = GaussianField.fit(torch.rand(9, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    for name, prior in (("toy-grey", GREY), ("toy-photo", field)):
        (tmp_path / name).mkdir()
        write_prior(prior, tmp_path / name, {})
    monkeypatch.setattr(store, "BUNDLED", tmp_path)
    return {"toy-grey": GREY, "toy-photo": field}


@pytest.mark.parametrize(
    ("y", "op", "name"),
    [
        (photo(), "denoise", "toy-grey"),
        (photo(3), "denoise", "toy-photo"),
        (photo(), "colorize", "toy-photo"),  # the image counts, not what was measured of it
        (photo()[:, :, 1:], "denoise", "toy-photo"),
    ],
)
def test_family_is_its_prior_that_fits_the_image(shelf, y, op, name):
    result, expected = restore(y, op, "toy", n=1), restore(y, op, shelf[name], n=1)
    assert (result.sampler, result.estimator) == (expected.sampler, expected.estimator)
    # means of float32 that were stored and read again, the field's with another layout of memory
    torch.testing.assert_close(result.samples, expected.samples, atol=ROUNDING, rtol=0)
    torch.testing.assert_close(result.mean, expected.mean, atol=ROUNDING, rtol=0)


def test_family_that_does_not_fit_is_one_clear_error(shelf):
    fails(ValueError, r"No bundled toy prior fits.*\(2, 6, 5\); there is toy-grey of", photo(2), "denoise", "toy")
    fails(ValueError, r"\(3, 6, 5\).*is one of \(1, 6, 5\)", photo(3), "denoise", "toy-grey")


def test_prior_of_a_name_is_read_once_for_many_images_and_again_when_it_was_replaced(shelf, monkeypatch):
    read, read_prior = [], store.read_prior
    monkeypatch.setattr(store, "read_prior", lambda folder: read.append(folder.name) or read_prior(folder))
    first, again = (restore(photo(), "denoise", "toy", n=1).samples for _ in range(2))
    assert read == ["toy-grey"]
    assert torch.equal(first, again)
    other = Gaussian(GREY.mean + 0.5, 0.04 * torch.eye(H * W))
    write_folder(store.BUNDLED / "toy-grey", lambda folder: write_prior(other, folder, {}))
    found, wanted = (restore(photo(), "denoise", given, n=1).samples for given in ("toy", other))
    torch.testing.assert_close(found, wanted, atol=ROUNDING, rtol=0)
    assert read == ["toy-grey", "toy-grey"]


# ---- odd sizes ----


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (5, 3)])
def test_small_and_odd_images(height, width):
    y = torch.full((1, height, width), 0.25)
    for sampler in ("exact", "mmps"):
        result = restore(y, "denoise", gaussian(1, height, width), noise=0.001, sampler=sampler)
        # noise 0.001, and a pull to the prior of (0.001 / 0.02)^2 of at most 1 at the smallest prior deviation
        torch.testing.assert_close(result.samples[0], y, atol=0.02, rtol=0)


# ---- what cannot be ----


def assert_ours(caught):
    """The error was raised in this package, not in the depths of torch or numpy."""
    package = Path(genprior.__file__).parent
    assert isinstance(caught.value, OSError) or package in Path(caught.traceback[-1].path).parents


def fails(error, match, *arguments, **options):
    with pytest.raises(error, match=match) as caught:
        restore(*arguments, **options)
    assert_ours(caught)


Y = photo()
WRONG = {
    "operator": (ValueError, "Did you mean 'inpaint'", (Y, "inpant"), {}),
    "operator's kind": (TypeError, "op is a name, an operator or a deepinv physics, not builtins.int", (Y, 3), {}),
    "sampler": (ValueError, "Did you mean 'diffpir'", (Y, "denoise"), {"sampler": "difpir"}),
    "sampler's kind": (ValueError, "A sampler is a name or an object", (Y, "denoise"), {"sampler": 3}),
    "prior": (ValueError, "nonsense", (Y, "denoise", "nonsense"), {}),
    "prior's kind": (TypeError, "a checkpoint, a Prior or a denoiser, not builtins.int", (Y, "denoise", 3), {}),
    "image's kind": (TypeError, "got builtins.dict", ({}, "denoise"), {}),
    "no holes": (ValueError, "pass mask=.*NaN.*transparent", (Y,), {}),
    "keyword": (TypeError, "denoise takes no parameters; got width", (Y, "denoise"), {"width": 3}),
    "mask's name": (TypeError, "inpaint takes mask; got msk", (Y,), {"msk": MASK}),
    "missing": (TypeError, "takes scale, antialias; got none", (Y, "super-resolution"), {}),
    "mask's size": (ValueError, "mask is 2 x 2 but the image is 6 x 5", (Y,), {"mask": np.ones((2, 2))}),
    "masks": (ValueError, "3 masks for 1 images", (Y,), {"mask": [MASK] * 3}),
    "masks for two": (ValueError, "3 masks for 2 images", (torch.stack([Y, Y]),), {"mask": [MASK] * 3}),
    "simulated mask": (ValueError, "'random' is no file.*degrade", (Y,), {"mask": "random"}),
    "no mask file": (FileNotFoundError, r"hole\.png", (Y,), {"mask": "hole.png"}),
    "no file": (FileNotFoundError, r"nothing\.png", ("nothing.png", "denoise"), {}),
    "size of the prior": (ValueError, r"\(1, 3, 3\).*is one of \(1, 6, 5\)", (torch.ones(1, 3, 3), "denoise"), {}),
    "colour for grey": (ValueError, "Resize or convert", (photo(3), "denoise"), {}),
    "colourful": (ValueError, "takes grey images.* convert it to grey", (photo(3), "colorize", RGB), {}),
    "NaN": (ValueError, "not finite", (Y.clone().fill_(math.nan), "denoise"), {}),
    "infinity": (ValueError, "not finite", (Y.clone().fill_(math.inf),), {"mask": MASK}),
    "empty": (ValueError, "is empty", (torch.ones(1, 0, 5), "denoise"), {}),
    "shape": (ValueError, "add the channel", (torch.ones(6, 5), "denoise"), {}),
    "list": (ValueError, "the list is empty", ([], "denoise"), {}),
    "sizes": (ValueError, "one batch of one size", ([Y, Y[:, :3]], "denoise"), {}),
    "n": (ValueError, "n, the number of samples", (Y, "denoise"), {"n": 0}),
    "n's type": (ValueError, "n, the number of samples", (Y, "denoise"), {"n": "3"}),
    "steps": (ValueError, "steps is a whole number from 1.*got 0", (Y, "denoise"), {"steps": 0, "sampler": "diffpir"}),
    "steps of none": (ValueError, "Exact has no steps; leave steps=3 out", (Y, "denoise"), {"steps": 3}),
    "noise": (ValueError, "standard deviation", (Y, "denoise"), {"noise": -0.1}),
    "noise NaN": (ValueError, "standard deviation", (Y, "denoise"), {"noise": math.nan}),
    "noise's type": (TypeError, "noise is a standard deviation.*'0.1'", (Y, "denoise"), {"noise": "0.1"}),
    "noise's shape": (ValueError, "noise is one number or", (Y, "denoise"), {"noise": torch.ones(3)}),
    "noise unknown": (ValueError, "Say it, as noise=0.02", (Y, "denoise"), {"noise": None}),
    "seed": (ValueError, "seed is -1", (Y, "denoise"), {"seed": -1}),
    "seed's type": (ValueError, "seed is 'a'", (Y, "denoise"), {"seed": "a"}),
    "device": (ValueError, "device='abacus' cannot be used here", (Y, "denoise"), {"device": "abacus"}),
    "boundary": (ValueError, "boundary", (Y, "gaussian-deblur"), {"width": 1, "boundary": "mirror"}),
    "scale": (ValueError, "scale is a whole number", (Y, "super-resolution"), {"scale": 1.5}),
    "y of an operator": (ValueError, r"measures \(1, 6, 5\); give y", (Y[0], Denoise((1, H, W))), {}),
    "file for an operator": (TypeError, "img is its measurement y", ("y.png", Denoise((1, H, W))), {}),
    "parameters of an operator": (ValueError, "belong to named operators", (Y, Denoise((1, H, W))), {"scale": 2}),
    "operator twice": (
        ValueError, "brings its own operator", (Measurement(Y[None], Denoise((1, H, W)), 0.1), "denoise"), {}
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_restored_is_one_clear_error(case):
    error, match, arguments, options = WRONG[case]
    fails(error, match, *arguments, **options)


def test_a_device_that_is_not_there_is_one_clear_error():
    if not torch.cuda.is_available():
        fails(ValueError, "device='cuda' cannot be used here", Y, "denoise", device="cuda")


def test_samplers_say_which_prior_they_need():
    class Nothing(Prior):
        image_shape = (1, None, None)

        def sample(self, n, *, seed=0):
            return torch.zeros(n, 1, 1, 1)

    fails(UnsupportedError, "Nothing", Y, "denoise", Nothing(), sampler="dps")
    fails(UnsupportedError, "Nothing", Y, "denoise", Nothing())


@pytest.mark.parametrize(
    ("error", "match", "arguments", "options"),
    [
        (ValueError, "wanted \\[0, 1\\]", (Y * 255, "denoise"), {}),
        (ValueError, "Did you mean 'random'", (Y, "inpaint"), {"mask": "randm", "fraction": 0.5}),
        (TypeError, "takes fraction, seed", (Y, "inpaint"), {"mask": "random"}),
        (TypeError, "takes fraction with mask='random'", (Y, "inpaint"), {"mask": MASK, "fraction": 0.5}),
        (TypeError, "inpaint takes mask", (Y, "inpaint"), {}),
        (ValueError, "standard deviation", (Y, "denoise"), {"noise": -1}),
        (TypeError, "standard deviation", (Y, "denoise"), {"noise": "0.1"}),
        (ValueError, "noise is one number or", (Y, "denoise"), {"noise": torch.ones(3)}),
        (ValueError, "larger than the image|kernel", (Y, "gaussian-deblur"), {"width": 5}),
        (ValueError, "does not divide", (Y, "super-resolution"), {"scale": 4}),
    ],
)
def test_what_cannot_be_measured_is_one_clear_error(error, match, arguments, options):
    with pytest.raises(error, match=match) as caught:
        genprior.degrade(*arguments, **options)
    assert_ours(caught)


def test_simulated_masks_are_keyed_by_the_seed():
    masks = [genprior.degrade(Y, "inpaint", mask="random", fraction=0.5, seed=seed).operator.mask for seed in (1, 1, 2)]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_each_image_has_a_simulated_mask_of_its_own():
    options = {"op": "inpaint", "mask": "random", "fraction": 0.5, "seed": 1}
    one, two = (genprior.degrade([Y] * n, **options).operator.mask for n in (1, 2))
    assert two.flatten(1).sum(1).tolist() == [H * W / 2] * 2
    assert not torch.equal(two[0], two[1])
    assert torch.equal(one[0], two[0])


def test_a_gpu_is_filled_to_half_of_what_is_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (6 * 10**9, 16 * 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 3 * 10**9)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 10**9)
    # half of 6 + (3 - 1) GB at 10 kB a pixel
    assert devices.pixels_at_once(torch.device("cuda")) == 400_000


def test_files_are_read_as_operators_take_them(tmp_path):
    array = (photo(3).movedim(0, -1).numpy() * 255).astype(np.uint8)
    m = genprior.degrade(_written(array, tmp_path / "x.png"), Colorize((3, H, W)))
    weights = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(m.y[0, 0], array @ weights / 255, atol=1e-6)
    assert images.read(array).x.shape == (1, 3, H, W)


# ---- colour that is grey but for a little, and parameters in the wrong place ----


@pytest.mark.parametrize("level", [1, 4])
def test_grey_image_stored_as_colour_is_colourised_by_its_luma(level):
    """As a scan or a JPEG file holds one: channels that differ by a few grey levels."""
    y = np.random.default_rng(0).integers(40, 200, (H, W, 1), dtype=np.uint8).repeat(3, 2)
    y[::2, :, 0] += level
    luma = (y / 255) @ [0.299, 0.587, 0.114]
    found = genprior.restore(y, "colorize", RGB, noise=0.05, n=1, seed=0)
    wanted = genprior.restore(luma, "colorize", RGB, noise=0.05, n=1, seed=0)
    torch.testing.assert_close(found.samples, wanted.samples, rtol=0, atol=ROUNDING)
    equal = np.repeat(y[..., 1:2], 3, 2)
    found = genprior.restore(equal, "colorize", RGB, noise=0.05, n=1, seed=0).samples
    assert torch.equal(found, genprior.restore(equal[..., 0], "colorize", RGB, noise=0.05, n=1, seed=0).samples)


@pytest.mark.parametrize("toned", [5, 40])
def test_image_with_colours_is_not_colourised(toned):
    y = np.full((H, W, 3), 100, dtype=np.uint8)
    y[0, 0, 2] += toned
    with pytest.raises(ValueError, match=rf"channels differ by up to {toned / 255:.3g}\. .*convert it to grey: Image"):
        genprior.restore(y, "colorize", RGB, noise=0.05)


MISPLACED = {
    "by its name": ({"sampler": "diffpir", "density": 0.2}, r"give sampler=DiffPIR\(density=0\.2\)"),
    "of an object": ({"sampler": DiffPIR(), "density": 0.2}, r"give sampler=DiffPIR\(density=0\.2\)"),
    "of another": ({"sampler": "mmps", "particles": 9}, r"sampler=TDS\(particles=9\).*Those that have it: TDS, "),
    "automatic": ({"density": 0.2}, r"sampler=\w+\(density=0\.2\).*Those that have it: .*DiffPIR"),
    "misspelt": ({"sampler": "difpir", "density": 0.2}, r"Those that have it: "),
}


@pytest.mark.parametrize("name", MISPLACED)
@pytest.mark.parametrize("op", ["denoise", Denoise((1, H, W))])
def test_parameters_of_samplers_say_where_they_belong(name, op):
    arguments, message = MISPLACED[name]
    with pytest.raises(TypeError, match=rf"is a parameter of samplers, not of the operator: .*{message}"):
        genprior.restore(torch.rand(1, H, W), op, GREY, noise=0.1, **arguments)


def test_advice_on_misplaced_parameters_can_be_followed():
    with pytest.raises(TypeError) as caught:
        genprior.restore(torch.rand(1, H, W), "denoise", GREY, noise=0.1, sampler="diffpir", density=0.2)
    scope = {}
    exec(str(caught.value).split("`")[1], scope)
    assert scope["DiffPIR"](density=0.2) == DiffPIR(density=0.2)


def test_sampler_and_operator_parameters_have_no_name_in_common():
    made = (*FOR_MEASUREMENT.values(), *FOR_IMAGE.values(), *MASKS.values())
    of_operators = {name for make in made for name in list(inspect.signature(make).parameters)[1:]}
    of_samplers = {field.name for kind in SAMPLERS.values() for field in dataclasses.fields(kind)}
    assert len(of_operators) > 8
    assert not of_operators & of_samplers


def test_class_of_a_sampler_says_to_make_an_object():
    with pytest.raises(ValueError, match=r"DiffPIR is a class: give an object of it, sampler=DiffPIR\(\)"):
        genprior.restore(torch.rand(1, H, W), "denoise", GREY, noise=0.1, sampler=DiffPIR)


def test_a_named_prior_is_what_its_files_hold(tmp_path):
    """Not what they held before others were copied over them, nor what someone made of a result's prior."""
    x = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))

    def restored():
        return genprior.restore(x, "denoise", tmp_path / "p", noise=0.3, seed=0, progress=False)

    for name, mean in {"p": 0.2, "q": 0.8}.items():
        prior = genprior.Gaussian(torch.full((1, 8, 8), mean), torch.full((1, 8, 8), 0.04))
        genprior.save_prior(prior, tmp_path / name, {"data": "none", "licence": "none"})
    first = restored()
    assert restored().prior is first.prior
    for buffer in first.prior.buffers():
        buffer.mul_(0.5)
    assert torch.equal(restored().mean, first.mean)
    restored().prior.double()
    assert torch.equal(restored().mean, first.mean)
    for file in (tmp_path / "q").iterdir():
        shutil.copy2(file, tmp_path / "p" / file.name)
    assert (restored().mean - first.mean).mean() > 0.1
