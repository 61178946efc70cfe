"""Known pixels of inpainting come back bit for bit as they were given, in every kind, unless a noise was stated."""

import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import genprior
from genprior import images
from genprior.cli import main
from genprior.images.pixels import Deep
from genprior.operators import Inpaint, Measurement
from genprior.priors.folder import save_prior
from genprior.priors.gaussian.gaussian import Gaussian

H, W = 20, 24
HOLES = np.zeros((H, W), bool)
HOLES[6:12, 5:15] = True


def prior(channels):
    return Gaussian(torch.full((channels, H, W), 0.5), torch.full((channels, H, W), 0.04))


def restore(y, mask=HOLES, channels=None, **options):
    channels = channels or (3 if np.ndim(y) > 2 else 1)
    options = {"n": 3, "seed": 0, "progress": False} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the prior knows nothing of these pictures
        return genprior.restore(y, "inpaint", prior(channels), mask=mask, **options)


def values(dtype, *shape):
    """Noise that uses every bit of the dtype; of floats also beyond [0, 1]."""
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "u":
        return rng.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    return rng.normal(0.5, 0.4, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64", ">f8"])
@pytest.mark.parametrize("shape", [(H, W), (H, W, 3), (2, H, W, 3)])
def test_arrays_keep_every_bit(dtype, shape):
    y = values(dtype, *shape)
    x = restore(y, channels=3 if len(shape) > 2 else 1).image
    assert (x.dtype, x.shape) == (y.dtype, y.shape)
    np.testing.assert_array_equal(
        x[..., ~HOLES, :] if len(shape) > 2 else x[~HOLES], y[..., ~HOLES, :] if len(shape) > 2 else y[~HOLES]
    )
    assert not np.array_equal(x, y)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_keep_every_bit_and_their_copy(dtype):
    y = torch.from_numpy(values("float64", 3, H, W)).to(dtype)
    before = y.clone()
    result = restore(y, channels=3)
    y.zero_()  # what the user does to it later is no concern of the result
    assert result.image.dtype == dtype
    assert torch.equal(result.image[:, ~HOLES], before[:, ~HOLES])


def test_samples_and_their_mean_are_known_and_have_no_spread_there():
    y = torch.from_numpy(values("float32", 1, H, W))
    result = restore(y, channels=1, n=7)
    assert torch.equal(result.mean[:, ~HOLES], y[:, ~HOLES])
    assert torch.equal(result.samples[:, :, ~HOLES], y[None, :, ~HOLES].expand(7, -1, -1))
    assert (result.std[:, ~HOLES] == 0).all()
    assert (result.std[:, HOLES] > 0).all()
    assert float(result.measurement.noise) > 0.1  # it is conditioned on as noisy all the same


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", ".png"), ("RGB", ".png"), ("RGB", ".bmp"), ("I;16", ".png"), ("I;16", ".tif"), ("F", ".tif")],
)
def test_pictures_and_files_keep_every_value(mode, suffix, tmp_path):
    dtype = {"I;16": "uint16", "F": "float32"}.get(mode, "uint8")
    y = values(dtype, *((H, W, 3) if mode == "RGB" else (H, W)))
    picture = Image.fromarray(y)
    assert picture.mode == mode
    given, kept = tmp_path / f"y{suffix}", tmp_path / f"x{suffix}"
    picture.save(given)
    for img in (picture, given, str(given)):
        result = restore(img, channels=3 if mode == "RGB" else 1)
        np.testing.assert_array_equal(np.asarray(result.image)[~HOLES], y[~HOLES])
    result.save(kept)
    np.testing.assert_array_equal(np.asarray(Image.open(kept))[~HOLES], y[~HOLES])


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_files_of_deep_colour_keep_every_value(dtype, tmp_path):
    y = values(dtype, H, W, 3)
    images.save(Deep(y), tmp_path / "y.tif")
    result = restore(tmp_path / "y.tif", channels=3)
    assert np.asarray(result.image).dtype == y.dtype
    np.testing.assert_array_equal(np.asarray(result.image)[~HOLES], y[~HOLES])


