"""The one place where a path, a PIL image, a numpy array or a torch tensor becomes an image x, and x becomes it again.

Notation: x is a (B, C, H, W) float32 tensor, an image when its values lie in [0, 1]; alpha is a (B, 1, H, W) opacity in
[0, 1], kept apart from x; a mask is True in the holes to fill.
"""

import math
import os
import uuid
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageOps
from torch import Tensor

ImageLike: TypeAlias = "str | os.PathLike | Image.Image | np.ndarray | Tensor | list | tuple"

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

# How far rounding (a JPEG decoder, a resize, half precision) may carry an image out of [0, 1] before it is refused.
_RANGE_TOLERANCE = 1e-3
# Grey levels by which the channels of a grey mask may differ: rounding of YCbCr in JPEG.
_GREY_TOLERANCE = 4 / 255


@dataclass(frozen=True, eq=False)
class Picture:
    """What the user gave: the tensor, and what is needed to give the same kind back.

    Attributes:
        x: (B, C, H, W) float32; on the CPU, or for torch input on its own device.
        alpha: (B, 1, H, W) in [0, 1], or None where the input has none.
    """

    x: Tensor
    alpha: Tensor | None
    _give: Callable[[Tensor, Tensor | None], Any] = field(repr=False)

    def like(self, x: Tensor, alpha: bool = True) -> Any:
        """x clipped to [0, 1], as the kind, layout and dtype that the user gave (integers are rounded).

        A path gives a PIL image; palette, CMYK and other colour modes give RGB; 1-bit images and boolean arrays, which
        cannot hold a restored image, give 8-bit grey and float32. A grey image that gained colour gets a colour axis.

        Args:
            x: (B, C, H, W), B as read; C, H and W may differ (colourisation, super-resolution).
            alpha: whether the kept alpha comes back too, resized to x: by nearest neighbour if it is 0 or 1
                everywhere, bilinearly otherwise.

        Raises:
            ValueError: x has another batch size, or holds channels or NaN that this kind cannot (integers have no NaN).
        """
        if x.ndim != 4 or len(x) != len(self.x):
            raise ValueError(f"got a tensor of shape {tuple(x.shape)}, wanted ({len(self.x)}, C, H, W) as was read.")
        kept = _resize_alpha(self.alpha, x.shape[-2:]) if alpha and self.alpha is not None else None
        return self._give(x.detach().clamp(0, 1), kept)


def read(image: ImageLike, *, role: Literal["image", "measurement"] = "image", nan: bool = False) -> Picture:
    """The tensor of a path, PIL image, numpy array, torch tensor or list of them.

    Integers are divided by their largest value (8 bit: 255, 16 bit: 65535). Files and PIL images are turned by their
    EXIF orientation; of several frames the first is read. A numpy array is H x W, H x W x C or B x H x W x C with
    C = 1, 2 (grey, alpha), 3, 4 (RGB, alpha); a floating-point tensor is C x H x W or B x C x H x W, never with alpha.

    Args:
        image: what the user gave; the items of a list are single images of one size and become one batch.
        role: "image" holds values in [0, 1]; "measurement" any finite values, which are never clipped.
        nan: whether NaN is allowed, as the mark of a hole.

    Raises:
        TypeError: the kind or dtype is none of the above.
        ValueError: unreadable, empty, ambiguous, non-finite, out of range, or a list of unequal sizes.
        OSError: there is no such file, or it may not be opened.
    """
    if role not in ("image", "measurement"):
        raise ValueError(f'role {role!r} is unknown; choose "image" or "measurement".')
    if isinstance(image, list | tuple):
        return _read_list(image, role, nan)
    if isinstance(image, str | os.PathLike):
        name, picture = str(image), _from_path(Path(image))
    elif isinstance(image, Image.Image):
        name, picture = "the PIL image", _from_pil(image, "the PIL image")
    elif isinstance(image, np.ndarray):
        name, picture = "the array", _from_numpy(image)
    elif isinstance(image, Tensor):
        name, picture = "the tensor", _from_torch(image)
    else:
        raise TypeError(
            f"an image is a path, a PIL image, a numpy array, a torch tensor or a list of them; got {kind_of(image)}."
        )
    _check_finite(picture.x, name, nan)
    if role == "image":
        _check_range(picture.x, name)
    if picture.alpha is not None:
        _check_finite(picture.alpha, f"the alpha of {name}", nan=False)
        _check_range(picture.alpha, f"the alpha of {name}")
    return picture


