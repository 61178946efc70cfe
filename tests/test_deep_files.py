"""Files of more bits than PIL holds: read whole, in the right sense, and written as they came."""

import io
import itertools
import struct
import warnings
import zlib

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import genprior
from genprior.cli import main
from genprior.images import read, read_mask, save
from genprior.images.deep import bits_lost
from genprior.images.pixels import Deep
from genprior.training.data import Photos

# float32 holds v / 65535 to 2^-24, so values are compared to 2^-22; integers must come back exactly.
ROUNDING = 2**-22
H, W = 7, 5
PROFILE = b"what the colours mean"


def values(*shape, dtype="uint16", seed=0):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "u":
        return rng.integers(0, np.iinfo(dtype).max, shape, endpoint=True).astype(dtype)
    return rng.random(shape).astype(dtype)


def write_png(path, array, *chunks, interlaced=False):
    """Colour types by channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha."""
    height, width, channels = array.shape

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    begins = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    passes = [array[i::di, j::dj] for i, j, di, dj in begins] if interlaced else [array]
    rows = [b"\0" + row.astype(">u2").tobytes() for part in passes if part.size for row in part]
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, int(interlaced))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    return path


def lzw(content):
    """TIFF's LZW without its dictionary: the code is reset before it would grow beyond 9 bits."""
    codes = [code for k, byte in enumerate(content) for code in ([256, byte] if k % 200 == 0 else [byte])]
    bits = "".join(f"{code:09b}" for code in [*codes, 257])
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def write_tiff(path, content, shape, bits, *, photometric, compression=1, order="<", orientation=1):
    height, width, channels = shape
    content = lzw(content) if compression == 5 else content
    count = 10
    each = 8 + 2 + 12 * count + 4
    place = each + 2 * channels
    tags = [(256, width), (257, height), (258, bits), (259, compression), (262, photometric), (273, place),
            (274, orientation), (277, channels), (278, height), (279, len(content))]  # fmt: skip
    file = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, count)
    for code, value in tags:
        if code == 258 and channels > 1:
            file += struct.pack(f"{order}HHII", code, 3, channels, each)
        else:
            file += struct.pack(f"{order}HHI", code, 4, 1) + struct.pack(f"{order}I", value)
    path.write_bytes(file + struct.pack(f"{order}I{channels}H", 0, *[bits] * channels) + content)
    return path


