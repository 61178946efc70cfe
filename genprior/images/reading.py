"""Read a path, a PIL image, a numpy array, a torch tensor or a list of them as the tensor x."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genprior.ambient import settled
from genprior.images.arrays import from_numpy
from genprior.images.checks import check_finite, check_not_masked, check_range, kind_of, shape_of
from genprior.images.picture import Picture
from genprior.images.pil import from_path, from_pil
from genprior.images.tensors import from_torch

ImageLike: TypeAlias = "str | os.PathLike | Image.Image | np.ndarray | Tensor | list | tuple"


@settled
def read(image: ImageLike, *, role: Literal["image", "measurement"] = "image", nan: bool = False) -> Picture:
    """Read a path, PIL image, numpy array, torch tensor or list of them as a `Picture`.

    Integers are divided by their largest value (8 bit: 255, 16 bit: 65535). Files and PIL images are turned by their
    EXIF orientation; of several frames the first is read. A numpy array is H x W, H x W x C or B x H x W x C with
    C = 1, 2 (grey, alpha), 3, 4 (RGB, alpha); masked values become NaN. A floating-point tensor is C x H x W or
    B x C x H x W, never with alpha.

    Args:
        image: what the user gave; the items of a list are single images of one size and become one batch.
        role: "image" holds values in [0, 1]; "measurement" any finite values, which are never clipped.
        nan: whether NaN is allowed, to mark holes.

    Raises:
        TypeError: the kind or dtype is none of the above.
        ValueError: unreadable, empty, ambiguous, non-finite, out of range, or a list of unequal sizes.
        OSError: the file does not exist or cannot be opened.
    """
    if role not in ("image", "measurement"):
        raise ValueError(f'role {role!r} is unknown; choose "image" or "measurement".')
    if isinstance(image, list | tuple):
        return _read_list(image, role, nan)
    if isinstance(image, str | os.PathLike):
        name, picture = str(image), from_path(Path(image))
    elif isinstance(image, Image.Image):
        name, picture = "the PIL image", from_pil(image, "the PIL image")
    elif isinstance(image, np.ndarray):
        if not nan:
            check_not_masked(image, "The array", "only inpaint takes them for holes")
        name, picture = "the array", from_numpy(image)
    elif isinstance(image, Tensor):
        name, picture = "the tensor", from_torch(image)
    else:
        raise TypeError(
            f"an image is a path, a PIL image, a numpy array, a torch tensor or a list of them; got {kind_of(image)}."
        )
    check_finite(picture.x, name, nan)
    if role == "image":
        check_range(picture.x, name)
    if picture.alpha is not None:
        check_finite(picture.alpha, f"the alpha of {name}", nan=False)
        check_range(picture.alpha, f"the alpha of {name}")
    return picture


def _read_list(images: list | tuple, role: Literal["image", "measurement"], nan: bool) -> Picture:
    pictures = []
    for k, image in enumerate(images):
        try:
            pictures.append(read(image, role=role, nan=nan))
        except (TypeError, ValueError) as error:
            raise type(error)(f"image {k} of the list: {error}") from error
    x = torch.cat(same_size([picture.x for picture in pictures]))
    has_alpha = [picture.alpha is not None for picture in pictures]
    alpha = None
    if any(has_alpha):
        opaque = torch.ones_like(x[:1, :1])
        alpha = torch.cat([opaque if picture.alpha is None else picture.alpha for picture in pictures])
    return Picture(x, alpha, partial(_give_list, give=[picture._give for picture in pictures], has_alpha=has_alpha))


def same_size(parts: list[Tensor]) -> list[Tensor]:
    if not parts:
        raise ValueError("the list is empty; give at least one image.")
    for k, part in enumerate(parts):
        if len(part) != 1:
            raise ValueError(f"item {k} of the list is a batch of {len(part)}; give a list of single images.")
        if part.shape != parts[0].shape:
            raise ValueError(
                f"a list is one batch of one size, but item 0 is {shape_of(parts[0].shape[1:])} and item {k} is "
                f"{shape_of(part.shape[1:])} (channels x height x width); give them one at a time."
            )
        if part.device != parts[0].device:
            raise ValueError(
                f"items 0 and {k} of the list are on {parts[0].device} and {part.device}; choose one device."
            )
    return parts


def _give_list(x: Tensor, alpha: Tensor | None, *, give: list[Callable], has_alpha: list[bool]) -> list:
    alphas = [None] * len(x) if alpha is None else alpha.split(1)
    return [g(x_i, a if has else None) for g, x_i, a, has in zip(give, x.split(1), alphas, has_alpha)]
