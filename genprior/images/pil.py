"""PIL images and files: every mode read as colour and alpha, and given back as the mode that holds it best."""

import difflib
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from genprior.images.arrays import from_channels_last, give_numpy, scaled
from genprior.images.checks import check_not_empty, unreadable
from genprior.images.picture import Picture


def from_path(path: Path) -> Picture:
    _check_there(path)
    with path.open("rb") as file:
        try:
            with warnings.catch_warnings():
                # PIL only warns of the first of its two limits; filtering here leaves PIL's own settings alone.
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                image = Image.open(file)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise ValueError(
                f"{path} claims more pixels than PIL's limit of {Image.MAX_IMAGE_PIXELS} and may be a decompression "
                "bomb; if you trust it, open it by PIL and pass the PIL image."
            ) from error
        except Exception as error:  # decoders of broken files raise almost anything
            raise unreadable(str(path), error) from error
        with image:
            return from_pil(image, str(path))


def _check_there(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the files in it, as a list if they are of one size.")
    if not path.exists():
        names = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, names, n=1)
        guess = f" Did you mean {path.with_name(close[0])}?" if close and close[0] != path.name else ""
        raise FileNotFoundError(f"There is no file {path}; check the name and the folder, {Path.cwd()} here.{guess}")


def from_pil(image: Image.Image, name: str) -> Picture:
    check_not_empty((image.height, image.width), name)
    try:
        plain = _plain(ImageOps.exif_transpose(image))
    except Exception as error:  # files are decoded only here, and decoders of broken ones raise almost anything
        raise unreadable(name, error) from error
    # A profile describes the colours of its own mode, so it would be wrong on the RGB made of CMYK or Lab.
    icc = None if image.mode in ("CMYK", "YCbCr", "LAB", "HSV") else image.info.get("icc_profile")
    give = partial(give_pil, mode=plain.mode, icc=icc)
    picture = from_channels_last(scaled(np.atleast_3d(np.asarray(plain)))[None], give)
    if plain.mode == "I;16" and image.has_transparency_data:
        opaque = np.asarray(plain) != image.info["transparency"]
        picture = replace(picture, alpha=torch.from_numpy(opaque).float()[None, None])
    return picture


def _plain(image: Image.Image) -> Image.Image:
    """The same picture in one of the modes L, LA, RGB, RGBA, I;16 and F."""
    if image.mode == "F":
        return image
    if image.mode.startswith("I"):
        # Not by convert, which clips 16-bit values to 255.
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"values from {values.min()} to {values.max()}, wanted 16 bits, 0 to 65535")
        return Image.fromarray(values.astype(np.uint16))
    colour = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    return image.convert(colour + "A" if image.has_transparency_data else colour)


def to_pil(x: Tensor) -> Image.Image:
    """A (C, H, W) tensor with C = 1 or 3, clipped to [0, 1], as an 8-bit PIL image.

    Raises:
        ValueError: x has another shape, or NaN.
    """
    if x.ndim != 3:
        raise ValueError(f"got a tensor of shape {tuple(x.shape)}, wanted (C, H, W).")
    return give_pil(x.detach().cpu().clamp(0, 1)[None], None, mode="RGB", icc=None)


def give_pil(x: Tensor, alpha: Tensor | None, *, mode: str, icc: bytes | None) -> Image.Image:
    if x.shape[1] not in (1, 3):
        raise ValueError(f"a picture has 1 or 3 channels; got {x.shape[1]}.")
    # PIL has 16 bits and floats for a single channel only; what gained colour or has alpha gets 8 bits.
    deep = {"I;16": np.uint16, "F": np.float32} if x.shape[1] == 1 and alpha is None else {}
    image = Image.fromarray(give_numpy(x, alpha, dtype=np.dtype(deep.get(mode, np.uint8)), layout="HW"))
    if icc and image.mode.startswith("RGB") == mode.startswith("RGB"):
        image.info["icc_profile"] = icc
    return image
