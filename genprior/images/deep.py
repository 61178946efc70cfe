"""Files with more bits than PIL has modes for: 16-bit colour or alpha, floats of several channels.

PIL cuts their values to 8 bits, or cannot open them. tifffile reads such TIFF files. For PNG files, PIL can be made to
unpack the higher and the lower bytes, one after the other. PPM files store plain values.
"""

from __future__ import annotations

import sys
from typing import IO, Any, BinaryIO

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from genprior.images.pixels import Deep
from genprior.images.tiff import CodecError, is_tiff, read_tiff, tiff_header

# For PIL's unpackers of the higher byte of each value, those of the lower byte; N is the machine's own byte order.
_OTHER_BYTE = {f"{mode};16{own}": f"{mode};16{other}" for mode in ("RGB", "RGBA") for own, other in ("BL", "LB")}
_OTHER_BYTE |= {f"{mode};16N": f"{mode};16{'B' if sys.byteorder == 'little' else 'L'}" for mode in ("RGB", "RGBA")}
# How to turn rows and columns for each EXIF orientation: np.flip these axes, then np.swapaxes if True.
_TURNS = {1: ((), False), 2: ((1,), False), 3: ((0, 1), False), 4: ((0,), False)}
_TURNS |= {5: ((), True), 6: ((0,), True), 7: ((0, 1), True), 8: ((1,), True)}


def open_image(file: BinaryIO) -> Image.Image | Deep:
    """Open an image file with PIL, or read its upright values if PIL would lose bits.

    Raises:
        UnidentifiedImageError: the format is not supported.
        Exception: almost any other, from decoders of broken files.
    """
    try:
        image = Image.open(file)
    except UnidentifiedImageError:
        file.seek(0)
        if not is_tiff(file):
            raise
        return _turned(*read_tiff(file))
    if bits_lost(image) and image.format in _READERS:
        file.seek(0)
        return _turned(*_READERS[image.format](file, image))
    return image


def header(file: BinaryIO) -> tuple[tuple[int, int], bool]:
    """(width, height) of an image before it is turned, and whether its values are floating-point; nothing is decoded.

    Raises:
        UnidentifiedImageError: the format is not supported.
    """
    try:
        with Image.open(file) as image:
            return image.size, image.mode == "F"
    except UnidentifiedImageError:
        file.seek(0)
        if not is_tiff(file):
            raise
        return tiff_header(file)


def bits_lost(image: Image.Image) -> int:
    """How many bits per value the file has, if PIL would cut them to 8; 0 if PIL keeps them."""
    if not isinstance(image, ImageFile.ImageFile) or image.mode.startswith(("I", "F")):
        return 0
    bits = max(getattr(image, "tag_v2", {}).get(258, (0,)))
    if bits > 8 and image.tile:
        return bits
    for tile in image.tile:
        codec, words = tile.codec_name, _words(tile)
        if codec == "SGI16" or any(isinstance(word, str) and ";16" in word for word in words):
            return 16
        if codec.startswith("ppm"):
            return 16 if isinstance(words[-1], int) and words[-1] > 255 else 0
        if codec == "jpeg2k" and image.fp:
            return _bits_of_jpeg2000(image.fp)
    return 0


def _bits_of_jpeg2000(file: IO[bytes]) -> int:
    """Bits per value, from the size segment of the codestream, which begins with the markers SOC and SIZ."""
    place = file.tell()
    file.seek(0)
    head = file.read(2**16)
    file.seek(place)
    begin = head.find(b"\xff\x4f\xff\x51")
    bits = (head[begin + 42] & 0x7F) + 1 if 0 <= begin < len(head) - 42 else 8
    return bits if bits > 8 else 0


def _turned(values: Deep, orientation: int) -> Deep:
    axes, swap = _TURNS.get(orientation, _TURNS[1])
    turned = np.flip(values, axes)
    return Deep(np.ascontiguousarray(turned.swapaxes(0, 1) if swap else turned), values.icc_profile)


def _read_png(file: BinaryIO, image: ImageFile.ImageFile) -> tuple[Deep, int]:
    values = _both_bytes(file, image)
    if "transparency" in image.info:
        seen = (values != np.array(image.info["transparency"])).any(-1, keepdims=True)
        values = np.concatenate([values, np.where(seen, 65535, 0).astype(np.uint16)], -1)
    return Deep(values, image.info.get("icc_profile")), image.getexif().get(0x0112, 1)


def _read_tiff(file: BinaryIO, image: ImageFile.ImageFile) -> tuple[Deep, int]:
    try:
        return read_tiff(file)
    except CodecError:
        if _words(image.tile[0])[0] not in _OTHER_BYTE:
            raise
        return Deep(_both_bytes(file, image), image.info.get("icc_profile")), 1  # PIL turns TIFF files itself


def _both_bytes(file: BinaryIO, image: ImageFile.ImageFile) -> np.ndarray:
    """Read 16-bit values (H, W, C) with PIL, whose unpackers give one byte per value: the file is decoded twice."""
    first, *_ = _words(image.tile[0])
    if first == "LA;16B":  # as four bytes per pixel, two of grey and two of alpha
        return _unpacked(file, "RGBA").view(">u2").astype(np.uint16)
    one, other = (_unpacked(file, mode).astype(np.uint16) for mode in (first, _OTHER_BYTE[first]))
    return one << 8 | other


def _unpacked(file: BinaryIO, raw_mode: str) -> np.ndarray:
    file.seek(0)
    with Image.open(file) as image:
        image.tile = [
            tile._replace(args=(raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode)
            for tile in image.tile
        ]
        return np.asarray(image)


def _words(tile: ImageFile._Tile) -> tuple[Any, ...]:
    return tile.args if isinstance(tile.args, tuple) else (tile.args,)


def _read_ppm(file: BinaryIO, image: ImageFile.ImageFile) -> tuple[Deep, int]:
    ((codec, _, offset, _),) = image.tile
    white = _words(image.tile[0])[-1]
    count = 3 * image.width * image.height
    file.seek(offset)
    content = file.read()
    if codec == "ppm_plain":
        values = np.array(content.split(maxsplit=count)[:count], dtype=np.int64)
    else:
        values = np.frombuffer(content, ">u2", count)
    if values.size < count or values.max(initial=0) > white:
        raise ValueError("image file is truncated, or holds values above its white")
    values = np.rint(values.reshape(image.height, image.width, 3) * (65535 / white)).astype(np.uint16)
    return Deep(values), 1


_READERS = {"PNG": _read_png, "TIFF": _read_tiff, "PPM": _read_ppm}
