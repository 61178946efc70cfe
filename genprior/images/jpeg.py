"""JPEG files: their coefficients, quantisation tables and sampling."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from genprior.checks import optional
from genprior.images.checks import kind_of, unreadable
from genprior.images.pil import check_there

JPEGLike: TypeAlias = "str | os.PathLike | bytes | Image.Image"

ORIENTATION = 274  # tag of EXIF
SAMPLES = 3, 1  # libjpeg's numbers for the colours Y, Cb, Cr and for grey
COLOURS = {2: "RGB", 4: "CMYK", 5: "YCCK, as of CMYK"}
# Frames that are not baseline, extended or progressive Huffman coding, by their markers
FRAMES = {
    **dict.fromkeys((0xC3, 0xCB), "lossless"),
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical"),
    **dict.fromkeys((0xC9, 0xCA), "arithmetic-coded"),
}
# Markers of frames; those left out are of tables, or reserved
FIRST_FRAME, LAST_FRAME, NO_FRAMES = 0xC0, 0xCF, (0xC4, 0xC8, 0xCC)


@dataclass(frozen=True, eq=False)
class Coefficients:
    """The contents of a JPEG file, with values and orientation as stored.

    Attributes:
        planes: of Y, Cb and Cr, or of Y alone, integers (h, w) in multiples of their steps: coefficient (i, j) of
            block (k, l) is at (8 k + i, 8 l + j).
        steps: of each plane, (8, 8), in 8-bit grey levels.
        cell: pixels across and down per chroma sample.
        orientation: EXIF orientation of the stored picture, 1 to 8.
        picture: as decoded by Pillow and not turned, with the EXIF orientation among its data.
    """

    planes: list[np.ndarray]
    steps: list[np.ndarray]
    cell: tuple[int, int]
    orientation: int
    picture: Image.Image


def read_coefficients(image: JPEGLike) -> Coefficients:
    """Read an 8-bit JPEG file, baseline or progressive, grey or YCbCr.

    Arguments:
        image: a path, the bytes of the file, or a PIL image opened from it and unchanged since.

    Raises:
        TypeError: it is something else, such as an array of pixels.
        ValueError: it is not a JPEG file, or one of another kind; the message says which and what to do.
        OSError: the file does not exist or cannot be opened.
        UnsupportedError: the package that reads coefficients is not installed.
    """
    data, name = _data_of(image)
    _check_frame(data, name)
    picture = _decoded(data, name)
    if isinstance(image, Image.Image) and not np.array_equal(np.asarray(image), np.asarray(picture)):
        raise ValueError(
            f"{name} was changed since it was opened, and its file's coefficients are of other pixels: give the path."
        )
    file = _parsed(data, name)
    if file.jpeg_color_space not in SAMPLES:
        colours = COLOURS.get(file.jpeg_color_space, "of an unknown kind")
        raise ValueError(
            f"{name} is a JPEG file whose colours are {colours}, not Y, Cb, Cr or grey: its pixels can be restored, as "
            'by restore(file, "denoise"), or converted by Image.open(file).convert("RGB").'
        )
    layers = [(h, v) for _, h, v, _ in picture.layer]  # pyright: ignore[reportAttributeAccessIssue]
    tables = picture.quantization  # pyright: ignore[reportAttributeAccessIssue]
    steps = [np.array(tables[table]).reshape(8, 8) for *_, table in picture.layer]  # pyright: ignore[reportAttributeAccessIssue]
    # copies, since the arrays lie in the file object's memory, which is freed with it
    planes = [np.array(plane) for plane in file.coef_arrays]
    orientation = picture.getexif().get(ORIENTATION, 1)
    return Coefficients(planes, steps, _cell(layers, name), orientation if orientation in range(1, 9) else 1, picture)


def _data_of(image: Any) -> tuple[bytes, str]:
    """The bytes of the file, and its name in messages."""
    if isinstance(image, str | os.PathLike):
        check_there(Path(image))
        return Path(image).read_bytes(), str(image)
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image), "the JPEG file"
    if not isinstance(image, Image.Image):
        raise TypeError(
            f"jpeg takes the JPEG file: its path, its bytes or the PIL image opened from it; got {kind_of(image)}. "
            "Decoded pixels do not have the coefficients that the file holds; to simulate it, degrade(image, 'jpeg', "
            "quality=10)."
        )
    if getattr(image, "quantization", None) is None:
        raise ValueError(
            f"the PIL image is no JPEG file as it was opened, but {image.format or 'one made from another'}: give the "
            "path of the JPEG file, or its bytes. What is made of an image, as by crop or resize, has no coefficients."
        )
    file, path = getattr(image, "fp", None), getattr(image, "filename", "")
    if file is not None:
        place = file.tell()
        file.seek(0)
        data = file.read()
        file.seek(place)
        return data, "the PIL image"
    if path and Path(path).is_file():
        return Path(path).read_bytes(), f"the PIL image of {path}"
    raise ValueError("the PIL image no longer has its file, which was closed: give the path, or the file's bytes.")


def _check_frame(data: bytes, name: str) -> None:
    """Raise an error for anything but a JPEG file of a kind that has coefficients and can be decoded."""
    if not data.startswith(b"\xff\xd8"):
        try:
            kind = Image.open(BytesIO(data)).format
        except Exception as error:  # decoders of broken files raise almost anything
            raise unreadable(name, error) from error
        raise ValueError(
            f"{name} is a {kind} file, not a JPEG file: jpeg restores a picture from the coefficients that a JPEG file "
            'holds. Give that file, or, if there is none, restore(file, "denoise").'
        )
    marker, bits = _frame(data)
    what = FRAMES.get(marker, f"of {bits} bits" if bits != 8 else None)
    if what is not None:
        raise ValueError(
            f"{name} is a JPEG file that is {what}; read are baseline and progressive ones of 8 bits with Huffman "
            "coding. Convert it without loss, as by jpegtran, or restore its decoded pixels."
        )


def _frame(data: bytes) -> tuple[int, int]:
    """The marker of the frame, and its bits per value; (0, 8) if none is found."""
    place = 2
    while place + 4 < len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if FIRST_FRAME <= marker <= LAST_FRAME and marker not in NO_FRAMES:
            return marker, data[place + 4]
        filling = marker == 0xFF
        place += 1 if filling else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return 0, 8


def _decoded(data: bytes, name: str) -> Image.Image:
    """Decode the whole picture, which finds broken files."""
    try:
        picture = Image.open(BytesIO(data))
        picture.load()
    except Exception as error:  # decoders of broken files raise almost anything
        raise unreadable(name, error) from error
    return picture


def _parsed(data: bytes, name: str) -> Any:
    advice = 'The coefficients of JPEG files are read by the package pyjpegio: pip install "genprior[jpeg]".'
    jpegio = optional("jpegio", advice)
    # it reads only files, and takes their paths for UTF-8
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.jpg"
        path.write_bytes(data)
        try:
            return jpegio.read(str(path))
        except RuntimeError as error:
            raise unreadable(name, error) from error


def _cell(layers: list[tuple[int, int]], name: str) -> tuple[int, int]:
    """Pixels across and down per chroma sample, from the sampling factors across and down."""
    (across, down), *chroma = layers
    if not chroma:
        return 1, 1
    if chroma[0] != chroma[1] or across % chroma[0][0] or down % chroma[0][1]:
        raise ValueError(
            f"{name} has the sampling factors {layers}: read are those whose chroma has whole pixels of luma."
        )
    return across // chroma[0][0], down // chroma[0][1]
