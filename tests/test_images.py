"""What users give comes in with the right values and goes back as the same kind."""

import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from skimage import data

from genprior.images import IMAGE_SUFFIXES, grid, list_images, read, read_mask, save

# float32 holds v / 65535 to 2^-24, so values are compared to 2^-22; integers must come back exactly.
ROUNDING = 2**-22
H, W = 6, 5


def random_array(dtype, *shape):
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "u":
        return rng.integers(0, np.iinfo(dtype).max, shape, endpoint=True).astype(dtype)
    return rng.random(shape).astype(dtype)


def assert_values(x, expected):
    np.testing.assert_allclose(x.numpy(), expected, rtol=0, atol=ROUNDING)


def assert_same(array, expected):
    assert array.dtype == expected.dtype
    np.testing.assert_array_equal(array, expected)


# ---- numpy ----


@pytest.mark.parametrize("shape", [(H, W), (H, W, 1), (H, W, 2), (H, W, 3), (H, W, 4), (2, H, W, 1), (2, H, W, 4)])
@pytest.mark.parametrize(("dtype", "white"), [("uint8", 255), ("uint16", 65535), (">u2", 65535), ("float32", 1)])
def test_numpy_array_is_scaled_by_white_and_comes_back_identical(dtype, white, shape):
    array = random_array(dtype, *shape)
    picture = read(array)
    channels = array.reshape(shape[0] if len(shape) == 4 else 1, H, W, -1).transpose(0, 3, 1, 2) / white
    n_alpha = 1 if channels.shape[1] in (2, 4) else 0
    assert_values(picture.x, channels[:, : channels.shape[1] - n_alpha])
    assert picture.x.dtype == torch.float32
    if n_alpha:
        assert_values(picture.alpha, channels[:, -1:])
    else:
        assert picture.alpha is None
    assert_same(picture.like(picture.x), array)


@pytest.mark.parametrize(("dtype", "eps"), [("float16", 0), ("float64", 2**-25)])
def test_other_floats_come_back_in_their_dtype(dtype, eps):
    array = random_array(dtype, H, W, 3)
    picture = read(array)
    back = picture.like(picture.x)
    assert back.dtype == array.dtype
    # float32 rounds a float64 in [0, 1] by at most 2^-25 and holds every float16.
    np.testing.assert_allclose(back, array, rtol=0, atol=eps)


def test_boolean_array_is_zero_and_one_and_comes_back_as_float32():
    array = random_array("float32", H, W) > 0.5
    picture = read(array)
    assert_same(picture.x[0, 0].numpy(), array.astype(np.float32))
    assert_same(picture.like(picture.x / 2), array.astype(np.float32) / 2)


def test_integers_are_rounded_and_clipped_on_the_way_back():
    picture = read(np.zeros((1, 4), np.uint8))
    x = torch.tensor([[[[-0.2, 1.3, 100.4 / 255, 100.6 / 255]]]])
    assert_same(picture.like(x), np.array([[0, 255, 100, 101]], np.uint8))


def test_negative_strides_and_read_only_arrays_are_read_by_value():
    array = random_array("float32", H, W)
    array.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_values(read(array[::-1, ::-1]).x[0, 0], array[::-1, ::-1])


# ---- torch ----


