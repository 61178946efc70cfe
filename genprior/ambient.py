"""Isolation from torch's state: what a caller has set for other work changes no result and raises no error here.

The state is autocast, inference mode, the default dtype and device, and deterministic algorithms. Grad mode stays the
caller's, because it decides whether a result can be differentiated; code that needs gradients turns them on.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

DEVICE_TYPES = ("cpu", "cuda", "mps", "xpu")
HALF = (torch.float16, torch.bfloat16)  # half precision

_thread = threading.local()

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M", bound=nn.Module)


def settled(function: Callable[P, R]) -> Callable[P, R]:
    """Run the function in torch's plain state, whatever the caller's; copies replace tensors of inference mode.

    Calls inside a `deliberate` function are left as they are.
    """

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        # a compiled function guards on this state itself
        if torch.compiler.is_compiling() or getattr(_thread, "deliberate", False):
            return function(*arguments, **named)
        with contextlib.ExitStack() as stack:
            _settle(stack)
            if any(isinstance(a, Tensor) and a.is_inference() for a in (*arguments, *named.values())):
                arguments = tuple(map(_plain, arguments))
                named = {name: _plain(value) for name, value in named.items()}
            return function(*arguments, **named)

    return call


def settle_methods(cls: type, names: tuple[str, ...]) -> None:
    """Apply `settled` to those of the named methods and class methods that a class defines itself."""
    for name in names:
        method = vars(cls).get(name)
        if isinstance(method, classmethod):
            setattr(cls, name, classmethod(settled(method.__func__)))
        elif callable(method):
            setattr(cls, name, settled(method))


def deliberate(function: Callable[P, R]) -> Callable[P, R]:
    """Run the function in the caller's state, which is meant for it, such as the autocast around a loss."""

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        if torch.compiler.is_compiling():
            return function(*arguments, **named)
        before, _thread.deliberate = getattr(_thread, "deliberate", False), True
        try:
            return function(*arguments, **named)
        finally:
            _thread.deliberate = before

    return call


def own(a: Tensor) -> Tensor:
    """A private, contiguous copy: part of no graph, free to become part of one."""
    with torch.inference_mode(False):
        return a.detach().clone(memory_format=torch.contiguous_format)


def differentiable(module: M) -> M:
    """The module, or a copy of it if its weights were made in inference mode, which blocks gradients."""
    weights = (*module.parameters(), *module.buffers())
    return copy.deepcopy(module) if any(weight.is_inference() for weight in weights) else module


def _plain(a: Any) -> Any:
    return a.clone() if isinstance(a, Tensor) and a.is_inference() else a


def _settle(stack: contextlib.ExitStack) -> None:
    """Make torch's state plain, where it is not already."""
    if torch.is_inference_mode_enabled():
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
    for kind in DEVICE_TYPES:
        if torch.is_autocast_enabled(kind):
            stack.enter_context(torch.autocast(kind, enabled=False))
    if torch.get_default_dtype() != torch.float32:
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
    if torch.get_default_device().type != "cpu":
        stack.enter_context(torch.device("cpu"))
    if torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled():
        # Determinism stays, but operations without a deterministic algorithm warn: the seed keys draws either way.
        stack.callback(torch.use_deterministic_algorithms, True)
        torch.use_deterministic_algorithms(True, warn_only=True)