def read_mask(mask: ImageLike, size: tuple[int, int] | None = None) -> Tensor:
    """The holes that a mask marks, (B or 1, 1, H, W) bool: white, True or 1 is a hole (from 0.5 on).

    Args:
        mask: a path, PIL image, numpy array (H x W, H x W x 1, B x H x W x 1), torch tensor (H x W, 1 x H x W,
            B x 1 x H x W) or a list of them; integer arrays hold 0 and 1, or 0 and white; colour channels are equal.
        size: (H, W) that the mask must have.

    Raises:
        TypeError: the kind or dtype is none of the above.
        ValueError: the mask is coloured, transparent, too dark to mark a hole, not in [0, 1], or of another size.
        OSError: there is no such file, or it may not be opened.
    """
    if isinstance(mask, np.ndarray | Tensor) and bool(((mask == 0) | (mask == 1)).all()):
        mask = mask != 0
    if isinstance(mask, Tensor):
        mask = mask.float() if mask.dtype == torch.bool else mask
        mask = mask[None] if mask.ndim == 2 else mask
        if mask.ndim not in (3, 4) or mask.shape[-3] != 1:
            raise ValueError(f"a mask tensor is H x W, 1 x H x W or B x 1 x H x W; got {_shape(mask)}.")
    is_list = isinstance(mask, list | tuple)
    holes = torch.cat(_same_size([read_mask(m) for m in mask])) if is_list else _holes(read(mask))
    if size is not None and holes.shape[-2:] != tuple(size):
        raise ValueError(
            f"the mask is {_size(holes.shape[-2:])} but the image is {_size(size)} (height x width); "
            "resize the mask by nearest neighbour."
        )
    return holes


def grid(x: Tensor, columns: int | None = None, pad: int = 2) -> Tensor:
    """Images side by side on one white sheet, row by row, clipped to [0, 1]: (C, H', W').

    Args:
        x: (B, C, H, W).
        columns: images in a row; by default ceil(sqrt(B)).
        pad: pixels between neighbours.

    Raises:
        ValueError: x is not a batch of images, columns < 1 or pad < 0.
    """
    if x.ndim != 4 or x.numel() == 0:
        raise ValueError(f"got a tensor of shape {tuple(x.shape)}, wanted (B, C, H, W), none of them 0.")
    if (columns is not None and columns < 1) or pad < 0:
        raise ValueError(f"got columns={columns} and pad={pad}, wanted columns >= 1 and pad >= 0.")
    b, c, h, w = x.shape
    columns = columns or math.ceil(math.sqrt(b))
    rows = math.ceil(b / columns)
    cells = x.new_ones(rows * columns, c, h + pad, w + pad)
    cells[:b, :, :h, :w] = x.detach().clamp(0, 1)
    sheet = rearrange(cells, "(rows columns) c h w -> c (rows h) (columns w)", rows=rows)
    return sheet[:, : sheet.shape[1] - pad, : sheet.shape[2] - pad]


def to_pil(x: Tensor) -> Image.Image:
    """A (C, H, W) tensor with C = 1 or 3, clipped to [0, 1], as an 8-bit PIL image.

    Raises:
        ValueError: x has another shape, or NaN.
    """
    if x.ndim != 3:
        raise ValueError(f"got a tensor of shape {tuple(x.shape)}, wanted (C, H, W).")
    return _to_pil(x.detach().cpu().clamp(0, 1)[None], None, mode="RGB", icc=None)


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
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, so that the replacement is one rename within one file system.
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            _write(x, file, file_format, options)
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


# ---- reading ----


def _from_path(path: Path) -> Picture:
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
            raise _unreadable(str(path), error) from error
        with image:
            return _from_pil(image, str(path))


def _from_pil(image: Image.Image, name: str) -> Picture:
    _check_not_empty((image.height, image.width), name)
    try:
        plain = _plain(ImageOps.exif_transpose(image))
    except Exception as error:  # files are decoded only here, and decoders of broken ones raise almost anything
        raise _unreadable(name, error) from error
    # A profile describes the colours of its own mode, so it would be wrong on the RGB made of CMYK or Lab.
    icc = None if image.mode in ("CMYK", "YCbCr", "LAB", "HSV") else image.info.get("icc_profile")
    give = partial(_to_pil, mode=plain.mode, icc=icc)
    picture = _from_channels_last(_scaled(np.atleast_3d(np.asarray(plain)))[None], give)
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


def _from_numpy(array: np.ndarray) -> Picture:
    _check_not_empty(array.shape, "the array")
    layout = _layout(array.shape)
    dtype = np.dtype(np.float32) if array.dtype.kind == "b" else array.dtype
    values = _scaled(array)
    if layout == "HW":
        values = values[..., None]
    if layout != "NHWC":
        values = values[None]
    return _from_channels_last(values, partial(_to_numpy, dtype=dtype, layout=layout))