@pytest.mark.parametrize("shape", [(1, H, W), (3, H, W), (4, H, W), (7, 1, 1), (2, 2, H, W)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_torch_tensor_keeps_its_channels_and_comes_back_identical(dtype, shape):
    tensor = torch.from_numpy(random_array("float32", *shape)).to(dtype).requires_grad_()
    picture = read(tensor)
    torch.testing.assert_close(picture.x, tensor.detach().float().reshape(-1, *shape[-3:]), rtol=0, atol=0)
    assert picture.alpha is None
    assert not picture.x.requires_grad
    torch.testing.assert_close(picture.like(picture.x), tensor.detach(), rtol=0, atol=0)


def test_float64_tensor_becomes_float32_and_comes_back_as_float64():
    tensor = torch.from_numpy(random_array("float64", 3, H, W))
    picture = read(tensor)
    assert picture.x.dtype == torch.float32
    torch.testing.assert_close(picture.like(picture.x), tensor, rtol=0, atol=2**-25)


# ---- PIL ----


@pytest.mark.parametrize(("mode", "bands"), [("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4)])
def test_8_bit_pil_image_comes_back_identical(mode, bands):
    array = random_array("uint8", H, W, bands)
    image = Image.fromarray(array[..., 0] if bands == 1 else array)
    picture = read(image)
    colours = bands - (bands in (2, 4))
    assert_values(picture.x[0], array.transpose(2, 0, 1)[:colours] / 255)
    assert (picture.alpha is None) == (bands == colours)
    back = picture.like(picture.x)
    assert back.mode == image.mode == mode
    np.testing.assert_array_equal(np.asarray(back), np.asarray(image))


def single_pixel(mode, value):
    return Image.new(mode, (2, 1), value)


def palette_pixel(transparency=None, mode="P"):
    image = Image.new(mode, (2, 1), (1, 102) if mode == "PA" else 1)
    image.putpalette([0, 0, 0, 255, 51, 0])
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


@pytest.mark.parametrize(
    ("image", "colour", "alpha", "mode_back"),
    [
        (single_pixel("1", 1), [1], None, "L"),
        (single_pixel("La", (51, 102)), [127 / 255], 0.4, "LA"),
        (single_pixel("RGBX", (255, 51, 0, 9)), [1, 0.2, 0], None, "RGB"),
        (single_pixel("RGBa", (102, 51, 0, 102)), [1, 127 / 255, 0], 0.4, "RGBA"),
        (single_pixel("CMYK", (0, 204, 255, 0)), [1, 0.2, 0], None, "RGB"),
        (single_pixel("YCbCr", (51, 128, 128)), [0.2, 0.2, 0.2], None, "RGB"),
        (single_pixel("HSV", (0, 255, 255)), [1, 0, 0], None, "RGB"),
        (palette_pixel(), [1, 0.2, 0], None, "RGB"),
        (palette_pixel(transparency=1), [1, 0.2, 0], 0, "RGBA"),
        (palette_pixel(transparency=b"\xff\x66"), [1, 0.2, 0], 0.4, "RGBA"),
        (palette_pixel(mode="PA"), [1, 0.2, 0], 0.4, "RGBA"),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else None,
)
def test_other_pil_modes_are_read_as_their_colour_and_alpha(image, colour, alpha, mode_back):
    picture = read(image)
    np.testing.assert_allclose(picture.x[0, :, 0, 0], colour, atol=ROUNDING)
    np.testing.assert_allclose(picture.x[0, :, 0, 1], colour, atol=ROUNDING)
    if alpha is None:
        assert picture.alpha is None
    else:
        assert float(picture.alpha[0, 0, 0, 0]) == pytest.approx(alpha, abs=ROUNDING)
    back = picture.like(picture.x)
    assert back.mode == mode_back
    np.testing.assert_array_equal(
        np.atleast_1d(np.asarray(back)[0, 0]), np.rint(np.array([*colour, *([] if alpha is None else [alpha])]) * 255)
    )


def test_lab_white_is_read_as_white():
    image = Image.new("LAB", (2, 1), (255, 128, 128))
    np.testing.assert_allclose(read(image).x, 1, atol=2 / 255)  # the rounding of two 8-bit colour spaces


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L", "I"])
def test_16_bit_grey_pil_image_keeps_all_16_bits(mode):
    array = random_array("uint16", H, W)
    dtype = {"I;16B": ">u2", "I": "<i4"}.get(mode, "<u2")
    image = Image.frombytes(mode, (W, H), array.astype(dtype).tobytes())
    picture = read(image)
    assert_values(picture.x[0, 0], array / 65535)
    back = picture.like(picture.x)
    assert back.mode == "I;16"
    assert_same(np.asarray(back), array)


def test_float_pil_image_keeps_its_floats():
    array = random_array("float32", H, W)
    back = read(Image.fromarray(array)).like(torch.from_numpy(array)[None, None])
    assert back.mode == "F"
    assert_same(np.asarray(back), array)


def test_colour_profile_is_kept_with_its_colours_only():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    images = {mode: Image.new(mode, (2, 2)) for mode in ("L", "RGB", "RGBA", "P", "CMYK")}
    for image in images.values():
        image.info["icc_profile"] = profile
    kept = {mode: read(image).like(torch.rand(1, 3, 2, 2)).info.get("icc_profile") for mode, image in images.items()}
    assert kept == {"L": None, "RGB": profile, "RGBA": profile, "P": profile, "CMYK": None}
    assert read(images["L"]).like(torch.rand(1, 1, 2, 2)).info["icc_profile"] == profile


# ---- files ----


def test_16_bit_png_file_keeps_all_16_bits(tmp_path):
    array = random_array("uint16", H, W)
    Image.fromarray(array).save(tmp_path / "deep.png")
    picture = read(tmp_path / "deep.png")
    assert_values(picture.x[0, 0], array / 65535)
    assert_same(np.asarray(picture.like(picture.x)), array)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_transparent_grey_level_of_a_png_file_becomes_alpha(tmp_path, dtype):
    Image.fromarray(np.array([[0, 70, 200]], dtype)).save(tmp_path / "key.png", transparency=70)
    picture = read(str(tmp_path / "key.png"))
    assert picture.alpha.flatten().tolist() == [1, 0, 1]
    back, white = picture.like(picture.x), np.iinfo(dtype).max
    assert back.mode == "LA" if dtype == "uint8" else back.dtype == np.uint16  # PIL has no such mode of 16 bits
    np.testing.assert_array_equal(np.asarray(back), [[[0, white], [70, 0], [200, white]]])


def test_palette_png_file_with_transparency_is_read_as_rgba(tmp_path):
    palette_pixel().save(tmp_path / "palette.png", transparency=b"\xff\x66")
    picture = read(tmp_path / "palette.png")
    np.testing.assert_allclose(picture.x[0, :, 0, 0], [1, 0.2, 0], atol=ROUNDING)
    assert float(picture.alpha[0, 0, 0, 0]) == pytest.approx(0.4)


@pytest.mark.parametrize("suffix", [".tif", ".webp"])
def test_first_of_several_frames_is_read(tmp_path, suffix):
    frames = [Image.new("RGB", (W, H), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / f"frames{suffix}", save_all=True, append_images=frames[1:], lossless=True)
    assert read(tmp_path / f"frames{suffix}").x[0, :, 0, 0].tolist() == [1, 0, 0]


# Orientation 2..8 is how the stored picture must be turned: what a camera held that way has written.
ORIENTATIONS = {
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(np.swapaxes(a, 0, 1), 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_jpeg_file_is_turned_by_its_exif_orientation(tmp_path, orientation):
    array = data.astronaut()[:48, :64]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(array).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    stored = np.asarray(Image.open(tmp_path / "turned.jpg"))
    picture = read(tmp_path / "turned.jpg")
    assert_values(picture.x[0], ORIENTATIONS[orientation](stored).transpose(2, 0, 1) / 255)
    # Given back upright and without the tag, or viewers would turn it again.
    assert 0x0112 not in picture.like(picture.x).getexif()


def png_that_claims(width, height):
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(b"")
    chunks = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, pixels, b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("side", [10_000, 20_000])  # PIL warns of the first, refuses the second
def test_decompression_bomb_is_one_clear_error_and_pil_is_left_as_it_was(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(png_that_claims(side, side))
    limit, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    with pytest.raises(ValueError, match=r"bomb\.png claims more pixels .* pass the PIL image"):
        read(tmp_path / "bomb.png")
    assert limit == Image.MAX_IMAGE_PIXELS
    assert warnings.filters == filters


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
def test_truncated_file_is_one_clear_error(tmp_path, suffix):
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    save(Image.fromarray(data.astronaut()[:64, :64]), whole)
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"cut\{suffix} cannot be read as an image"):
        read(cut)


def test_truncated_file_that_pil_opened_lazily_is_the_same_error(tmp_path):
    save(Image.fromarray(data.astronaut()[:64, :64]), tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    with (
        Image.open(tmp_path / "cut.png") as image,
        pytest.raises(ValueError, match="the PIL image cannot be read as an image"),
    ):
        read(image)


def test_file_that_is_no_image_and_missing_file_are_named(tmp_path):
    (tmp_path / "notes.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"notes\.png cannot be read as an image"):
        read(tmp_path / "notes.png")
    with pytest.raises(FileNotFoundError, match=r"absent\.png"):
        read(tmp_path / "absent.png")


# ---- what is refused ----

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (np.zeros((3, 8, 3)), ValueError, r"\(3, 8, 3\) is ambiguous.*torch"),
        (np.zeros((3, 3, 2)), ValueError, "ambiguous"),
        (np.zeros((2, 3, 8, 3)), ValueError, "ambiguous"),
        (np.zeros((3, 3, 8)), ValueError, "looks like channels first.*moveaxis"),
        (np.zeros((2, 1, 8, 8)), ValueError, "looks like channels first"),
        (np.zeros((8, 8, 5)), ValueError, r"\(8, 8, 5\), wanted H x W"),
        (np.zeros(8), ValueError, r"\(8,\), wanted H x W"),
        (np.zeros((0, 8)), ValueError, r"empty.*\(0, 8\)"),
        (np.zeros((8, 8, 0)), ValueError, "empty"),
        (np.zeros((8, 8), np.int32), TypeError, "int32, wanted uint8, uint16, bool or float"),
        (np.zeros((8, 8), np.uint32), TypeError, "uint32"),
        (np.zeros((8, 8), complex), TypeError, "complex128"),
        (np.full((8, 8), NAN), ValueError, "64 values that are not finite"),
        (np.full((8, 8), INF), ValueError, "64 values that are not finite"),
        (np.full((8, 8), 1e300), ValueError, "not finite in float32"),
        (np.full((8, 8), 200.0), ValueError, r"from 200 to 200, wanted \[0, 1\]; divide"),
        (torch.zeros(8, 8), ValueError, r"\(8, 8\), wanted C x H x W .*x\[None\]"),
        (torch.zeros(1, 1, 1, 8, 8), ValueError, "wanted C x H x W"),
        (torch.zeros(3, 0, 8), ValueError, "empty"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), TypeError, "uint8.*divide it by 255"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), TypeError, r"int64.*\.float\(\)"),
        (torch.full((3, 8, 8), -1.0), ValueError, r"from -1 to -1.*\(x \+ 1\) / 2"),
        (torch.full((3, 8, 8), NAN), ValueError, "192 values that are not finite"),
        (Image.new("L", (0, 3)), ValueError, "the PIL image is empty"),
        (Image.new("I", (2, 2), 70_000), ValueError, "from 70000 to 70000, wanted 16 bits"),
        (Image.new("F", (2, 2), 3.0), ValueError, "from 3 to 3"),
        ({}, TypeError, r"got builtins\.dict"),
        (b"raw", TypeError, r"got builtins\.bytes"),
        ([], ValueError, "the list is empty"),
        ([[0.5]], TypeError, r"image 0 of the list: .*got builtins\.float"),
        ([np.zeros((8, 8)), np.zeros((8, 9))], ValueError, "item 0 is 1 x 8 x 8 and item 1 is 1 x 8 x 9"),
        ([np.zeros((8, 8)), np.zeros((8, 8, 3))], ValueError, "item 0 is 1 x 8 x 8 and item 1 is 3 x 8 x 8"),
        ([torch.zeros(2, 1, 8, 8)], ValueError, "item 0 of the list is a batch of 2"),
        ([np.zeros((8, 8)), np.full((8, 8), 2.0)], ValueError, "image 1 of the list: .*from 2 to 2"),
    ],
)
def test_bad_input_gets_one_error_that_names_it(given, error, message):
    with pytest.raises(error, match=message):
        read(given)


def test_unknown_role_is_refused():
    with pytest.raises(ValueError, match="role 'photo' is unknown"):
        read(np.zeros((8, 8)), role="photo")


@pytest.mark.parametrize("make", [np.asarray, lambda array: torch.from_numpy(array)[None], Image.fromarray])
def test_measurement_may_have_any_finite_values_and_is_never_clipped(make):
    array = np.linspace(-300, 500, H * W, dtype=np.float32).reshape(H, W)
    given = make(array)
    np.testing.assert_array_equal(read(given, role="measurement").x[0, 0], array)
    with pytest.raises(ValueError, match=r"from -300 to 500, wanted \[0, 1\]"):
        read(given)
    with pytest.raises(ValueError, match="not finite"):
        read(np.full((8, 8), INF), role="measurement", nan=True)


def test_image_may_leave_its_range_by_the_tolerance_and_no_more():
    read(torch.tensor([[[-0.0009, 1.0009]]]))
    with pytest.raises(ValueError, match=r"from 0 to 1\.001"):
        read(torch.tensor([[[0, 1.0011]]]))


@pytest.mark.parametrize("role", ["image", "measurement"])
def test_nan_is_kept_where_it_was_asked_for(role):
    array = np.array([[0.5, NAN]], np.float32)
    np.testing.assert_array_equal(read(array, role=role, nan=True).x[0, 0], array)
    assert read(np.full((2, 5), NAN), role=role, nan=True).x.isnan().all()
    with pytest.raises(ValueError, match=r"1 values that are not finite.*mask="):
        read(array, role=role)


def test_nan_does_not_hide_values_out_of_range():
    for value in (3.0, -3.0):
        with pytest.raises(ValueError, match=rf"{value:.0f}.*wanted \[0, 1\]"):
            read(np.array([[0.5, NAN, value]]), nan=True)


def test_alpha_is_checked_in_a_measurement_too():
    array = np.full((H, W, 4), 0.5)
    array[..., 3] = 2
    with pytest.raises(ValueError, match="the alpha of the array has values from 2 to 2"):
        read(array, role="measurement")
    array[..., 3] = NAN
    with pytest.raises(ValueError, match="the alpha of the array holds 30 values"):
        read(array, role="measurement", nan=True)


# ---- like ----


def test_grey_input_that_gained_colour_comes_back_in_colour():
    x = torch.from_numpy(random_array("uint8", 1, 3, H, W) / 255).float()
    expected = np.rint(x[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    assert_same(read(np.zeros((H, W), np.uint8)).like(x), expected)
    for mode in ("L", "I;16", "F"):
        back = read(Image.new(mode, (W, H))).like(x)
        assert back.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(back), expected)


def test_alpha_follows_the_size_of_the_image():
    soft = np.array([[0, 51, 102, 153, 204]], np.float32).repeat(5, 0) / 255
    hard = (soft > 0.3).astype(np.float32)
    x = torch.full((1, 1, 10, 10), 0.25)
    for alpha, expected in [
        (hard, hard.repeat(2, 0).repeat(2, 1)),
        # Bilinear with pixel centres: output column j samples the input at j / 2 - 1 / 4.
        (soft, np.interp(np.arange(10) / 2 - 0.25, np.arange(5), soft[0]).repeat(10).reshape(10, 10).T),
    ]:
        back = read(np.stack([np.ones((5, 5)), alpha], -1)).like(x)
        np.testing.assert_array_equal(back[..., 0], 0.25)
        np.testing.assert_allclose(back[..., 1], expected, atol=1e-6)


def test_alpha_is_left_out_where_it_was_not_wanted():
    picture = read(Image.new("RGBA", (W, H), (255, 51, 0, 102)))
    assert picture.like(picture.x, alpha=False).getpixel((0, 0)) == (255, 51, 0)
    assert read(random_array("uint8", H, W, 2)).like(torch.zeros(1, 1, H, W), alpha=False).shape == (H, W, 1)


def test_like_refuses_what_the_kind_cannot_hold():
    picture = read(np.zeros((H, W), np.uint8))
    with pytest.raises(ValueError, match=r"\(2, 1, 6, 5\), wanted \(1, C, H, W\)"):
        picture.like(torch.zeros(2, 1, H, W))
    with pytest.raises(ValueError, match="NaN, which uint8 cannot"):
        picture.like(torch.full((1, 1, H, W), NAN))
    with pytest.raises(ValueError, match="1 or 3 channels; got 2"):
        read(Image.new("L", (W, H))).like(torch.zeros(1, 2, H, W))


def test_list_of_kinds_is_one_batch_and_comes_back_kind_by_kind(tmp_path):
    array = random_array("uint8", H, W, 4)
    Image.fromarray(array[..., :3]).save(tmp_path / "photo.png")
    tensor = torch.from_numpy(random_array("float32", 3, H, W))
    given = [tmp_path / "photo.png", array, tensor, Image.fromarray(array)]
    picture = read(given)
    for k, item in enumerate(given):
        torch.testing.assert_close(picture.x[k : k + 1], read(item).x, rtol=0, atol=0)
    assert_values(picture.alpha[:, 0], np.stack([np.ones((H, W)), array[..., 3] / 255] * 2)[[0, 1, 0, 1]])
    photo, numpy_back, tensor_back, pil_back = picture.like(picture.x)
    assert photo.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(photo), array[..., :3])
    assert_same(numpy_back, array)
    torch.testing.assert_close(tensor_back, tensor, rtol=0, atol=0)
    np.testing.assert_array_equal(np.asarray(pil_back), array)
    assert_same(picture.like(picture.x, alpha=False)[1], array[..., :3])


def test_picture_of_a_list_has_no_alpha_if_no_item_has():
    assert read([np.zeros((H, W)), np.zeros((H, W))]).alpha is None


# ---- masks ----

HOLES = random_array("float32", H, W) > 0.5


@pytest.mark.parametrize(
    "mask",
    [
        HOLES,
        HOLES[..., None],
        HOLES.astype(np.uint8),
        HOLES.astype(np.int64),
        HOLES.astype(np.uint8) * 255,
        HOLES.astype(np.float32) * 0.4 + 0.3,
        np.stack([HOLES] * 3, -1).astype(np.uint8) * 255,
        torch.from_numpy(HOLES),
        torch.from_numpy(HOLES)[None],
        torch.from_numpy(HOLES)[None, None].double(),
        torch.from_numpy(HOLES).long(),
        Image.fromarray(HOLES),
        Image.fromarray(HOLES.astype(np.uint8) * 255),
        Image.fromarray(HOLES.astype(np.uint8) * 255).convert("RGBA"),
        Image.fromarray(HOLES.astype(np.uint16) * 65535),
        [HOLES],
    ],
    ids=lambda m: f"{type(m).__name__}-{getattr(m, 'dtype', None) or getattr(m, 'mode', '')}-{getattr(m, 'shape', '')}",
)
def test_mask_of_every_kind_marks_the_same_holes(mask):
    holes = read_mask(mask, size=(H, W))
    assert holes.dtype == torch.bool
    np.testing.assert_array_equal(holes, HOLES[None, None])


def test_mask_file_of_jpeg_grey_survives_compression(tmp_path):
    blocks = np.kron(HOLES, np.ones((8, 8))).astype(np.uint8) * 255
    save(Image.fromarray(blocks).convert("RGB"), tmp_path / "mask.jpg")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.jpg")[0, 0], blocks > 0)


def test_holes_start_at_one_half():
    assert read_mask(np.array([[0.4999, 0.5, 0.9]])).flatten().tolist() == [False, True, True]


@pytest.mark.parametrize("value", [False, True])
def test_mask_without_and_with_holes_only_is_read_as_it_is(value):
    assert (read_mask(np.full((H, W), value)) == value).all()
    assert (read_mask(Image.new("L", (W, H), 255 * value)) == value).all()


def test_each_mask_of_a_batch_has_a_white_of_its_own():
    """0 and 1, 0 and 255, and holes only: in a batch as alone."""
    masks = np.zeros((3, 4, 5, 1), np.uint8)
    masks[0, :2], masks[1, 2:], masks[2] = 1, 255, 1
    together = read_mask(masks)
    assert torch.equal(together, torch.cat([read_mask(mask) for mask in masks]))
    assert together.flatten(1).sum(1).tolist() == [10, 10, 20]
    masks[1] = masks[1] // 255 * 3  # of which none is white
    with pytest.raises(ValueError, match="marks no hole"):
        read_mask(masks)


def test_masks_of_a_batch_stay_in_order():
    both = np.stack([HOLES, ~HOLES])
    for masks in (list(both), both[..., None], torch.from_numpy(both)[:, None]):
        np.testing.assert_array_equal(read_mask(masks)[:, 0], both)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((H, W + 1), bool), "the mask is 6 x 6 but the image is 6 x 5"),
        (Image.new("RGB", (W, H), "red"), "coloured"),
        (Image.new("RGBA", (W, H), (255, 255, 255, 128)), "transparent"),
        (Image.new("L", (W, H), 1), "marks no hole"),
        (np.full((H, W), -1.0), "from -1 to -1"),
        (np.full((H, W), NAN), "not finite"),
        (torch.zeros(3, H, W), "mask tensor is H x W, .* got 3 x 6 x 5"),
        ([], "the list is empty"),
        ([HOLES, HOLES[1:]], "item 0 is 1 x 6 x 5 and item 1 is 1 x 5 x 5"),
    ],
)
def test_bad_mask_gets_one_error_that_names_it(mask, message):
    with pytest.raises(ValueError, match=message):
        read_mask(mask, size=(H, W))


# ---- sheets, saving, folders ----


def test_grid_puts_every_image_in_its_cell_on_white():
    x = torch.from_numpy(random_array("float32", 5, 3, H, W)) * 2 - 0.5
    for columns, pad in [(None, 2), (2, 0), (7, 1)]:
        sheet = grid(x, columns, pad=pad)
        n = columns or 3
        rows = -(-5 // n)
        assert sheet.shape == (3, rows * (H + pad) - pad, n * (W + pad) - pad)
        expected = torch.ones_like(sheet)
        for k in range(5):
            top, left = k // n * (H + pad), k % n * (W + pad)
            expected[:, top : top + H, left : left + W] = x[k].clamp(0, 1)
        torch.testing.assert_close(sheet, expected, rtol=0, atol=0)


@pytest.mark.parametrize(("shape", "columns", "pad"), [((3, H, W), 1, 0), ((0, 3, H, W), 1, 0), ((1, 3, H, W), 0, 0)])
def test_grid_refuses_what_it_cannot_lay_out(shape, columns, pad):
    with pytest.raises(ValueError, match="wanted"):
        grid(torch.zeros(shape), columns, pad)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", [".png", ".PNG", ".tif", ".tiff", ".bmp", ".webp"])
def test_saved_tensor_is_read_back_rounded_to_8_bits(tmp_path, suffix, channels):
    x = torch.from_numpy(random_array("float32", channels, H, W)) * 1.2 - 0.1
    save(x, tmp_path / "new" / f"image{suffix}")
    back = read(tmp_path / "new" / f"image{suffix}").x[0]
    # WebP has no grey: it comes back as three equal channels.
    torch.testing.assert_close(back, (x.clamp(0, 1) * 255).round().div(255).expand_as(back), rtol=0, atol=ROUNDING)
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_saved_pil_image_keeps_depth_alpha_and_profile(tmp_path):
    deep = random_array("uint16", H, W)
    save(Image.fromarray(deep), tmp_path / "deep.png")
    assert_same(np.asarray(Image.open(tmp_path / "deep.png")), deep)
    rgba = Image.fromarray(random_array("uint8", H, W, 4))
    rgba.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for suffix in (".png", ".tif", ".webp"):
        save(rgba, tmp_path / f"rgba{suffix}")
        back = Image.open(tmp_path / f"rgba{suffix}")
        assert back.info["icc_profile"] == rgba.info["icc_profile"]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "rgba.png")), np.asarray(rgba))


def test_failed_save_leaves_the_old_file_and_nothing_else(tmp_path):
    save(Image.new("RGB", (W, H), "red"), tmp_path / "a.jpg")
    before = (tmp_path / "a.jpg").read_bytes()
    with pytest.raises(ValueError, match="mode RGBA cannot be written as JPEG"):
        save(Image.new("RGBA", (W, H)), tmp_path / "a.jpg")
    assert (tmp_path / "a.jpg").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.jpg"]


def test_save_refuses_what_it_cannot_write(tmp_path):
    with pytest.raises(ValueError, match=r"a\.xyz has no suffix of an image; choose one of \.png"):
        save(torch.zeros(1, H, W), tmp_path / "a.xyz")
    with pytest.raises(ValueError, match=r"\(1, 1, 6, 5\), wanted \(C, H, W\)"):
        save(torch.zeros(1, 1, H, W), tmp_path / "a.png")
    with pytest.raises(ValueError, match="1 or 3 channels; got 2"):
        save(torch.zeros(2, H, W), tmp_path / "a.png")
    with pytest.raises(ValueError, match="NaN"):
        save(torch.full((1, H, W), NAN), tmp_path / "a.png")
    with pytest.raises(TypeError, match=r"got numpy\.ndarray"):
        save(np.zeros((H, W)), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_images_of_a_folder_are_listed_sorted_and_with_subfolders(tmp_path):
    names = ["b.PNG", "a.jpg", "sub/deep/c.tiff", "sub/d.webp"]
    for name in [*names, "notes.txt", "._a.jpg", "sub/none"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    with pytest.warns(UserWarning, match=r"skipped 2 files whose suffix is of no image: notes\.txt, sub/none"):
        assert list_images(tmp_path) == sorted(tmp_path / name for name in names)
    assert {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"} == set(IMAGE_SUFFIXES)
    with pytest.raises(NotADirectoryError, match="absent is not a folder"):
        list_images(tmp_path / "absent")
