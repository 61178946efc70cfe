"""Image files: written all or nothing, and found in folders."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from PIL import Image
from torch import Tensor

from genprior.images.checks import kind_of
from genprior.images.pil import to_pil

# How each kind of file is written: PIL's name of the format and options that do not degrade a restored photograph.
_FORMATS = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95}),
    ".jpeg": ("JPEG", {"quality": 95}),
    ".webp": ("WEBP", {"lossless": True}),
    ".tif": ("TIFF", {}),
    ".tiff": ("TIFF", {}),
    ".bmp": ("BMP", {}),
}
IMAGE_SUFFIXES = tuple(_FORMATS)


def save(x: Tensor | Image.Image, path: str | os.PathLike) -> None:
    """Write one image, in the format of the path's suffix, all or nothing; folders are made, an old file is replaced.

    Args:
        x: (C, H, W) tensor with C = 1 or 3, clipped to [0, 1] and written with 8 bits, or a PIL image, kept as it is.
        path: ends with one of `IMAGE_SUFFIXES`.

    Raises:
        TypeError: x is neither.
        ValueError: unknown suffix, a tensor of another shape or with NaN, or a PIL mode that the format cannot hold.
    """
    path = Path(path)
    if path.suffix.lower() not in _FORMATS:
        raise ValueError(f"{path} has no suffix of an image; choose one of {' '.join(IMAGE_SUFFIXES)}.")
    if isinstance(x, Tensor):
        x = to_pil(x)
    if not isinstance(x, Image.Image):
        raise TypeError(f"save takes a torch tensor (C, H, W) or a PIL image; got {kind_of(x)}.")
    file_format, options = _FORMATS[path.suffix.lower()]
    if x.info.get("icc_profile"):
        options = options | {"icc_profile": x.info["icc_profile"]}
    with replacing(path) as file:
        _write(x, file, file_format, options)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes the place of `path` when all was written and leaves nothing otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, so that the replacement is one rename within one file system.
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def list_images(folder: str | os.PathLike, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> list[Path]:
    """The image files (by suffix) in a folder and its subfolders, sorted; hidden files are left out.

    Raises:
        NotADirectoryError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder; give a folder that holds images.")
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
    )


def _write(image: Image.Image, file: BinaryIO, file_format: str, options: dict) -> None:
    try:
        image.save(file, format=file_format, **options)
    except OSError as error:
        if error.errno is not None:  # the disk's complaint, not the format's
            raise
        raise ValueError(f"mode {image.mode} cannot be written as {file_format}: {error}; try .png or .tif.") from error
