"""Checks of arguments at the boundary: one clear error, or the value in its wanted form."""

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from numbers import Real
from typing import Annotated, Any, get_args, get_origin

import numpy as np
import torch
from torch import Tensor

from genprior.ambient import own

# (C, H, W), with None for an axis that may have any size
Shape = tuple[int, ...]
OpenShape = tuple[Any, ...]


class UnsupportedError(Exception):
    """A prior, operator or sampler lacks what was requested; the message names what has it."""


def optional(package: str, advice: str) -> Any:
    """Import a package of an extra, or explain how to install it.

    Raises:
        UnsupportedError: it is not installed; the message is the advice.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UnsupportedError(advice) from error


def as_shape(shape: tuple[int, ...]) -> Shape:
    """Check `shape` and return it as (C, H, W).

    Raises:
        ValueError: it is not three positive integers.
    """
    shape = tuple(shape)
    if len(shape) != 3 or not all(isinstance(n, int) and n > 0 for n in shape):
        raise ValueError(f"A shape is (C, H, W), three positive integers; got {shape}.")
    return shape


def as_tensor(what: str, value: Tensor | np.ndarray) -> Tensor:
    """A copy of a tensor or numpy array, as a tensor; `what` names it in the message.

    Raises:
        ValueError: it is neither, or has masked values.
    """
    if np.ma.is_masked(value):
        raise ValueError(f"{what} is a masked array, and its masked values mean nothing; give all of its values.")
    if isinstance(value, np.ndarray):
        # a flipped array has negative strides, which torch refuses
        return torch.from_numpy(value.copy(order="C"))
    if not isinstance(value, Tensor):
        raise ValueError(f"{what} is a tensor or a numpy array; got {type(value).__name__}.")
    return own(value)


def as_number(what: str, value: float, low: float, high: float) -> float:
    """Check that `value` is a number from low to high, and return it as a float; `what` names it in the message.

    Raises:
        ValueError: it is not a number, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= value <= high or math.isinf(value):
        raise ValueError(f"{what} is a number from {low} to {high}; got {value!r}.")
    return float(value)


def whole(least: int, *numbers: object) -> bool:
    """Whether all are ints, `least` or more."""
    return all(isinstance(a, int) and a >= least for a in numbers)


def positive(number: object) -> bool:
    """Whether `number` is finite and above 0."""
    return isinstance(number, int | float) and 0 < number < math.inf


# A test of an argument, and what it allows in words.
Rule = tuple[Callable[[Any], bool], str]
COUNT: Rule = (lambda n: whole(1, n), "a whole number, at least 1")
COUNTS: Rule = (lambda numbers: len(numbers) > 0 and whole(1, *numbers), "a list of whole numbers, at least 1")
WHOLE: Rule = (lambda n: whole(0, n), "a whole number")
IF_ANY: Rule = (lambda n: whole(0, n), "a whole number, 0 for none")
NUMBER: Rule = (lambda a: isinstance(a, int | float) and math.isfinite(a), "a number")
POSITIVE: Rule = (positive, "a positive number")
SHAPE: Rule = (lambda shape: len(shape) == 3 and whole(1, *shape), "(C, H, W), whole numbers")
OPEN_SHAPE: Rule = (
    lambda shape: len(shape) == 3 and whole(1, shape[0], *(a for a in shape[1:] if a is not None)),
    "(C, H, W), whole numbers; H and W may be None",
)


def count_classes(labels: Tensor | np.ndarray) -> int:
    """Return how many classes the labels have, which count from 0.

    Raises:
        ValueError: a label is negative.
    """
    if (labels < 0).any():
        raise ValueError(f"Labels count from 0, and one is {int(labels.min())}: leave out images without a class.")
    return int(labels.max()) + 1


def check_arguments(arguments: Mapping[str, Any], **rules: Rule) -> None:
    """Raise an error for the first of several arguments that breaks its rule.

    Raises:
        ValueError: an argument breaks its rule.
    """
    for name, (right, wanted) in rules.items():
        if not right(arguments[name]):
            raise ValueError(f"{name} is {arguments[name]!r}: give {wanted}.")


def as_integer(what: str, value: float, low: int, high: float) -> int:
    """Check that `value` is an integer from low to high, as 3.0 is, and return an int; `what` names it in the message.

    Raises:
        ValueError: it is not a whole number, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= value <= high or value % 1:
        raise ValueError(f"{what} is a whole number from {low} to {high}; got {value!r}.")
    return int(value)


@dataclass(frozen=True)
class Range:
    """The allowed values of a parameter, stated in its type: `share: Annotated[float, Range(0, 1)]`."""

    low: float
    high: float = math.inf


Count = Annotated[int, Range(1)]
Positive = Annotated[float, Range(1e-12)]
NonNegative = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1)]


def check_fields(parameters: Any) -> None:
    """Check the fields of a dataclass whose types have a range; None is allowed if the type includes it.

    Raises:
        ValueError: a field is not such a number.
    """
    for field in fields(parameters):
        value = getattr(parameters, field.name)
        for kind in (field.type, *get_args(field.type)):
            if get_origin(kind) is Annotated and (value is not None or kind is field.type):
                number, limits = get_args(kind)
                check = as_integer if number is int else as_number
                check(field.name, value, limits.low, limits.high)  # pyright: ignore[reportArgumentType]