def assert_whole(path, array):
    """Read to the last bit; and written in both formats that hold it, it is what it was."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = read(path, role="measurement")
    white = np.iinfo(array.dtype).max if array.dtype.kind == "u" else 1
    x = picture.x if picture.alpha is None else torch.cat([picture.x, picture.alpha], 1)
    np.testing.assert_allclose(x[0].permute(1, 2, 0).numpy(), array / white, rtol=0, atol=ROUNDING)
    back = picture.like(picture.x)
    np.testing.assert_array_equal(np.asarray(back).reshape(array.shape), array.astype(np.asarray(back).dtype))
    for suffix in (".png", ".tif", ".TIFF"):
        if array.dtype.kind == "u" or suffix != ".png":
            save(back, path.with_name(f"again{suffix}"))
            again = read(path.with_name(f"again{suffix}"), role="measurement")
            assert torch.equal(again.x, picture.x)
            assert (again.alpha is None) == (picture.alpha is None)
            assert again.alpha is None or torch.equal(again.alpha, picture.alpha)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_of_16_bits_is_read_whole_and_comes_back_whole(tmp_path, channels, interlaced):
    array = values(H, W, channels)
    assert_whole(write_png(tmp_path / "a.png", array, interlaced=interlaced), array)


def test_the_transparent_colour_of_a_16_bit_png_is_compared_in_all_its_bits(tmp_path):
    """The pixel beside it differs in the last bit only."""
    array = values(H, W, 3)
    array[0, 1] = array[0, 0] ^ 1
    path = write_png(tmp_path / "a.png", array, (b"tRNS", array[0, 0].astype(">u2").tobytes()))
    alpha = read(path).alpha[0, 0]
    assert float(alpha[0, 0]) == 0
    assert float(alpha.sum()) == H * W - 1


@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_tiff_of_deep_colour_is_read_whole_and_comes_back_whole(tmp_path, dtype, order, compression, planes):
    array = values(H, W, 3, dtype=dtype)
    given = array if planes == "contig" else np.moveaxis(array, -1, 0)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, given, photometric="rgb", planarconfig=planes, compression=compression, byteorder=order)
    assert_whole(path, array)


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_tiff_with_alpha_is_read_whole_and_comes_back_whole(tmp_path, dtype, channels):
    array = values(H, W, channels, dtype=dtype)
    photometric = "rgb" if channels == 4 else "minisblack"
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, photometric=photometric, planarconfig="contig", extrasamples=["unassalpha"])
    assert_whole(path, array)


def test_colours_of_a_tiff_that_are_multiplied_by_alpha_are_divided_by_it(tmp_path):
    alpha = values(H, W, 1) // 2 + 32768
    array = values(H, W, 3)
    multiplied = np.rint(array * (alpha / 65535)).astype(np.uint16)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.concatenate([multiplied, alpha], -1), photometric="rgb", extrasamples=["assocalpha"])
    x = read(path).x[0].permute(1, 2, 0).numpy()
    # half a step of rounding before it is divided by at least a half, and half a step after
    np.testing.assert_allclose(x, array / 65535, rtol=0, atol=1.5 / 65535 + ROUNDING)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(H, W), (H, W, 3)])
def test_tiff_of_floats_is_read_and_beyond_one_only_as_a_measurement(tmp_path, dtype, shape):
    array = 3 * values(*shape, dtype=dtype) - 1
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, photometric="rgb" if len(shape) == 3 else "minisblack")
    x = read(path, role="measurement").x[0].permute(1, 2, 0).numpy().reshape(shape)
    np.testing.assert_allclose(x, array.astype(np.float32), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"a\.tif has values from -.* wanted \[0, 1\]"):
        read(path)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", [1, 5])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiff_of_deep_colour_is_turned_and_decompressed_as_one_of_8_bits(tmp_path, orientation, compression, order):
    """PIL reads the one of 8 bits, and its LZW; tifffile alone would not know that compression."""
    array = values(H, W, 3)
    settings = {"photometric": 2, "compression": compression, "order": order, "orientation": orientation}
    deep = write_tiff(tmp_path / "a.tif", array.astype(f"{order}u2").tobytes(), array.shape, 16, **settings)
    high = (array >> 8).astype(np.uint8)
    flat = write_tiff(tmp_path / "b.tif", high.tobytes(), array.shape, 8, **settings)
    x = (read(deep).x * 65535).round().int()
    assert torch.equal(x >> 8, (read(flat).x * 255).round().int())
    assert sorted((x & 255).flatten().tolist()) == sorted((array & 255).flatten().tolist())


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_white_may_be_zero_at_every_depth(tmp_path, bits, order):
    white = 2**bits - 1
    array = np.random.default_rng(0).integers(0, white, (H, 8), endpoint=True)
    if bits == 16:
        content = array.astype(f"{order}u2").tobytes()
    else:
        each = (array[..., None] >> np.arange(bits)[::-1]) & 1
        content = np.packbits(each.astype(np.uint8)).tobytes()
    for photometric, expected in ((0, 1 - array / white), (1, array / white)):
        path = write_tiff(tmp_path / "a.tif", content, (H, 8, 1), bits, photometric=photometric, order=order)
        picture = read(path)
        np.testing.assert_allclose(picture.x[0, 0].numpy(), expected, rtol=0, atol=ROUNDING)
        save(picture.like(picture.x), tmp_path / "again.tif")
        assert torch.equal(read(tmp_path / "again.tif").x, picture.x)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_white_may_be_zero_in_floats_and_beside_alpha(tmp_path, dtype):
    array = values(H, W, dtype=dtype)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="miniswhite")
    x = read(tmp_path / "a.tif").x[0, 0].numpy()
    np.testing.assert_allclose(x, 1 - array.astype(np.float32), rtol=0, atol=ROUNDING)
    grey = values(H, W, 2)
    tifffile.imwrite(tmp_path / "b.tif", grey, photometric="miniswhite", planarconfig="contig", extrasamples=[2])
    picture = read(tmp_path / "b.tif")
    np.testing.assert_allclose(picture.x[0, 0].numpy(), 1 - grey[..., 0] / 65535, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(picture.alpha[0, 0].numpy(), grey[..., 1] / 65535, rtol=0, atol=ROUNDING)


def test_white_of_12_bits_is_4095(tmp_path):
    array = np.random.default_rng(0).integers(0, 4095, (H, 8), endpoint=True)
    bits = ((array[..., None] >> np.arange(12)[::-1]) & 1).astype(np.uint8)
    path = write_tiff(tmp_path / "a.tif", np.packbits(bits).tobytes(), (H, 8, 1), 12, photometric=1)
    # as the nearest of 16 bits
    np.testing.assert_allclose(read(path).x[0, 0].numpy(), array / 4095, rtol=0, atol=0.5 / 65535 + ROUNDING)


def test_a_tiff_image_that_the_user_opened_has_its_white_too(tmp_path):
    array = values(H, W)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, array, photometric="miniswhite")
    with Image.open(path) as image:
        np.testing.assert_allclose(read(image).x[0, 0].numpy(), 1 - array / 65535, rtol=0, atol=ROUNDING)


def test_ink_of_16_bits_is_read_as_the_colour_it_leaves(tmp_path):
    ink = values(H, W, 4)
    tifffile.imwrite(tmp_path / "a.tif", ink, photometric="separated")
    left = 1 - ink / 65535
    x = read(tmp_path / "a.tif").x[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(x, left[..., :3] * left[..., 3:], rtol=0, atol=0.5 / 65535 + ROUNDING)


@pytest.mark.parametrize(
    ("dtype", "options", "message"),
    [
        ("uint32", {"photometric": "rgb"}, r"a\.tif is not read: its values are uint32, wanted 8 or 16 bits or floats"),
        (
            "uint16",
            {"photometric": "cielab"},
            r"a\.tif is not read: a TIFF file of CIELAB colours .* convert it to RGB",
        ),
    ],
)
def test_a_sound_tiff_of_another_kind_is_not_called_broken(tmp_path, dtype, options, message):
    tifffile.imwrite(tmp_path / "a.tif", values(H, W, 3, dtype=dtype), **options)
    with pytest.raises(ValueError, match=message) as error:
        read(tmp_path / "a.tif")
    assert "whole" not in str(error.value)


def test_values_of_more_than_16_bits_are_not_called_broken(tmp_path):
    Image.fromarray(np.full((H, W), 70000, np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"its values go from 70000 to 70000, wanted 16 bits.* divide") as error:
        read(tmp_path / "a.tif")
    assert "whole" not in str(error.value)


@pytest.mark.parametrize("make", ["png", "tif"])
def test_a_deep_file_that_was_cut_short_is_one_clear_error(tmp_path, make):
    path = tmp_path / f"a.{make}"
    if make == "png":
        write_png(path, values(64, 64, 3))
    else:
        tifffile.imwrite(path, values(64, 64, 3), photometric="rgb")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"cannot be read as an image.*whole"):
        read(path)


def test_a_tiff_that_pil_cannot_open_may_be_a_bomb_too(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", values(H, W, 3, dtype="float32"), photometric="rgb")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", H * W - 1)
    with pytest.raises(ValueError, match="decompression bomb"):
        read(tmp_path / "a.tif")


@pytest.mark.parametrize("white", [1023, 65535])
@pytest.mark.parametrize("plain", [False, True])
def test_ppm_of_more_than_8_bits_is_read_whole(tmp_path, plain, white):
    array = np.random.default_rng(0).integers(0, white, (H, W, 3), endpoint=True)
    content = " ".join(map(str, array.flatten())).encode() if plain else array.astype(">u2").tobytes()
    (tmp_path / "a.ppm").write_bytes(f"P{3 if plain else 6}\n{W} {H}\n{white}\n".encode() + content)
    x = read(tmp_path / "a.ppm").x[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(x, array / white, rtol=0, atol=0.5 / 65535 + ROUNDING)


def test_bits_that_are_lost_are_said(tmp_path):
    """By whoever opened the file with PIL; of formats that only PIL reads, by the file."""
    path = write_png(tmp_path / "a.png", values(H, W, 3))
    with Image.open(path) as image, pytest.warns(UserWarning, match="the PIL image has 16 bits .* give the path"):
        read(image)
    # JPEG 2000: bits less one at byte 42 from the markers SOC and SIZ
    codestream = io.BytesIO()
    Image.fromarray(values(16, 16, 3, dtype="uint8")).save(codestream, "JPEG2000")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(Image.open(codestream))
    content = bytearray(codestream.getvalue())
    content[content.index(b"\xff\x4f\xff\x51") + 42] = 15
    assert bits_lost(Image.open(io.BytesIO(content))) == 16


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [3, 4])
def test_the_colour_profile_of_a_deep_file_is_kept(tmp_path, channels, suffix):
    save(Deep(values(H, W, channels), PROFILE), tmp_path / f"a{suffix}")
    back = read(tmp_path / f"a{suffix}")
    again = back.like(back.x)
    assert again.icc_profile == PROFILE
    save(again, tmp_path / "b.tif")
    with Image.open(tmp_path / "b.tif") as image:
        assert image.info["icc_profile"] == PROFILE


def test_formats_of_8_bits_get_the_nearest(tmp_path):
    for array in (values(H, W, 3), values(H, W, 1)):
        save(Deep(array), tmp_path / "a.bmp")
        back = np.asarray(Image.open(tmp_path / "a.bmp")).reshape(array.shape)
        np.testing.assert_array_equal(back, np.rint(array / 257))
    save(Image.fromarray(values(H, W, dtype="float32")), tmp_path / "a.png")  # PNG has no floats, but 16 bits
    rounded = np.rint(values(H, W, dtype="float32") * np.float32(65535))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), rounded)


def denoiser(x_t, sigma):
    return 0.5 + 0.0625 / (0.0625 + sigma**2) * (x_t - 0.5)


def test_restored_files_have_the_bits_of_the_given_ones(tmp_path):
    array, hole = values(16, 16, 3), np.zeros((16, 16), bool)
    hole[5:9, 5:9] = True
    path = write_png(tmp_path / "a.png", array)
    prior = genprior.from_denoiser(denoiser, (3, None, None))
    result = genprior.restore(path, "inpaint", prior, mask=hole, noise=0, steps=3, seed=0, progress=False)
    np.testing.assert_array_equal(result.image[~hole], array[~hole])
    for target in (tmp_path / "b.png", tmp_path / "b.tif"):
        result.save(target)
        again = read(target)
        np.testing.assert_array_equal(np.asarray(again.like(again.x))[~hole], array[~hole])


def test_arrays_of_16_bit_colour_are_saved_with_16_bits(tmp_path):
    array, hole = values(2, 16, 16, 3), np.zeros((16, 16), bool)
    hole[5:9, 5:9] = True
    prior = genprior.from_denoiser(denoiser, (3, None, None))
    options = {"mask": hole, "noise": 0, "steps": 3, "seed": 0, "progress": False}
    genprior.restore(array[0], "inpaint", prior, **options).save(tmp_path / "one.png")
    genprior.restore(array, "inpaint", prior, **options).save(tmp_path / "both")
    for path, expected in ((tmp_path / "one.png", array[0]), (tmp_path / "both" / "1.png", array[1])):
        again = read(path)
        np.testing.assert_array_equal(np.asarray(again.like(again.x))[~hole], expected[~hole])


@pytest.mark.parametrize("channels", [1, 3])
def test_the_command_line_writes_the_bits_that_it_is_given(tmp_path, channels):
    array = values(16, 16, channels)
    path = write_png(tmp_path / "a.png", array)
    command = ["degrade", path, "-o", tmp_path / "b.png", "--op", "inpaint", "--mask", "box", "--size", 4]
    assert main([str(word) for word in command]) == 0
    holes = read_mask(tmp_path / "b_mask.png")[0, 0].numpy()
    again = read(tmp_path / "b.png")
    found = np.asarray(again.like(again.x)).reshape(array.shape)
    np.testing.assert_array_equal(found[~holes], array[~holes])
    assert (found[holes] == 0).all()


# ---- masks and training data are read by the same reader ----


DEEP_MASKS = list(itertools.product(["uint8", "uint16", "float32"], ["miniswhite", "rgb"]))


@pytest.mark.parametrize(("dtype", "photometric"), DEEP_MASKS)
def test_masks_of_deep_files_mark_the_same_holes(tmp_path, dtype, photometric):
    holes = np.random.default_rng(0).random((H, W)) < 0.4
    white = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1
    drawn = (~holes if photometric == "miniswhite" else np.stack([holes] * 3, -1)) * np.dtype(dtype).type(white)
    tifffile.imwrite(tmp_path / "mask.tif", drawn.astype(dtype), photometric=photometric)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.tif")[0, 0].numpy(), holes)


@pytest.mark.parametrize("channels", [1, 3])
def test_training_data_of_16_bits_are_rounded_to_8_and_white_may_be_zero(tmp_path, channels):
    colour, grey = values(8, 8, 3), values(8, 8)
    write_png(tmp_path / "a.png", colour)
    tifffile.imwrite(tmp_path / "b.tif", grey, photometric="miniswhite")
    data = Photos(tmp_path, 8, channels=channels, augment=False)
    expected = [np.rint(colour / 257), 255 - np.rint(grey / 257)]
    if channels == 1:
        expected[0] = np.asarray(Image.fromarray(expected[0].astype(np.uint8)).convert("L"))
    for item, each in enumerate(expected):
        x = (255 * data[item]["x"]).round().permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(x, np.broadcast_to(each.reshape(8, 8, -1), x.shape))


def test_training_data_of_floats_are_left_out_whatever_opens_them(tmp_path):
    write_png(tmp_path / "a.png", values(8, 8, 3))
    tifffile.imwrite(tmp_path / "b.tif", values(8, 8, 3, dtype="float32"), photometric="rgb")
    tifffile.imwrite(tmp_path / "c.tif", values(4, 4, 2), photometric="minisblack", planarconfig="contig")
    with pytest.warns(UserWarning, match=r"2 of 3 images.*b\.tif has floating-point values.*c\.tif is 4 x 4, smaller"):
        assert len(Photos(tmp_path, 8)) == 1


@pytest.mark.parametrize(
    ("header", "content", "expected"),
    [
        ("P1\n4 1\n", b"0 1 1 0", [1, 0, 0, 1]),
        ("P4\n4 1\n", b"\x60", [1, 0, 0, 1]),
        ("P2\n4 1\n100\n", b"0 50 100 25", [0, 0.5, 1, 0.25]),
        ("P2\n4 1\n1000\n", b"0 500 1000 250", [0, 0.5, 1, 0.25]),
        ("P5\n4 1\n255\n", bytes([0, 51, 255, 102]), [0, 0.2, 1, 0.4]),
        ("P5\n4 1\n65535\n", struct.pack(">4H", 0, 13107, 65535, 26214), [0, 0.2, 1, 0.4]),
    ],
)
def test_every_netpbm_file_of_grey_is_read(tmp_path, header, content, expected):
    (tmp_path / "a.pnm").write_bytes(header.encode() + content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = read(tmp_path / "a.pnm").x[0, 0, 0].numpy()
    # of a white of 100, PIL makes the nearest of 8 bits
    np.testing.assert_allclose(x, expected, rtol=0, atol=0.51 / 255 if header.endswith("100\n") else 1 / 65535)


def test_bands_are_not_dropped(tmp_path):
    bands = np.zeros((8, 8, 5), np.uint16)
    tifffile.imwrite(tmp_path / "bands.tif", bands, photometric="minisblack", planarconfig="contig")
    with pytest.raises(ValueError, match="is not read: it has 5 bands"):
        read(tmp_path / "bands.tif", role="measurement")
