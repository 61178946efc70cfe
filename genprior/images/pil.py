"""PIL images and files: every mode is read as colour and alpha, and returned in the mode that holds it best."""

import difflib
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from genprior.images.arrays import from_channels_last, from_float, give_numpy, scaled
from genprior.images.checks import OtherKindError, check_not_empty, unreadable
from genprior.images.deep import bits_lost, open_image
from genprior.images.picture import Picture
from genprior.images.pixels import Deep

BITS, PHOTOMETRIC = 258, 262  # tags of TIFF


def from_path(path: Path) -> Picture:
    check_there(path)
    with path.open("rb") as file:
        try:
            with warnings.catch_warnings():
                # PIL only warns at the first of its two limits; filtering here leaves PIL's own settings alone.
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                image = open_image(file)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise ValueError(
                f"{path} claims more pixels than PIL's limit of {Image.MAX_IMAGE_PIXELS} and may be a decompression "
                "bomb; if you trust it, open it by PIL and pass the PIL image."
            ) from error
        except Exception as error:  # decoders of broken files raise almost anything
            raise unreadable(str(path), error) from error
        if isinstance(image, Deep):
            return from_deep(image)
        with image:
            return from_pil(image, str(path))


def from_deep(image: Deep) -> Picture:
    """Read upright values with all their bits; they come back as `Deep`, or if grey without alpha, as a PIL image."""
    if image.shape[2] == 1:
        grey = Image.fromarray(np.asarray(image)[..., 0])
        grey.info["icc_profile"] = image.icc_profile
        return from_pil(grey, "the image")
    give = partial(give_deep, dtype=image.dtype, icc=image.icc_profile)
    return from_channels_last(scaled(np.asarray(image))[None], give)


def check_there(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the files in it, as a list if they are of one size.")
    if not path.exists():
        names = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, names, n=1)
        guess = f" Did you mean {path.with_name(close[0])}?" if close and close[0] != path.name else ""
        raise FileNotFoundError(f"There is no file {path}; check the name and the folder, {Path.cwd()} here.{guess}")


def from_pil(image: Image.Image, name: str) -> Picture:
    check_not_empty((image.height, image.width), name)
    if bits := bits_lost(image):
        warnings.warn(
            f"{name} has {bits} bits for each value, of which PIL reads 8: to keep them, give the path of a PNG, TIFF "
            "or PPM file.",
            stacklevel=4,
        )
    try:
        plain = upright(image)
    except Exception as error:  # files are decoded only here, and decoders of broken ones raise almost anything
        raise unreadable(name, error) from error
    # A profile describes the colours of its own mode, so it would be wrong for RGB made from CMYK or Lab.
    icc = None if image.mode in ("CMYK", "YCbCr", "LAB", "HSV") else image.info.get("icc_profile")
    give = partial(give_pil, mode=plain.mode, icc=icc)
    values = np.atleast_3d(np.asarray(plain))
    x = scaled(values)
    if plain.mode == "I;16" and image.has_transparency_data:
        x = np.concatenate([x, values != image.info["transparency"]], -1)
    return from_channels_last(x[None], give)


def upright(image: Image.Image) -> Image.Image:
    """Turn an image by its EXIF orientation, and convert it to mode L, LA, RGB, RGBA, I;16 or F; black is 0.

    Raises:
        OtherKindError: its values do not fit into 16 bits.
        Exception: almost any other, for broken files.
    """
    turned = ImageOps.exif_transpose(image)
    if image.mode == "F":
        return Image.fromarray(1 - np.asarray(turned)) if _tag(image, PHOTOMETRIC) == 0 else turned
    if image.mode.startswith("I"):
        return Image.fromarray(_of_16_bits(np.asarray(turned), image))
    colour = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    return turned.convert(colour + "A" if image.has_transparency_data else colour)


def _of_16_bits(values: np.ndarray, image: Image.Image) -> np.ndarray:
    """uint16 with white at 65535: convert would clip to 255, and PIL leaves 12-bit and white-is-zero values as is."""
    if values.min() < 0 or values.max() > 65535:
        raise OtherKindError(
            f"its values go from {values.min()} to {values.max()}, wanted 16 bits, 0 to 65535; divide them by the "
            "value of white"
        )
    bits = _tag(image, BITS)
    if image.mode.startswith("I;16") and bits is not None and bits < 16:
        values = np.rint(values * (65535 / (2**bits - 1)))
    values = values.astype(np.uint16)
    return 65535 - values if _tag(image, PHOTOMETRIC) == 0 else values


def _tag(image: Image.Image, code: int) -> int | None:
    """The (first) number of a TIFF file's tag."""
    value = getattr(image, "tag_v2", {}).get(code)
    return value[0] if isinstance(value, tuple) else value


def to_pil(x: Tensor) -> Image.Image:
    """Convert a (C, H, W) tensor with C = 1 or 3, clipped to [0, 1], to an 8-bit PIL image.

    Raises:
        ValueError: x has another shape, or NaN.
    """
    if x.ndim != 3:
        raise ValueError(f"got a tensor of shape {tuple(x.shape)}, wanted (C, H, W).")
    return give_pil(x.detach().cpu().clamp(0, 1)[None], None, mode="RGB", icc=None)  # pyright: ignore[reportReturnType]


def give_pil(x: Tensor, alpha: Tensor | None, *, mode: str, icc: bytes | None) -> Image.Image | Deep:
    if x.shape[1] not in (1, 3):
        raise ValueError(f"a picture has 1 or 3 channels; got {x.shape[1]}.")
    # PIL has 16 bits and floats for a single channel only, so no PIL image holds 16-bit grey with alpha.
    if mode == "I;16" and alpha is not None and x.shape[1] == 1:
        return give_deep(x, alpha, dtype=np.dtype(np.uint16), icc=icc)
    # An image that gained colour gets 8 bits.
    deep = {"I;16": np.uint16, "F": np.float32} if x.shape[1] == 1 and alpha is None else {}
    image = Image.fromarray(give_numpy(x, alpha, dtype=np.dtype(deep.get(mode, np.uint8)), layout="HW"))
    if icc and image.mode.startswith("RGB") == mode.startswith("RGB"):
        image.info["icc_profile"] = icc
    return image


def give_deep(x: Tensor, alpha: Tensor | None, *, dtype: np.dtype, icc: bytes | None) -> Deep:
    return Deep(give_numpy(x, alpha, dtype=dtype, layout="HWC"), icc)


def fitted(image: Image.Image | Deep, file_format: str) -> Image.Image | Deep:
    """The image with the bits that the format can hold: a PIL image, or `Deep` if PIL has no mode for it."""
    if isinstance(image, Image.Image) and not image.mode.startswith(("I", "F")):
        return image
    icc = image.icc_profile if isinstance(image, Deep) else image.info.get("icc_profile")
    values = np.atleast_3d(np.asarray(image))
    most = {"TIFF": np.float32, "PNG": np.uint16}.get(file_format, np.uint8)
    if np.dtype(most).itemsize < values.dtype.itemsize:
        values = from_float(scaled(values).clip(0, 1), np.dtype(most))
    if values.dtype != np.uint8 and values.shape[2] > 1:
        return Deep(values, icc)
    made = Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)
    made.info["icc_profile"] = icc
    return made
