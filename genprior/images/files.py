"""Write image files all or nothing, and find them in folders."""

import functools
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from genprior.files import replacing
from genprior.images.checks import kind_of
from genprior.images.pil import fitted, to_pil
from genprior.images.pixels import Deep
from genprior.images.png import write_png
from genprior.images.tiff import write_tiff

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")  # that `save` writes
# Encoder options that do not degrade a restored photograph.
_OPTIONS = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}
# Formats that PIL opens but cannot decode by itself: containers of other data, video, drawings.
_NO_PICTURES = {"BUFR", "GRIB", "HDF5", "MPEG", "EPS", "WMF"}
NAMED = 3  # files that a message names; the others are counted


def save(x: Tensor | Image.Image | Deep, path: str | os.PathLike) -> None:
    """Write one image in the format of the path's suffix, all or nothing; make folders, and replace an old file.

    PNG and TIFF keep 16 bits, TIFF keeps floats; PNG rounds floats to 16 bits, other formats round everything to 8.

    Args:
        x: (C, H, W) tensor with C = 1 or 3, clipped to [0, 1] and written with 8 bits; or a PIL image or a `Deep`, as
            16-bit colour files give, written as it is.
        path: ends with one of `IMAGE_SUFFIXES`.

    Raises:
        TypeError: x is neither.
        ValueError: unknown suffix, a tensor of another shape or with NaN, or a PIL mode that the format cannot hold.
    """
    path = Path(path)
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise ValueError(f"{path} has no suffix of an image; choose one of {' '.join(IMAGE_SUFFIXES)}.")
    if isinstance(x, Tensor):
        x = to_pil(x)
    if not isinstance(x, Image.Image | Deep):
        raise TypeError(f"save takes a torch tensor (C, H, W) or a PIL image; got {kind_of(x)}.")
    file_format = Image.registered_extensions()[path.suffix.lower()]
    x = fitted(x, file_format)
    if isinstance(x, Deep):
        with replacing(path) as file:
            {"PNG": write_png, "TIFF": write_tiff}[file_format](file, x)
        return
    options = {"icc_profile": x.info["icc_profile"]} if x.info.get("icc_profile") else {}
    with replacing(path) as file:
        try:
            x.save(file, format=file_format, **_OPTIONS.get(file_format, {}), **options)
        except OSError as error:
            if error.errno is not None:  # from the disk, not from the format
                raise
            raise ValueError(f"mode {x.mode} cannot be written as {file_format}: {error}; try .png or .tif.") from error


def writable(image: Any, x: Tensor) -> Tensor | Image.Image | Deep:
    """Choose what to `save`: the image in the user's kind, or the tensor x.

    The image itself if it is a PIL image, a 16-bit array or a `Deep`, since it may have alpha, a colour profile or more
    than 8 bits; otherwise x, a (C, H, W) tensor.
    """
    if isinstance(image, np.ndarray) and image.dtype == np.uint16 and not isinstance(image, Deep):
        return Deep(np.atleast_3d(image[0] if image.ndim == 4 else image))
    return image if isinstance(image, Image.Image | Deep) else x


def list_images(folder: str | os.PathLike) -> list[Path]:
    """List the image files in a folder and its subfolders, sorted; a warning names the other files.

    Image files have a suffix, in any case, of a format that can be read. Hidden files are left out silently.

    Raises:
        NotADirectoryError: there is no such folder.
    """
    found, others = part_files(folder, readable_suffixes())
    if others:
        warnings.warn(f"{folder}: {named(others, folder)}.", stacklevel=2)
    return found


def part_files(folder: str | os.PathLike, suffixes: frozenset[str]) -> tuple[list[Path], list[Path]]:
    """The files in a folder and its subfolders with one of the suffixes, in any case, and the others, both sorted.

    Raises:
        NotADirectoryError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder; give a folder that holds images.")
    files = sorted(path for path in folder.rglob("*") if not path.name.startswith(".") and path.is_file())
    found = [path for path in files if path.suffix.lower() in suffixes]
    return found, [path for path in files if path.suffix.lower() not in suffixes]


def named(skipped: list[Path], folder: str | os.PathLike) -> str:
    """Name the first few files that were skipped."""
    names = ", ".join(str(path.relative_to(folder)) for path in skipped[:NAMED])
    more = f" and {len(skipped) - NAMED} more" if len(skipped) > NAMED else ""
    return f"skipped {len(skipped)} file{'s' * (len(skipped) > 1)} whose suffix is of no image: {names}{more}"


@functools.cache
def readable_suffixes() -> frozenset[str]:
    """Suffixes of formats that PIL opens, with plugins, except those without pixels or that need another program."""
    Image.init()
    return frozenset(
        suffix
        for suffix, file_format in Image.registered_extensions().items()
        if file_format in Image.OPEN and file_format not in _NO_PICTURES
    )
