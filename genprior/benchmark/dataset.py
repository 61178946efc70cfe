"""The data of an evaluation: images in a fixed order, cropped, and hashes of all simulated arrays."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genprior import images
from genprior.checks import Shape, as_integer
from genprior.files import sha256
from genprior.operators.base import Operator
from genprior.operators.blur import Blur
from genprior.operators.inpaint import Inpaint
from genprior.training.data import Arrays


@dataclass(frozen=True)
class Truth:
    """One image, read when needed.

    Attributes:
        number: its position in the data, from 0.
        name: its file name, or its number.
        shape: (C, H, W).
        sha256: of its values, float32 in C order.
        read: () -> (C, H, W), float32 in [0, 1], on the CPU.
    """

    number: int
    name: str
    shape: Shape
    sha256: str
    read: Callable[[], Tensor]


def find_truths(data: Any, array: str, limit: int | None, crop: int | None) -> list[Truth]:
    """Find the images of a folder, a file, an .npz file, a batch or a list of images.

    Arguments:
        data: a folder (its image files and those of its subfolders, sorted), an image file, an .npz file, a tensor
            (B, C, H, W) or array (B, H, W, C), or a list of paths, PIL images, tensors and arrays.
        array: name of the array in an .npz file, uint8 (N, H, W) or (N, H, W, C).
        limit: use only the first `limit` images; None for all.
        crop: side of the square cut from the middle of each image; None for whole images.

    Raises:
        ValueError: there are no images, one cannot be read, or one is smaller than the crop.
    """
    limit = None if limit is None else as_integer("limit, the number of images,", limit, 1, math.inf)
    crop = None if crop is None else as_integer("crop, the side of the crops in pixels,", crop, 1, math.inf)
    named = _named(data, array)[:limit]
    if not named:
        raise ValueError(f"There are no images in {data if isinstance(data, str | Path) else 'the data'}.")
    return [_truth(number, name, partial(_cropped, name, read, crop)) for number, (name, read) in enumerate(named)]


def hashes(A: Operator) -> dict[str, str]:
    """sha256 of a simulated array: a mask (bool, True in holes) or a kernel (float64)."""
    if isinstance(A, Inpaint):
        return {"mask_sha256": sha256(A.mask)}
    if isinstance(A, Blur):
        return {"kernel_sha256": sha256(A.kernel.double())}
    return {}


def described(value: Any) -> Any:
    """Convert an operator's parameter to JSON, arrays to shape and hash."""
    if isinstance(value, Image.Image):
        value = np.array(value)
    if isinstance(value, Tensor | np.ndarray):
        tensor = torch.as_tensor(value)
        return f"{' x '.join(map(str, tensor.shape))}, sha256 {sha256(tensor)[:16]}"
    if isinstance(value, np.generic):
        return value.item()
    return str(value) if isinstance(value, Path) else value


def _named(data: Any, array: str) -> list[tuple[str, Callable[[], Tensor]]]:
    if isinstance(data, str | Path):
        path = Path(data)
        if path.is_dir():
            return [(p.relative_to(path).as_posix(), partial(_one, p)) for p in images.list_images(path)]
        if path.suffix.lower() == ".npz":
            stored = Arrays(path, array, seed=None)
            return [(str(i), lambda i=i: stored[i]["x"]) for i in range(len(stored))]
        return [(path.name, partial(_one, path))]
    if isinstance(data, list | tuple):
        return [(Path(d).name if isinstance(d, str | Path) else str(i), partial(_one, d)) for i, d in enumerate(data)]
    if isinstance(data, Tensor | np.ndarray):
        batch = images.read(data).seen.cpu()
        return [(str(i), lambda i=i: batch[i]) for i in range(len(batch))]
    raise TypeError(f"data is a folder, a file, an .npz file, a batch or a list of images; got {images.kind_of(data)}.")


def _one(image: images.ImageLike) -> Tensor:
    x = images.read(image).seen.cpu()
    if len(x) > 1:
        raise ValueError(f"an item of a list is one image; got a batch of {len(x)}.")
    return x[0]


def _cropped(name: str, read: Callable[[], Tensor], side: int | None) -> Tensor:
    try:
        x = read()
    except (ValueError, TypeError) as error:
        raise type(error)(f"image {name}: {error}") from error
    if side is None:
        return x
    _, H, W = x.shape
    if min(H, W) < side:
        raise ValueError(f"image {name} is {H} x {W}, smaller than crops of {side} x {side}; give a smaller crop.")
    top, left = (H - side) // 2, (W - side) // 2
    return x[:, top : top + side, left : left + side].contiguous()


def _truth(number: int, name: str, read: Callable[[], Tensor]) -> Truth:
    x = read()
    return Truth(number, name, tuple(x.shape), sha256(x), read)
