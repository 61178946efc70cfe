"""Numpy arrays: H x W, H x W x C or B x H x W x C, of integers or floats."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from genprior.images.checks import check_not_empty
from genprior.images.picture import Picture


def from_numpy(array: np.ndarray) -> Picture:
    check_not_empty(array.shape, "the array")
    layout = _layout(array.shape)
    masked, array = np.ma.getmaskarray(array), np.ma.getdata(array)
    dtype = np.dtype(np.float32) if array.dtype.kind == "b" else array.dtype
    values = scaled(array)
    if masked.any():
        values = _with_holes(values, masked)
    if layout == "HW":
        values = values[..., None]
    if layout != "NHWC":
        values = values[None]
    return from_channels_last(values, partial(give_numpy, dtype=dtype, layout=layout))


def _with_holes(values: np.ndarray, masked: np.ndarray) -> np.ndarray:
    """Set masked values to NaN, the mark of a hole; a pixel whose alpha is masked becomes an opaque hole."""
    values = np.where(masked, np.float32(np.nan), values)
    if values.ndim > 2 and values.shape[-1] in (2, 4):
        gone = masked[..., -1]
        values[..., -1] = np.where(gone, 1, values[..., -1])
        values[..., :-1][gone] = np.nan
    return values


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


def scaled(array: np.ndarray) -> np.ndarray:
    """A float32 copy, with integers scaled so that white is 1."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind not in "bf" and not (kind == "u" and size in (1, 2)):
        raise TypeError(
            f"the array has dtype {array.dtype}, wanted uint8, uint16, bool or float; "
            "divide other integers by the value of white."
        )
    with np.errstate(over="ignore"):  # values beyond float32 become infinite, and are then refused
        values = array.astype(np.float32, order="C")
    return values / np.float32(np.iinfo(array.dtype).max) if kind == "u" else values


def from_float(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Convert values in [0, 1] to the dtype; integers are rounded, with 1 as the largest integer."""
    if dtype.kind == "u":
        if np.isnan(values).any():
            raise ValueError(f"the image holds NaN, which {dtype} cannot; fill the holes first.")
        values = np.rint(values * np.float32(np.iinfo(dtype).max))
    return values.astype(dtype, order="C")


def from_channels_last(values: np.ndarray, give: Callable[[Tensor, Tensor | None], Any]) -> Picture:
    x = rearrange(torch.from_numpy(values), "b h w c -> b c h w")
    if x.shape[1] in (2, 4):
        return Picture(x[:, :-1].contiguous(), x[:, -1:].contiguous(), give)
    return Picture(x.contiguous(), None, give)


def give_numpy(x: Tensor, alpha: Tensor | None, *, dtype: np.dtype, layout: str) -> np.ndarray:
    x = x if alpha is None else torch.cat([x, alpha.to(x)], 1)
    values = from_float(rearrange(x, "b c h w -> b h w c").to("cpu", torch.float32).numpy(), dtype)
    if layout == "NHWC":
        return values
    return values[0, ..., 0] if layout == "HW" and x.shape[1] == 1 else values[0]
