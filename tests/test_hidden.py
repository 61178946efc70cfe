"""What nobody sees or measured, under alpha 0 or a numpy mask, changes nothing that one sees."""

import numpy as np
import pytest
import torch
from PIL import Image

import genprior
from genprior.benchmark.dataset import find_truths
from genprior.images import read, read_mask
from genprior.operators import Inpaint, Matrix, random_mask
from genprior.training.data import Photos

SIDE = 16


def denoiser(x_t, sigma):
    return 0.5 + 0.0625 / (0.0625 + sigma**2) * (x_t - 0.5)


PRIOR = genprior.from_denoiser(denoiser, (3, None, None), sigma_min=0.001, sigma_max=10.0)


def sprite(hidden, dtype=np.uint8):
    """A white square on transparency, under which the colour is `hidden`."""
    white = 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    array = np.zeros((SIDE, SIDE, 4), dtype)
    array[..., :3] = np.asarray(hidden) * white
    array[4:12, 4:12] = white
    return array


def restored(img, op, **parameters):
    given = {"noise": 0.01, "seed": 0, "sampler": "mmps", "steps": 5, "progress": False} | parameters
    return np.asarray(genprior.restore(img, op, PRIOR, **given).image)


TASKS = {
    "super-resolution": {"scale": 2},
    "gaussian-deblur": {"width": 1.0},
    "denoise": {},
    "deblur": {"kernel": np.full((3, 3), 1 / 9)},
}


