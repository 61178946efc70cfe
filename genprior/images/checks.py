"""Checks for every kind of image, and their error messages."""

from typing import Any

import numpy as np
import torch
from PIL import UnidentifiedImageError
from torch import Tensor

# How far rounding (a JPEG decoder, a resize, half precision) may carry an image out of [0, 1] before it is refused.
_RANGE_TOLERANCE = 1e-3


class OtherKindError(ValueError):
    """A valid file with values of an unsupported kind; the message says which and what to do."""


def check_not_empty(shape: tuple[int, ...], name: str) -> None:
    if 0 in shape:
        raise ValueError(f"{name} is empty: its shape is {tuple(shape)}; give at least one pixel.")


def check_not_masked(values: Any, name: str, why: str) -> None:
    """Raise an error for a numpy array with masked values, since what lies under a mask means nothing."""
    if np.ma.is_masked(values):
        masked = int(np.ma.getmaskarray(values).sum())
        raise ValueError(
            f"{name} masks {masked} of its values, and {why}: give all of them, as by array.filled(value)."
        )


def check_finite(x: Tensor, name: str, nan: bool) -> None:
    bad = x.isinf() if nan else ~x.isfinite()
    if bad.any():
        hint = "" if nan else "; where they are holes, inpaint with mask="
        raise ValueError(f"{name} holds {int(bad.sum())} values that are not finite in float32{hint}.")


def check_range(x: Tensor, name: str) -> None:
    low, high = float(x.nan_to_num(torch.inf).min()), float(x.nan_to_num(-torch.inf).max())
    if low < -_RANGE_TOLERANCE or high > 1 + _RANGE_TOLERANCE:
        raise ValueError(
            f"{name} has values from {low:.4g} to {high:.4g}, wanted [0, 1]; divide 0..255 by 255, "
            "map -1..1 by (x + 1) / 2."
        )


def unreadable(name: str, error: Exception) -> ValueError:
    if isinstance(error, UnidentifiedImageError):
        return ValueError(
            f"{name} cannot be read as an image: its format is none that is read here, such as PNG, JPEG or TIFF; "
            "check that the file is whole, or convert it."
        )
    if isinstance(error, OtherKindError):
        return ValueError(f"{name} is not read: {error}.")
    return ValueError(f"{name} cannot be read as an image: {error}; check that the file is whole.")


def kind_of(thing: Any) -> str:
    """The full name of a thing's type, for messages."""
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def shape_of(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
