"""Weights stored in half precision, as in their file, for networks that compute in float32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from genprior.ambient import HALF


class Widened(TorchFunctionMode):
    """A mode in which every function that takes a half-precision parameter receives it in float32.

    A layer receives a copy, which lives for the call or, with gradients, as long as the graph. The values are the same,
    so outputs equal those of a float32 network to the last bit, while the weights take half its memory.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*map(_wide, args), **{name: _wide(value) for name, value in (kwargs or {}).items()})


def computing(
    network: nn.Module, device: torch.device, precision: torch.dtype | None
) -> contextlib.AbstractContextManager:
    """Return a context in which a network computes in `precision`.

    For None, it computes in the precision of its weights, or in float32 if they are stored in half precision. Then
    nothing else changes, not even a surrounding autocast.
    """
    around = contextlib.nullcontext() if precision is None else torch.autocast(device.type, precision)
    return around if half_of(network) is None else _widened(around)


def half_of(network: nn.Module) -> torch.dtype | None:
    """Return the half precision of a network's weights, judged by the first of them; None for other dtypes."""
    first = next(network.parameters(), None)
    return first.dtype if first is not None and first.dtype in HALF else None


@contextlib.contextmanager
def _widened(around: contextlib.AbstractContextManager) -> Iterator[None]:
    with around, Widened():
        yield


def _wide(a: Any) -> Any:
    return a.float() if isinstance(a, nn.Parameter) and a.dtype in HALF else a