@pytest.mark.parametrize("op", TASKS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_sprite_is_restored_as_if_it_went_on_as_at_its_edge(op, dtype):
    """White on transparent black or noise is white all over, to the last bit of what is seen."""
    noise = np.random.default_rng(0).random((SIDE, SIDE, 3))
    whole = restored(sprite(1, dtype)[..., :3], op, **TASKS[op])
    for hidden in (0, noise):
        found = restored(sprite(hidden, dtype), op, **TASKS[op])
        seen = found[..., 3] > 0
        assert seen.any()
        np.testing.assert_array_equal(found[seen][:, :3], whole[seen])


@pytest.mark.parametrize("kind", ["PIL", "file", "palette", "list"])
def test_hidden_colours_are_those_of_the_nearest_pixel_that_is_seen(kind, tmp_path):
    array = sprite(0)
    array[4:12, 4:8, :3] = [255, 0, 0]
    given = Image.fromarray(array)
    if kind == "palette":
        given = given.quantize(8)
    if kind == "file":
        given.save(tmp_path / "a.png")
        given = tmp_path / "a.png"
    picture = read([given] if kind == "list" else given)
    seen = picture.seen[0].permute(1, 2, 0).numpy()
    expected = np.ones((SIDE, SIDE, 3), np.float32)
    expected[:, :8] = [1, 0, 0]
    np.testing.assert_array_equal(seen, expected)
    assert (picture.x[0, :, 0, 0] == 0).all()  # what the file holds is still what is read


def test_where_nothing_or_everything_is_seen_colours_are_as_they_are():
    array = sprite(0.4)
    for alpha in (0, 1, 255):
        array[..., 3] = alpha
        picture = read(array)
        assert torch.equal(picture.seen, picture.x)


def test_soft_edges_keep_their_own_colours():
    array = sprite(0)
    array[3, 4:12] = [10, 20, 30, 1]
    x = read(array).seen[0]
    assert (x[:, 3, 4] * 255).round().tolist() == [10, 20, 30]
    assert (x[:, 0, 4] * 255).round().tolist() == [10, 20, 30]


def test_hidden_colours_do_not_blur_into_a_measurement_nor_into_truths(tmp_path):
    y = genprior.degrade(sprite(0), "gaussian-deblur", width=2.0).y
    torch.testing.assert_close(y, torch.ones_like(y))
    Image.fromarray(sprite(0)).save(tmp_path / "a.png")
    for data in (tmp_path, [sprite(0)]):
        assert (find_truths(data, "", None, None)[0].read() == 1).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_hidden_colours_are_not_trained_on(tmp_path, mode):
    image = Image.fromarray(sprite(0)).convert("LA") if mode == "LA" else Image.fromarray(sprite(0))
    (image.quantize(8) if mode == "P" else image).save(tmp_path / "a.png")
    for channels in (1, 3):
        assert (Photos(tmp_path, SIDE, channels=channels, augment=False)[0]["x"] == 1).all()


def test_inpainting_with_a_mask_takes_hidden_colours_for_unknown_and_leaves_them_as_they_are():
    hole = np.zeros((SIDE, SIDE), bool)
    hole[6:8, 6:8] = True
    results = []
    for hidden in (0, 0.6):
        array = sprite(hidden)
        found = restored(array, "inpaint", mask=hole, noise=0)
        np.testing.assert_array_equal(found[~hole], array[~hole])
        assert (found[hole][:, 3] == 255).all()
        unknown = genprior.restore(
            array, "inpaint", PRIOR, mask=hole, noise=0, sampler="ddnm", steps=2, progress=False
        ).measurement.operator.mask[0, 0]
        np.testing.assert_array_equal(unknown.numpy(), hole | (array[..., 3] == 0))
        results.append(found[hole])
    np.testing.assert_array_equal(*results)


def test_noise_is_not_estimated_from_what_is_hidden():
    """A cut-out of noise 0.05: from the flat colour that surrounds it, nothing would be left of it."""
    noise = np.random.default_rng(0).normal(0, 0.05, (64, 64, 3))
    array = np.concatenate([0.5 + noise, np.zeros((64, 64, 1))], -1).astype(np.float32)
    array[16:48, 16:48, 3] = 1
    array[array[..., 3] == 0] = 0
    result = genprior.restore(array, "denoise", PRIOR, sampler="ddnm", steps=2, seed=0, progress=False)
    assert 0.04 < float(result.measurement.noise) < 0.06


# ---- masked arrays ----


def masked(dtype=np.float32, channels=3):
    """Values that are nonsense where they are masked, and the holes."""
    rng = np.random.default_rng(0)
    white = 1 if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    holes = rng.random((SIDE, SIDE)) < 0.1
    data = ((0.4 + 0.2 * rng.random((SIDE, SIDE, channels))) * white).astype(dtype)
    data[holes] = 10_000 if np.dtype(dtype).kind == "f" else white
    return np.ma.MaskedArray(data, mask=np.repeat(holes[..., None], channels, 2)), holes


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_what_a_masked_array_masks_is_inpainted(dtype):
    y, holes = masked(dtype)
    found = restored(y, "inpaint", noise=0)
    expected = restored(y.data, "inpaint", noise=0, mask=holes)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == dtype
    assert not np.ma.isMaskedArray(found)
    more = np.zeros_like(holes)
    more[3:6, 3:6] = True  # masks add up
    np.testing.assert_array_equal(
        restored(y, "inpaint", noise=0, mask=more), restored(y.data, "inpaint", noise=0, mask=holes | more)
    )


def test_a_pixel_masked_in_one_channel_or_in_alpha_is_a_hole():
    array = np.ma.MaskedArray(np.full((SIDE, SIDE, 4), 128, np.uint8), mask=False)
    array[2, 2, 0] = np.ma.masked
    array[3, 3, 3] = np.ma.masked
    picture = read(array, nan=True)
    assert picture.x.isnan().any(1).nonzero().tolist() == [[0, 2, 2], [0, 3, 3]]
    assert float(picture.alpha[0, 0, 3, 3]) == 1


@pytest.mark.parametrize("op", [*TASKS, "colorize"])
def test_masked_values_are_no_measurement_of_anything_else(op):
    y, holes = masked()
    with pytest.raises(ValueError, match=rf"masks {3 * holes.sum()} of its values.*only inpaint.*filled"):
        restored(y, op, **TASKS.get(op, {}))
    with pytest.raises(ValueError, match="image 1 of the list: The array masks"):
        restored([y.data, y], op, **TASKS.get(op, {}))


def test_a_masked_array_that_masks_nothing_is_an_array():
    y = np.ma.MaskedArray(masked()[0].data.clip(0, 1), mask=False)
    np.testing.assert_array_equal(restored(y, "denoise"), restored(y.data, "denoise"))


MASKED = np.ma.MaskedArray(np.ones((3, 3)), mask=np.eye(3))
ELSEWHERE = {
    "degrade": lambda y: genprior.degrade(y, "denoise"),
    "evaluate": lambda y: genprior.evaluate([y], "denoise", PRIOR, "ddnm", noise=0.1, steps=2, progress=False),
    "mask": lambda y: restored(y.data, "inpaint", mask=np.ma.MaskedArray(np.eye(SIDE) > 0, mask=np.eye(SIDE))),
    "read_mask": lambda y: read_mask(MASKED),
    "kernel": lambda y: restored(y.data, "deblur", kernel=MASKED),
    "matrix": lambda y: Matrix(MASKED, (1, 3, 1)),
    "operator's mask": lambda y: Inpaint(np.ma.MaskedArray(np.eye(SIDE) > 0, mask=np.eye(SIDE)), (3, SIDE, SIDE)),
    "y of an operator": lambda y: restored(
        np.ma.MaskedArray(np.ones((3, SIDE, SIDE)), mask=np.eye(SIDE)[None].repeat(3, 0)),
        Inpaint(random_mask((3, SIDE, SIDE), 0.5, 0), (3, SIDE, SIDE)),
    ),
    "noise": lambda y: restored(y.data, "denoise", noise=np.ma.MaskedArray([0.1], mask=[True])),
    "training": lambda y: genprior.training.data.Arrays({"x": masked(np.uint8)[0]}, "x"),
}  # fmt: skip


@pytest.mark.parametrize("where", ELSEWHERE)
def test_a_numpy_mask_is_dropped_nowhere(where):
    y, _ = masked()
    y.data[y.data > 1] = 0.5
    with pytest.raises(ValueError, match=r"masks |masked array"):
        ELSEWHERE[where](y)
