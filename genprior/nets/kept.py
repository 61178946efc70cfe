"""Weights that are kept in half precision, as their file has them, by networks that compute in float32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from genprior.ambient import HALF


class Widened(TorchFunctionMode):
    """Inside, whoever takes a parameter of half precision gets it in float32.

    A layer gets a copy, for the time of its call, or with gradients until the graph is gone. The values are the same,
    so that answers are those of a float32 network, to the last bit, and the weights take half its memory.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*map(_wide, args), **{name: _wide(value) for name, value in (kwargs or {}).items()})


def computing(
    network: nn.Module, device: torch.device, precision: torch.dtype | None
) -> contextlib.AbstractContextManager:
    """Where a network computes in `precision`; for None, in that of its weights, and if they are kept in half, float32.

    For None, nothing else changes, not even an autocast around it.
    """
    around = contextlib.nullcontext() if precision is None else torch.autocast(device.type, precision)
    return around if half_of(network) is None else _widened(around)


def half_of(network: nn.Module) -> torch.dtype | None:
    """The half precision that a network's weights are in, by the first of them; None for others."""
    first = next(network.parameters(), None)
    return first.dtype if first is not None and first.dtype in HALF else None


@contextlib.contextmanager
def _widened(around: contextlib.AbstractContextManager) -> Iterator[None]:
    with around, Widened():
        yield


def _wide(a: Any) -> Any:
    return a.float() if isinstance(a, nn.Parameter) and a.dtype in HALF else a
