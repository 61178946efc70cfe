"""The operator interface, and compositions with a nonlinear part.

Notation: x an image (B, C, H, W); y = A(x) a measurement (B, C', H', W'); J(x) = dA / dx, J^T its transpose.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from genprior.ambient import settle_methods, settled
from genprior.checks import Shape


class Operator(ABC):
    """An immutable, differentiable map A from images to measurements; see `LinearOperator` for linear maps.

    It works in the dtype and on the device of its input, and copies the kernels, masks and matrices it is built from.
    Operators can be pickled. The caller's autocast, inference mode, default dtype and default device have no effect.

    Attributes:
        image_shape: (C, H, W) of x.
        measurement_shape: (C', H', W') of y.
        batch: 1, or the number B of images if each image has its own mask, kernel or matrix.
        precision: the highest precision in which A(x) is computed, whatever the dtype of x.
    """

    image_shape: Shape
    measurement_shape: Shape
    batch: int = 1
    precision: torch.dtype = torch.float64

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        settle_methods(cls, ("__init__", "for_measurement", "svd"))

    @settled
    def __call__(self, x: Tensor) -> Tensor:
        """A(x), (B, *image_shape) -> (B, *measurement_shape)."""
        self._check("an image", x, self.image_shape)
        return self._forward(x)

    @settled
    def vjp(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """A(x), and the function v -> J(x)^T v, (B, *measurement_shape) -> (B, *image_shape)."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            y = self(x)

        def pull(v: Tensor) -> Tensor:
            (product,) = torch.autograd.grad(y, x, v, retain_graph=True, materialize_grads=True)
            return product

        return y.detach(), pull

    @settled
    def jvp(self, x: Tensor, u: Tensor) -> Tensor:
        """J(x) u, (B, *image_shape) twice -> (B, *measurement_shape): the derivative of v -> J(x)^T v, along u."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            y = self(x)
            v = torch.zeros_like(y, requires_grad=True)
            (pulled,) = torch.autograd.grad(y, x, v, create_graph=True, materialize_grads=True)
        (product,) = torch.autograd.grad(pulled, v, u, materialize_grads=True)
        return product

    def select(self, index: Tensor) -> Operator:
        """The operator for the images at `index` (1-D, long); only per-image state is indexed."""
        return self if self.batch == 1 else self._select(index)

    def frame(self, x: Tensor) -> Tensor:
        """Crop x, (..., H, W), to the measured frame, the part that a user wants to see."""
        return x

    def decoded(self, y: Tensor) -> Tensor | None:
        """The image that y encodes, (B, *image_shape), if the operator only re-encodes an image; otherwise None."""
        return None

    def __matmul__(self, inner: Operator) -> Operator:
        """(A2 @ A1)(x) = A2(A1(x))."""
        return NonlinearComposition(self, inner)

    @abstractmethod
    def _forward(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def _select(self, index: Tensor) -> Operator: ...

    def _check(self, what: str, a: Tensor, shape: Shape) -> None:
        if a.ndim != 4 or tuple(a.shape[1:]) != tuple(shape):
            wanted = f"(B, {', '.join(map(str, shape))})"
            raise ValueError(f"{name_of(self)} takes {what} of shape {wanted}, not {tuple(a.shape)}.")
        if a.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"{name_of(self)} works in float32 and float64, not in {a.dtype}; convert with .float().")
        if self.batch not in (1, len(a)):
            raise ValueError(
                f"{name_of(self)} is for {self.batch} images, each with its own parameters, but got {len(a)}; "
                "take those you need with operator.select(index)."
            )


class Composed(Operator):
    """A2 after A1: first `inner`, then `outer`.

    Arguments:
        outer, inner: A2 and A1; the measurements of `inner` are the images of `outer`.

    Raises:
        ValueError: the shapes do not fit.
    """

    outer: Operator
    inner: Operator

    def __init__(self, outer: Operator, inner: Operator):
        if outer.image_shape != inner.measurement_shape:
            raise ValueError(
                f"{type(inner).__name__} gives {inner.measurement_shape} but {type(outer).__name__} takes "
                f"{outer.image_shape}: build the outer one for the measurement_shape of the inner one."
            )
        if 1 not in (outer.batch, inner.batch) and outer.batch != inner.batch:
            raise ValueError(f"The operators are for {outer.batch} and {inner.batch} images; make them agree.")
        self.outer, self.inner = outer, inner
        self.image_shape, self.measurement_shape = inner.image_shape, outer.measurement_shape
        self.batch = max(outer.batch, inner.batch)
        self.precision = max(outer.precision, inner.precision, key=lambda dtype: torch.finfo(dtype).eps)

    def _forward(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x))

    def frame(self, x: Tensor) -> Tensor:
        framed = self.inner.frame(x)
        # The outer frame refers to inner measurements; it applies to x only if the two share a pixel grid.
        same_pixels = framed.shape[-2:] == self.inner.measurement_shape[-2:]
        return self.outer.frame(framed) if same_pixels else framed


class NonlinearComposition(Composed):
    """A2 after A1, at least one of them nonlinear; created by `A2 @ A1`."""

    def _select(self, index: Tensor) -> NonlinearComposition:
        return NonlinearComposition(self.outer.select(index), self.inner.select(index))


def name_of(operator: Operator) -> str:
    """The name of an operator in messages."""
    return getattr(operator, "_name", type(operator).__name__)