def test_items_of_a_list_keep_their_own():
    ys = [values("uint8", H, W), values("uint16", H, W)]
    xs = restore(ys, channels=1).image
    for x, y in zip(xs, ys):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x[~HOLES], y[~HOLES])


def test_nan_is_a_hole_and_what_is_beside_it_is_known():
    y = values("float64", H, W)
    y[HOLES] = np.nan
    x = restore(y, mask=None, channels=1).image
    np.testing.assert_array_equal(x[~HOLES], y[~HOLES])
    assert np.isfinite(x).all()


def test_a_stated_noise_denoises_and_a_stated_zero_keeps():
    y = values("uint8", H, W)
    assert not np.array_equal(restore(y, noise=0.1).image[~HOLES], y[~HOLES])
    np.testing.assert_array_equal(restore(y, noise=0).image[~HOLES], y[~HOLES])
    # each image by its own: here one is exact and the other is not
    both = restore(np.stack([y, y])[..., None], channels=1, noise=[0, 0.1]).image[..., 0]
    np.testing.assert_array_equal(both[0][~HOLES], y[~HOLES])
    assert not np.array_equal(both[1][~HOLES], y[~HOLES])


def test_a_measurement_states_its_noise():
    y, A = torch.from_numpy(values("float32", 1, 1, H, W)), Inpaint(HOLES, (1, H, W))
    for noise, kept in ((0.0, True), (0.1, False)):
        result = genprior.restore(Measurement(A(y), A, noise), prior=prior(1), n=1, seed=0, progress=False)
        assert torch.equal(result.samples[:, :, ~HOLES], y[:, :, ~HOLES]) == kept
        assert torch.equal(result.mean[:, ~HOLES], y[0, :, ~HOLES]) == kept


def test_operators_and_physics_that_leave_values_out_are_inpainting():
    deepinv = pytest.importorskip("deepinv")
    y = torch.from_numpy(values("float64", 1, H, W))
    mask = torch.from_numpy(~HOLES).float()[None]
    each = torch.rand(1, 3, H, W, generator=torch.Generator().manual_seed(0)) < 0.3  # holes of each channel
    for given, op, holes in (
        (y, Inpaint(HOLES, (1, H, W)), torch.from_numpy(HOLES)[None]),
        (y.expand(3, -1, -1), Inpaint(each, (3, H, W)), each[0]),
        (y, deepinv.physics.Inpainting((1, H, W), mask=mask), torch.from_numpy(HOLES)[None]),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            x = genprior.restore(given, op, prior(len(given)), seed=0, progress=False)
        assert torch.equal(x.image[~holes], given[~holes])
        # what an operator leaves out has no vote on the noise: of the values, 0.4
        assert 0.3 < float(x.measurement.noise) < 0.5


def test_images_of_holes_only_take_none_of_the_noise_of_others():
    y = torch.from_numpy(values("float32", 2, 1, H, W))
    masks = np.stack([HOLES, np.ones_like(HOLES)])
    noise = restore(y, mask=list(masks), channels=1).measurement.noise
    alone = restore(y[0], mask=masks[0], channels=1).measurement.noise
    assert torch.equal(noise.flatten(), torch.tensor([alone, 0.0]))


@pytest.mark.parametrize(
    ("dtype", "suffix"), [("uint8", ".png"), ("uint16", ".png"), ("uint8", ".npy"), ("uint16", ".npy")]
)
def test_the_command_line_keeps_every_value(dtype, suffix, tmp_path):
    y = values(dtype, H, W)
    given, mask, out = tmp_path / f"y{suffix}", tmp_path / "mask.png", tmp_path / f"x{suffix}"
    np.save(given, y) if suffix == ".npy" else Image.fromarray(y).save(given)
    Image.fromarray(HOLES).save(mask)
    save_prior(prior(1), tmp_path / "prior")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert (
            main(["restore", str(given), "-o", str(out), "--mask", str(mask), "--prior", str(tmp_path / "prior")]) == 0
        )
    x = np.load(out) if suffix == ".npy" else np.asarray(Image.open(io.BytesIO(out.read_bytes())))
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(x[~HOLES], y[~HOLES])
