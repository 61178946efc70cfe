"""PNG files of 16-bit colour, which PIL cannot write."""

import struct
import zlib
from typing import BinaryIO

import numpy as np

from genprior.images.pixels import Deep

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels


def write_png(file: BinaryIO, x: Deep) -> None:
    """Write uint16 (H, W, C), C = 1, 2, 3 or 4, and its colour profile.

    References: Portable network graphics (PNG) specification, third edition, W3C, 2025.
    """
    height, width, channels = x.shape
    rows = np.ascontiguousarray(x, ">u2").view(np.uint8).reshape(height, -1)
    # Each row minus the one above, which compresses better; the filter's number precedes the row.
    up = np.pad(rows - np.pad(rows, ((1, 0), (0, 0)))[:-1], ((0, 0), (1, 0)), constant_values=2)
    file.write(b"\x89PNG\r\n\x1a\n")
    _chunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 16, _COLOUR_TYPES[channels], 0, 0, 0))
    if x.icc_profile:
        _chunk(file, b"iCCP", b"ICC Profile\0\0" + zlib.compress(x.icc_profile))
    _chunk(file, b"IDAT", zlib.compress(up.tobytes()))
    _chunk(file, b"IEND", b"")


def _chunk(file: BinaryIO, kind: bytes, content: bytes) -> None:
    file.write(struct.pack(">I", len(content)) + kind + content)
    file.write(struct.pack(">I", zlib.crc32(kind + content)))
