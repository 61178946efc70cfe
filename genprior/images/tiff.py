"""Read and write TIFF files that PIL cannot hold, with tifffile."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
from einops import rearrange
from PIL import Image

from genprior.images.checks import OtherKindError
from genprior.images.pixels import Deep

# Number of colours of the photometric interpretations read: white is zero, black is zero, RGB, CMYK.
_COLOURS = {0: 1, 1: 1, 2: 3, 5: 4}


class CodecError(OtherKindError):
    """A compression that tifffile cannot decode by itself."""


def is_tiff(file: BinaryIO) -> bool:
    head = file.read(4)
    file.seek(0)
    return head in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_tiff(file: BinaryIO) -> tuple[Deep, int]:
    """Read the first page, (H, W, C) uint8, uint16 or float32 with black at 0, and its EXIF orientation.

    Raises:
        OtherKindError: the colours, bits or compression are not supported.
        Exception: almost any other, for broken files.
    """
    import tifffile

    with tifffile.TiffFile(file) as pages:
        page = pages.pages.first
        pixels = page.imagewidth * page.imagelength
        if pixels > (Image.MAX_IMAGE_PIXELS or pixels):
            raise Image.DecompressionBombError(f"{pixels} pixels")
        if page.photometric not in _COLOURS or page.axes not in ("YX", "YXS", "SYX"):
            name = getattr(page.photometric, "name", page.photometric)
            raise OtherKindError(f"a TIFF file of {name} colours and axes {page.axes} is not read; convert it to RGB")
        try:
            values = page.asarray()
        except (ValueError, KeyError) as error:
            if "imagecodecs" not in str(error):
                raise
            raise CodecError(
                f"its compression ({page.compression.name}) takes the package imagecodecs: pip install imagecodecs, "
                "or save the file uncompressed"
            ) from error
        tags = {code: page.tags[code].value for code in (274, 34675) if code in page.tags}
        values = np.atleast_3d(rearrange(values, "c h w -> h w c") if page.axes == "SYX" else values)
        values = _black_is_zero(_as_read(values, page.bitspersample), page.photometric)
        return Deep(_alpha_last(values, page), tags.get(34675)), int(tags.get(274, 1))


def tiff_header(file: BinaryIO) -> tuple[tuple[int, int], bool]:
    """(width, height) of the first page, and whether its values are floating-point."""
    import tifffile

    with tifffile.TiffFile(file) as pages:
        page = pages.pages.first
        return (page.imagewidth, page.imagelength), page.dtype is not None and page.dtype.kind == "f"


def write_tiff(file: BinaryIO, x: Deep) -> None:
    """Write colours and, as the last of 2 or 4 channels, alpha, with lossless compression."""
    import tifffile

    tifffile.imwrite(
        file,
        np.asarray(x),
        photometric="rgb" if x.shape[2] > 2 else "minisblack",
        planarconfig="contig",
        extrasamples=["unassalpha"] if x.shape[2] in (2, 4) else None,
        compression="zlib",
        iccprofile=x.icc_profile,
        metadata=None,
    )


def _as_read(values: np.ndarray, bits: int) -> np.ndarray:
    """Convert to uint8, uint16 with white at 65535, or float32."""
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind == "f":
        with np.errstate(over="ignore"):  # values beyond float32 become infinite, and are then refused
            return values.astype(np.float32)
    if kind != "u" or size > 2:
        raise OtherKindError(
            f"its values are {values.dtype}, wanted 8 or 16 bits or floats; divide by the value of white"
        )
    if bits in (8, 16):
        return values
    return np.rint(values * (65535 / (2**bits - 1))).astype(np.uint16)


def _black_is_zero(values: np.ndarray, photometric: int) -> np.ndarray:
    """Convert white-is-zero grey and CMYK ink to grey and RGB with black at 0; further channels stay as they are."""
    white = values.dtype.type(1 if values.dtype.kind == "f" else np.iinfo(values.dtype).max)
    if photometric == 0:
        return np.concatenate([white - values[..., :1], values[..., 1:]], -1)
    if photometric == 5:
        paper = 1 - values[..., :4].astype(np.float64) / white
        colours = paper[..., :3] * paper[..., 3:] * float(white)
        colours = colours if values.dtype.kind == "f" else np.rint(colours)
        return np.concatenate([colours.astype(values.dtype), values[..., 4:]], -1)
    return values


def _alpha_last(values: np.ndarray, page) -> np.ndarray:
    """Keep colours and, if one of the extra channels is alpha, put it last, with colours not premultiplied by it."""
    colours = 3 if _COLOURS[page.photometric] > 1 else 1
    if colours == 1 and values.shape[2] > 2:
        raise OtherKindError(f"it has {values.shape[2]} bands, wanted grey or RGB; give an array or tensor")
    extra = [int(kind) for kind in page.extrasamples][: values.shape[2] - colours]
    if not extra and values.shape[2] == colours + 1:
        extra = [2]
    place = next((k for k, kind in enumerate(extra) if kind in (1, 2)), None)
    if place is None:
        return values[..., :colours]
    x, alpha = values[..., :colours], values[..., colours + place, None]
    if extra[place] == 1:
        white = 1.0 if values.dtype.kind == "f" else float(np.iinfo(values.dtype).max)
        plain = np.minimum(x * (white / np.maximum(alpha, 1e-6 * white)), white)
        x = (plain if values.dtype.kind == "f" else np.rint(plain)).astype(values.dtype)
    return np.concatenate([x, alpha], -1)
