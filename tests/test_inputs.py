"""Whatever people hand over: a right result, of the kind, size and type that was given, or one clear error of ours."""

import struct
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import genprior
from genprior.cli import main
from genprior.operators import gaussian_kernel
from genprior.priors.ddpm import DDPM
from genprior.priors.folder import write_prior

NET = DDPM((3, None, None), widths=(8, 8), blocks=1).eval()
PACKAGE = Path(genprior.__file__).parent
H, W = 8, 7
NAN, INF = float("nan"), float("inf")


def restore(given, op="inpaint", prior=NET, **options):
    return genprior.restore(
        given, op, prior, **{"sampler": "diffpir", "steps": 2, "seed": 0, "progress": False, **options}
    )


def holes(height=H, width=W):
    """A cross of holes: some of every image that is larger than 1 x 1."""
    mask = np.zeros((height, width), bool)
    mask[height // 2], mask[:, width // 2] = True, True
    return mask


def values(dtype, *shape):
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind in "ui":
        return rng.integers(0, min(np.iinfo(dtype).max, 65535), shape, endpoint=True).astype(dtype)
    return rng.uniform(0.1, 0.9, shape).astype(dtype) if np.dtype(dtype).kind == "f" else rng.random(shape) > 0.5


def fails(error, match, run):
    """Of just that class, raised in this package, with a message that says what was given and what to do."""
    with pytest.raises(error, match=match) as caught:
        run()
    assert type(caught.value) is error
    assert PACKAGE in Path(str(caught.traceback[-1].path)).parents, caught.traceback[-1].path


# ---- PIL modes ----


def picture(mode):
    """A PIL image of any mode, of random colours."""
    rgba = Image.fromarray(values("uint8", H, W, 4))
    if mode.startswith("I"):
        deep = values("uint16", H, W)
        return Image.fromarray(deep.astype(np.int32) if mode == "I" else deep)
    if mode == "F":
        return Image.fromarray(values("float32", H, W))
    if mode == "PA":
        palette = rgba.convert("RGB").convert("P").convert("PA")
        palette.putalpha(rgba.getchannel("A"))
        return palette
    if mode == "LAB":
        return Image.merge("LAB", rgba.convert("RGB").split())
    return rgba.convert("RGB").convert(mode) if mode in ("YCbCr", "HSV", "CMYK", "P") else rgba.convert(mode)


BACK = {
    "1": "L", "L": "L", "LA": "LA", "P": "RGB", "PA": "RGBA", "RGB": "RGB", "RGBA": "RGBA", "CMYK": "RGB",
    "YCbCr": "RGB", "LAB": "RGB", "HSV": "RGB", "I": "I;16", "I;16": "I;16", "F": "F",
}  # fmt: skip


@pytest.mark.parametrize("mode", BACK)
def test_every_mode_comes_back_with_its_known_pixels(mode):
    given, mask = picture(mode), holes()
    assert given.mode == mode
    back = restore(given, mask=mask, noise=0).image
    assert (back.mode, back.size) == (BACK[mode], given.size)
    expected = np.asarray(given if mode in ("I", "I;16", "F") else given.convert(BACK[mode]))
    known = np.asarray(back)[~mask]
    np.testing.assert_array_equal(known, expected[~mask].astype(known.dtype))
    if mode != "1":
        assert not np.array_equal(np.asarray(back)[mask], expected[mask])


# ---- arrays and tensors ----

GOOD = {"uint8": "uint8", "uint16": "uint16", "float16": "float16", "float32": "float32", "float64": "float64",
        "bool": "float32"}  # fmt: skip
LAYOUTS = {"HW": (H, W), "HWC": (H, W, 3), "HW1": (H, W, 1), "HWA": (H, W, 4), "BHWC": (2, H, W, 3)}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", GOOD)
def test_every_array_comes_back_with_its_known_pixels(dtype, layout):
    given, mask = values(dtype, *LAYOUTS[layout]), holes()
    back = restore(given, mask=mask, noise=0).image
    assert (back.dtype, back.shape) == (GOOD[dtype], given.shape)
    known = ~mask if layout == "HW" else ~mask[..., None]
    known = np.broadcast_to(known, given.shape).copy()
    if layout == "HWA":
        known[..., 3] = False
    # inside, values are float32
    np.testing.assert_allclose(back[known], given[known].astype(back.dtype), rtol=0, atol=2**-25 * (dtype == "float64"))


@pytest.mark.parametrize("shape", [(1, H, W), (3, H, W), (2, 1, H, W), (2, 3, H, W)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_tensor_comes_back_with_its_known_pixels(dtype, shape):
    given, mask = torch.from_numpy(values("float32", *shape)).to(dtype), holes()
    back = restore(given, mask=mask, noise=0).image
    assert (back.dtype, back.shape) == (dtype, given.shape)
    known = torch.from_numpy(~mask)
    torch.testing.assert_close(back[..., known], given[..., known], rtol=0, atol=2**-25)


def numpy_of(dtype, *shape):
    return np.zeros(shape, dtype)


def torch_of(dtype, *shape):
    return torch.zeros(shape, dtype=dtype)


WRONG_KIND = {
    **{
        f"numpy {dtype}": (numpy_of(dtype, H, W), TypeError, f"dtype {dtype}, wanted uint8, .*divide")
        for dtype in ("int8", "int16", "int32", "int64", "uint32", "uint64")
    },
    "numpy complex": (numpy_of("complex64", H, W), TypeError, "dtype complex64, wanted"),
    "numpy object": (np.array([[None]]), TypeError, "dtype object, wanted"),
    "numpy text": (np.array([["a"]]), TypeError, "dtype <U1, wanted"),
    "numpy CHW": (numpy_of("float32", 3, H, W), ValueError, r"\(3, 8, 7\) looks like channels first.*moveaxis"),
    "numpy BCHW": (numpy_of("float32", 2, 3, H, W), ValueError, "looks like channels first.*moveaxis"),
    "numpy C": (numpy_of("float32", 9), ValueError, r"\(9,\), wanted H x W"),
    "numpy 5 channels": (numpy_of("float32", H, W, 5), ValueError, r"\(8, 7, 5\), wanted H x W"),
    "numpy nothing": (numpy_of("float32", 0, W), ValueError, r"empty.*\(0, 7\)"),
    "numpy 0-d": (np.array(0.5), ValueError, r"shape \(\), wanted H x W"),
    "torch uint8": (torch_of(torch.uint8, 3, H, W), TypeError, "uint8.*divide it by 255"),
    "torch int": (torch_of(torch.int32, 3, H, W), TypeError, r"int32, wanted floating point; .*\.float\(\)"),
    "torch bool": (torch_of(torch.bool, 3, H, W), TypeError, r"bool, wanted floating point; .*\.float\(\)"),
    "torch complex": (torch_of(torch.complex64, 3, H, W), TypeError, "complex64, wanted floating point"),
    "torch HW": (torch_of(torch.float32, H, W), ValueError, r"wanted C x H x W .*add the channel by x\[None\]"),
    "numpy, of 3 rows": (
        numpy_of("float32", 3, 2000, 3),
        ValueError,
        r"\(3, 2000, 3\) is ambiguous: .*pass a torch tensor",
    ),
    "torch HWC": (torch_of(torch.float32, H, W, 3), ValueError, r"\(8, 7, 3\).*movedim\(-1, -3\)"),
    "torch 2 channels": (torch_of(torch.float32, 2, H, W), ValueError, r"\(2, 8, 7\).*one of \(3, 8, 7\).*convert"),
    "torch nothing": (torch_of(torch.float32, 3, 0, W), ValueError, "empty"),
    "NaN": (np.full((H, W), NAN), ValueError, "56 values that are not finite.*mask="),
    "infinity": (np.full((H, W), INF), ValueError, "56 values that are not finite"),
    "too large": (np.full((H, W), 1e300), ValueError, "not finite in float32"),
    "a dict": ({}, TypeError, r"an image is a path, .*; got builtins\.dict"),
    "None": (None, TypeError, r"got builtins\.NoneType"),
    "bytes": (b"\x89PNG", TypeError, r"got builtins\.bytes"),
    "nothing in a list": ([], ValueError, "the list is empty; give at least one"),
    "unequal list": ([np.zeros((4, 4)), np.zeros((4, 5))], ValueError, "item 0 is 1 x 4 x 4 and item 1 is 1 x 4 x 5"),
}


@pytest.mark.parametrize("case", WRONG_KIND)
def test_what_is_no_image_is_one_clear_error(case):
    given, error, match = WRONG_KIND[case]
    fails(error, match, lambda: restore(given, "denoise", noise=0.1))


# ---- sizes, masks, noise, kernels ----

SIZES = [(1, 1), (1, 2), (2, 1), (3, 5), (1, 300), (300, 1), (3, 2000), (17, 13)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_images_of_every_size_come_back_in_it(size, channels):
    array = values("uint8", *size, channels)
    given = Image.fromarray(array[..., 0] if channels == 1 else array)
    for op, options in [("denoise", {}), ("inpaint", {"mask": holes(*size)}), ("gaussian-deblur", {"width": 1.0})]:
        back = restore(given, op, noise=0.1, **options).image
        assert (back.mode, back.size) == (given.mode, given.size)
    if max(size) < 1000:  # else it would be mostly the decomposition of matrices of 4000 x 2000
        assert restore(given, "super-resolution", noise=0.1, scale=2).image.size == (2 * given.width, 2 * given.height)


@pytest.mark.parametrize("noise", [0, 1])
def test_all_holes_and_no_holes(noise):
    given = values("float32", H, W, 3)
    all_holes = restore(given, mask=np.ones((H, W), bool), noise=noise).samples
    assert torch.isfinite(all_holes).all()
    other = restore(1 - given, mask=np.ones((H, W), bool), noise=noise).samples
    assert torch.equal(all_holes, other)  # nothing of what was under the holes is used
    none = restore(given, mask=np.zeros((H, W), bool), noise=noise).image
    if noise == 0:
        np.testing.assert_array_equal(none, given)
    assert np.isfinite(none).all()


def test_noise_of_nothing_keeps_an_image_and_noise_of_all_still_gives_one():
    given = values("float32", H, W, 3)
    # the prior's own sigma_min / 5 is the least noise that a sampler takes
    assert np.abs(restore(given, "denoise", noise=0).image - given).max() < 3 * NET.sigma_min
    assert torch.isfinite(restore(given, "denoise", noise=1.0).samples).all()


@pytest.mark.parametrize("boundary", ["valid", "circular"])
def test_kernels_larger_than_the_image(boundary):
    given, kernel = values("float32", 4, 5, 3), gaussian_kernel(2.0)  # 13 x 13
    run = partial(restore, given, "deblur", noise=0.1, kernel=kernel, boundary=boundary)
    if boundary == "valid":
        assert run().image.shape == given.shape
    else:
        fails(ValueError, 'kernel, 13 x 13, is larger than the image, 4 x 5; .*boundary="valid"', run)
    fails(
        ValueError, "13 x 13, is larger than the image, 4 x 5", lambda: genprior.degrade(given, "deblur", kernel=kernel)
    )


WRONG_ASK = {
    "operator": (ValueError, "Unknown operator 'inpant'; choose among .*Did you mean 'inpaint'", {"op": "inpant"}),
    "prior": (ValueError, "Unknown prior 'ddpm-foto'; .*mean 'ddpm-photo'", {"op": "denoise", "prior": "ddpm-foto"}),
    "sampler": (ValueError, "Unknown sampler 'difpir'; .*mean 'diffpir'", {"op": "denoise", "sampler": "difpir"}),
    "antialias": (
        ValueError, "Unknown antialias 'bicubc'.*Did you mean 'bicubic'",
        {"op": "super-resolution", "scale": 2, "antialias": "bicubc"},
    ),
    "boundary": (
        ValueError, "boundary is .valid. or .circular.; got 'same'",
        {"op": "gaussian-deblur", "width": 1, "boundary": "same"},
    ),
    "parameter": (TypeError, "denoise takes no parameters; got scale", {"op": "denoise", "scale": 2}),
    "mask's name": (ValueError, "mask='random' is no file; .*Give the mask itself", {"mask": "random"}),
    "mask's size": (ValueError, "the mask is 4 x 4 but the image is 8 x 7 .*resize", {"mask": np.ones((4, 4), bool)}),
    "mask's channels": (ValueError, "the mask is coloured; save it in grey", {"mask": values("uint8", H, W, 3)}),
    "mask's shape": (ValueError, r"\(9,\), wanted H x W", {"mask": np.full(9, 0.5)}),
    "mask's file": (FileNotFoundError, r"no file .*nothing\.png", {"mask": "nothing.png"}),
    "dark mask": (ValueError, "the mask marks no hole: .*make holes white", {"mask": np.full((H, W), 0.2)}),
    "no mask": (ValueError, "The holes are not marked: pass mask=", {}),
    "kernel's kind": (ValueError, "A kernel is a tensor or a numpy array; got str", {"op": "deblur", "kernel": "k"}),
    "kernel's size": (
        ValueError, r"sides of 1 to 61 pixels; got \(1, 63, 63\)", {"op": "deblur", "kernel": np.ones((63, 63))}
    ),
    "black kernel": (ValueError, "not zero everywhere; this one is not", {"op": "deblur", "kernel": np.zeros((3, 3))}),
    "NaN kernel": (ValueError, "real, finite", {"op": "deblur", "kernel": np.full((3, 3), NAN)}),
    "width": (ValueError, "width, the standard deviation in .* got -1", {"op": "gaussian-deblur", "width": -1}),
    "wide": (ValueError, "Gaussian of width 99 .*take a width of at most 10", {"op": "gaussian-deblur", "width": 99}),
    "length": (ValueError, "length, in pixels, is .* from 1 .*got 0", {"op": "motion-deblur", "length": 0, "angle": 0}),
    "length's kind": (ValueError, "range .low, high. or a law", {"op": "motion-deblur", "length": "long", "angle": 0}),
    "scale": (ValueError, "scale is a whole number from 1 .*got 0", {"op": "super-resolution", "scale": 0}),
    "noise": (ValueError, "noise is a standard deviation, finite and >= 0; got -1", {"op": "denoise", "noise": -1}),
    "noise NaN": (ValueError, "noise is a standard deviation", {"op": "denoise", "noise": NAN}),
    "noise's type": (TypeError, "noise is a standard deviation .*got '0.1'", {"op": "denoise", "noise": "0.1"}),
    "n": (ValueError, "number of samples of each image, is a whole number from 1 .*got 0", {"op": "denoise", "n": 0}),
    "steps": (ValueError, "steps is a whole number from 1.*got 2.5", {"op": "denoise", "steps": 2.5}),
    "seed": (ValueError, "seed is 1.5", {"op": "denoise", "seed": 1.5}),
    "device": (ValueError, "device='gpu' cannot be used here", {"op": "denoise", "device": "gpu"}),
    "label": (ValueError, "trained without labels", {"op": "denoise", "label": 3}),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_ASK)
def test_what_cannot_be_asked_is_one_clear_error(case):
    error, match, options = WRONG_ASK[case]
    fails(error, match, lambda: restore(values("uint8", H, W, 3), **{"noise": 0.1, **options}))


def test_noise_that_cannot_be_estimated_is_to_be_said():
    fails(ValueError, r"cannot be estimated.*noise=0\.02", lambda: restore(values("uint8", 1, 1), "denoise"))


# ---- files ----


def bomb(side):
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = (header, b"IDAT" + zlib.compress(b""), b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks
    )


@pytest.fixture(scope="module")
def rubbish(tmp_path_factory):
    """A folder of two good images and all that may lie beside them."""
    folder = tmp_path_factory.mktemp("rubbish")
    Image.fromarray(values("uint8", H, W, 3)).save(folder / "good.png")
    Image.fromarray(values("uint8", H, W)).save(folder / "grey.png")
    for suffix in CUT:
        path = folder / f"cut-{suffix}.{suffix}"
        Image.fromarray(values("uint8", 64, 64, 3)).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (folder / "empty.png").touch()
    (folder / "no-array.npy").touch()
    (folder / "text.png").write_text("no picture")
    (folder / "bad-array.npy").write_text("no array")
    (folder / "bomb.png").write_bytes(bomb(10_000))
    (folder / "large-bomb.png").write_bytes(bomb(60_000))
    np.save(folder / "words.npy", np.array([["a", "b"]]))
    (folder / "notes.txt").write_text("notes")
    (folder / "no-suffix").write_bytes((folder / "good.png").read_bytes())
    (folder / "._good.png").write_bytes(b"of a Mac")
    (folder / "Thumbs.db").write_bytes(b"of Windows")
    (folder / "folder.png").mkdir()
    (folder / "dangling.png").symlink_to(folder / "gone.png")
    return folder


CUT = ("png", "jpg", "webp", "tif", "bmp")
FILES = {
    **{f"cut-{s}.{s}": (ValueError, "cannot be read as an image: .*whole") for s in CUT},
    "empty.png": (ValueError, "cannot be read as an image"),
    "text.png": (ValueError, "cannot be read as an image"),
    "notes.txt": (ValueError, "cannot be read as an image"),
    "bomb.png": (ValueError, "claims more pixels than PIL's limit .*if you trust it"),
    "large-bomb.png": (ValueError, "claims more pixels than PIL's limit .*if you trust it"),
    "folder.png": (IsADirectoryError, "is a folder.*give the files"),
    "goood.png": (FileNotFoundError, r"There is no file .*goood\.png.*Did you mean .*good\.png"),
    "dangling.png": (FileNotFoundError, r"There is no file .*dangling\.png"),
    "nowhere/at/all.png": (FileNotFoundError, r"There is no file .*all\.png"),
    "good.png/good.png": (FileNotFoundError, r"There is no file .*good\.png"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", [str, Path])
def test_files_that_are_no_images_are_one_clear_error(name, kind, rubbish):
    error, match = FILES[name]
    fails(error, match, lambda: restore(kind(rubbish / name), "denoise", noise=0.1))


def test_a_file_without_a_suffix_is_read_by_what_it_holds(rubbish):
    back = restore(rubbish / "no-suffix", mask=holes(), noise=0).image
    np.testing.assert_array_equal(np.asarray(back)[~holes()], values("uint8", H, W, 3)[~holes()])


def test_a_folder_of_rubbish_is_restored_as_far_as_it_goes(rubbish, tmp_path, capfd):
    (tmp_path / "prior").mkdir()
    write_prior(NET, tmp_path / "prior", {})
    command = f"restore {rubbish} -o {tmp_path / 'x'} --op denoise --noise 0.1 --prior {tmp_path / 'prior'}"
    assert main([*command.split(), "--sampler", "diffpir", "--steps", "2", "--device", "cpu"]) == 1
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["good.png", "grey.png"]
    out, err = capfd.readouterr()
    assert "Traceback" not in out + err
    bad = [
        path
        for path in sorted(rubbish.iterdir())
        if path.stem.startswith(("cut", "no-array", "empty", "text", "bad", "bomb", "large"))
    ]
    bad.append(rubbish / "words.npy")
    told = err.splitlines()
    assert all(sum(line.startswith(f"genprior: {path}: ") for line in told) == 1 for path in bad)
    assert told[-1] == f"genprior: {len(bad)} of {len(bad) + 2} failed"
    skipped = "skipped 3 files whose suffix is of no image: Thumbs.db, no-suffix, notes.txt"
    assert told[0] == f"genprior: {rubbish}: {skipped}"
    assert len(told) == len(bad) + 2
    for wrong in ("nowhere", "notes.txt"):
        assert main(["restore", str(rubbish / wrong), "-o", str(tmp_path / "y"), "--op", "denoise"]) == 1