def _layout(shape: tuple[int, ...]) -> Literal["HW", "HWC", "NHWC"]:
    wanted = "wanted H x W, H x W x C or N x H x W x C with C = 1, 2 (grey, alpha), 3 or 4 (RGB, alpha)"
    if len(shape) == 2:
        return "HW"
    if len(shape) not in (3, 4):
        raise ValueError(f"the array has shape {shape}, {wanted}.")
    channels_first, channels_last = shape[-3] in (1, 3), shape[-1] in (1, 2, 3, 4)
    if channels_first and channels_last:
        raise ValueError(
            f"the array's shape {shape} is ambiguous: channels may come first or last; pass a torch tensor, "
            "which is always C x H x W or B x C x H x W."
        )
    if channels_first:
        raise ValueError(
            f"the array's shape {shape} looks like channels first, {wanted}; move them by np.moveaxis(array, -3, -1) "
            "or pass a torch tensor."
        )
    if not channels_last:
        raise ValueError(f"the array has shape {shape}, {wanted}; pass several grey images as a list.")
    return "HWC" if len(shape) == 3 else "NHWC"


def _scaled(array: np.ndarray) -> np.ndarray:
    """float32 copy in which the white of integers is 1."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind not in "bf" and not (kind == "u" and size in (1, 2)):
        raise TypeError(
            f"the array has dtype {array.dtype}, wanted uint8, uint16, bool or float; "
            "divide other integers by the value of white."
        )
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, which is then refused
        values = array.astype(np.float32, order="C")
    return values / np.float32(np.iinfo(array.dtype).max) if kind == "u" else values


def _from_channels_last(values: np.ndarray, give: Callable[[Tensor, Tensor | None], Any]) -> Picture:
    values = torch.from_numpy(values).permute(0, 3, 1, 2)
    if values.shape[1] in (2, 4):
        return Picture(values[:, :-1].contiguous(), values[:, -1:].contiguous(), give)
    return Picture(values.contiguous(), None, give)


def _from_torch(tensor: Tensor) -> Picture:
    if tensor.dtype == torch.uint8:
        raise TypeError("the tensor is uint8, wanted floating point in [0, 1]; divide it by 255.")
    if not tensor.is_floating_point():
        raise TypeError(f"the tensor is {tensor.dtype}, wanted floating point; convert it by .float().")
    _check_not_empty(tensor.shape, "the tensor")
    if tensor.ndim not in (3, 4):
        hint = "; add the channel by x[None]" if tensor.ndim == 2 else ""
        raise ValueError(f"the tensor has shape {tuple(tensor.shape)}, wanted C x H x W or B x C x H x W{hint}.")
    batched = tensor.ndim == 4
    x = tensor.detach().to(torch.float32)
    give = partial(_to_torch, dtype=tensor.dtype, device=tensor.device, batched=batched)
    return Picture(x if batched else x[None], None, give)


def _read_list(images: list | tuple, role: str, nan: bool) -> Picture:
    pictures = []
    for k, image in enumerate(images):
        try:
            pictures.append(read(image, role=role, nan=nan))
        except (TypeError, ValueError) as error:
            raise type(error)(f"image {k} of the list: {error}") from error
    x = torch.cat(_same_size([picture.x for picture in pictures]))
    has_alpha = [picture.alpha is not None for picture in pictures]
    alpha = None
    if any(has_alpha):
        opaque = torch.ones_like(x[:1, :1])
        alpha = torch.cat([opaque if picture.alpha is None else picture.alpha for picture in pictures])
    return Picture(x, alpha, partial(_to_list, give=[picture._give for picture in pictures], has_alpha=has_alpha))


def _same_size(parts: list[Tensor]) -> list[Tensor]:
    if not parts:
        raise ValueError("the list is empty; give at least one image.")
    for k, part in enumerate(parts):
        if len(part) != 1:
            raise ValueError(f"item {k} of the list is a batch of {len(part)}; give a list of single images.")
        if part.shape != parts[0].shape:
            raise ValueError(
                f"a list is one batch of one size, but item 0 is {_shape(parts[0][0])} and item {k} is "
                f"{_shape(part[0])} (channels x height x width); give them one at a time."
            )
        if part.device != parts[0].device:
            raise ValueError(
                f"items 0 and {k} of the list are on {parts[0].device} and {part.device}; choose one device."
            )
    return parts


def _holes(mask: Picture) -> Tensor:
    if mask.alpha is not None and mask.alpha.min() < 1:
        raise ValueError("the mask is partly transparent; save it without alpha, white where the holes are.")
    if (mask.x - mask.x[:, :1]).abs().max() > _GREY_TOLERANCE:
        raise ValueError("the mask is coloured; save it in grey, white where the holes are.")
    x = mask.x.mean(1, keepdim=True)
    if 0 < x.max() < 0.5:
        raise ValueError(
            f"the mask marks no hole: its largest value is {float(x.max()):.3g} of white and holes start at 0.5; "
            "make holes white (a file that holds 0 and 1: read it as an array and pass array.astype(bool))."
        )
    return x >= 0.5


# ---- giving back: x is (B, C, H, W) in [0, 1], alpha (B, 1, H, W) or None ----


def _to_pil(x: Tensor, alpha: Tensor | None, *, mode: str, icc: bytes | None) -> Image.Image:
    if x.shape[1] not in (1, 3):
        raise ValueError(f"a picture has 1 or 3 channels; got {x.shape[1]}.")
    # PIL has 16 bits and floats for a single channel only; what gained colour or has alpha gets 8 bits.
    deep = {"I;16": np.uint16, "F": np.float32} if x.shape[1] == 1 and alpha is None else {}
    image = Image.fromarray(_to_numpy(x, alpha, dtype=np.dtype(deep.get(mode, np.uint8)), layout="HW"))
    if icc and image.mode.startswith("RGB") == mode.startswith("RGB"):
        image.info["icc_profile"] = icc
    return image


def _to_numpy(x: Tensor, alpha: Tensor | None, *, dtype: np.dtype, layout: str) -> np.ndarray:
    x = x if alpha is None else torch.cat([x, alpha.to(x)], 1)
    values = x.permute(0, 2, 3, 1).to("cpu", torch.float32).numpy()
    if dtype.kind == "u":
        if np.isnan(values).any():
            raise ValueError(f"the image holds NaN, which {dtype} cannot; fill the holes first.")
        values = np.rint(values * np.float32(np.iinfo(dtype).max))
    values = values.astype(dtype, order="C")
    if layout == "NHWC":
        return values
    return values[0, ..., 0] if layout == "HW" and x.shape[1] == 1 else values[0]


def _to_torch(x: Tensor, alpha: None, *, dtype: torch.dtype, device: torch.device, batched: bool) -> Tensor:
    x = x.to(device, dtype)
    return x if batched else x[0]


def _to_list(x: Tensor, alpha: Tensor | None, *, give: list[Callable], has_alpha: list[bool]) -> list:
    alphas = [None] * len(x) if alpha is None else alpha.split(1)
    return [g(x_i, a if has else None) for g, x_i, a, has in zip(give, x.split(1), alphas, has_alpha)]


def _resize_alpha(alpha: Tensor, size: torch.Size) -> Tensor:
    if alpha.shape[-2:] == size:
        return alpha
    return torch.cat([_resize_one_alpha(a[None], size) for a in alpha])


def _resize_one_alpha(alpha: Tensor, size: torch.Size) -> Tensor:
    if ((alpha == 0) | (alpha == 1)).all():
        return F.interpolate(alpha, tuple(size), mode="nearest-exact")
    return F.interpolate(alpha, tuple(size), mode="bilinear", antialias=True)


def _write(image: Image.Image, file: Any, file_format: str, options: dict) -> None:
    try:
        image.save(file, format=file_format, **options)
    except OSError as error:
        if error.errno is not None:  # the disk's complaint, not the format's
            raise
        raise ValueError(f"mode {image.mode} cannot be written as {file_format}: {error}; try .png or .tif.") from error


# ---- checks and their words ----


def _check_not_empty(shape: tuple[int, ...], name: str) -> None:
    if 0 in shape:
        raise ValueError(f"{name} is empty: its shape is {tuple(shape)}; give at least one pixel.")


def _check_finite(x: Tensor, name: str, nan: bool) -> None:
    bad = x.isinf() if nan else ~x.isfinite()
    if bad.any():
        hint = "" if nan else "; where they are holes, inpaint with mask="
        raise ValueError(f"{name} holds {int(bad.sum())} values that are not finite in float32{hint}.")


def _check_range(x: Tensor, name: str) -> None:
    low, high = float(x.nan_to_num(torch.inf).min()), float(x.nan_to_num(-torch.inf).max())
    if low < -_RANGE_TOLERANCE or high > 1 + _RANGE_TOLERANCE:
        raise ValueError(
            f"{name} has values from {low:.4g} to {high:.4g}, wanted [0, 1]; divide 0..255 by 255, "
            "map -1..1 by (x + 1) / 2."
        )


def _unreadable(name: str, error: Exception) -> ValueError:
    return ValueError(f"{name} cannot be read as an image: {error}; check that the file is whole.")


def kind_of(thing: Any) -> str:
    """The full name of a thing's type, for messages."""
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def _shape(x: Tensor) -> str:
    return " x ".join(map(str, x.shape))


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
