"""What a linear operator is, and what one after the other makes.

Notation: x an image (B, C, H, W); y = A x a measurement (B, C', H', W'); A^T the adjoint; A^+ the pseudo-inverse;
c >= 0 a variance, a float or (B, 1, 1, 1).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from genprior.ambient import settle_methods, settled
from genprior.checks import Shape, UnsupportedError
from genprior.linalg import cg, cgls


class LinearOperator(ABC):
    """A linear map A from images to measurements; immutable; works in the dtype and on the device of what it is given.

    Kernels, masks and matrices are copied when they are given; operators can be pickled. A caller's autocast, inference
    mode, default dtype or default device change nothing.

    Attributes:
        image_shape: (C, H, W) of x.
        measurement_shape: (C', H', W') of y.
        batch: 1, or the number B of images where each image has its own mask, kernel or matrix.
        iterations: of the conjugate gradients that stand in where there is no closed form.
        precision: in which A x is computed, at best, whatever the dtype of x.
    """

    image_shape: Shape
    measurement_shape: Shape
    batch: int = 1
    iterations: int = 100
    precision: torch.dtype = torch.float64

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        settle_methods(cls, ("__init__", "for_measurement", "svd"))

    @settled
    def __call__(self, x: Tensor) -> Tensor:
        """A x, (B, *image_shape) -> (B, *measurement_shape)."""
        self._check("an image", x, self.image_shape)
        return self._forward(x)

    @settled
    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y, (B, *measurement_shape) -> (B, *image_shape)."""
        self._check("a measurement", y, self.measurement_shape)
        return self._adjoint(y)

    @settled
    def pinv(self, y: Tensor) -> Tensor:
        """A^+ y: of all the x that minimise |A x - y|, the shortest."""
        self._check("a measurement", y, self.measurement_shape)
        return self._pinv(y)

    @settled
    def solve(self, v: Tensor, c: float | Tensor) -> Tensor:
        """(A A^T + c I)^-1 v, (B, *measurement_shape) -> the same; with c = 0, (A A^T)^+ v.

        Arguments:
            v: (B, *measurement_shape).
            c: >= 0, float or (B, 1, 1, 1), in squared units of x.
        """
        self._check("a measurement", v, self.measurement_shape)
        return self._solve(v, _as_variance(c, v))

    @settled
    def prox(self, z: Tensor, y: Tensor, gamma: float | Tensor) -> Tensor:
        """argmin_x gamma/2 |A x - y|^2 + 1/2 |x - z|^2 = z + A^T (A A^T + I/gamma)^-1 (y - A z).

        Arguments:
            z: (B, *image_shape).
            y: (B, *measurement_shape).
            gamma: > 0, float or (B, 1, 1, 1); as large as one likes.
        """
        self._check("an image", z, self.image_shape)
        self._check("a measurement", y, self.measurement_shape)
        return self._prox(z, y, _as_variance(1 / gamma, y))

    def svd(self) -> SVD:
        """A = U diag(s) V^T with real orthonormal transforms.

        Raises:
            UnsupportedError: the operator has no singular value decomposition in closed form.
        """
        raise UnsupportedError(
            f"{type(self).__name__} has no SVD in closed form here; Inpaint, SuperResolution, Colorize, Denoise and "
            "Matrix have one, and Blur where it is circular or its kernel is separable, as a Gaussian. Samplers that "
            "need `solve` or `prox` only take any operator."
        )

    def select(self, index: Tensor) -> LinearOperator:
        """The operator of the images of that `index` (1-D, long): state per image is indexed, shared state is kept."""
        return self if self.batch == 1 else self._select(index)

    def frame(self, x: Tensor) -> Tensor:
        """The part of x, (..., H, W), that lies in the measured frame: what a user wants to see."""
        return x

    def decoded(self, y: Tensor) -> Tensor | None:
        """x as y spells it out, (B, *image_shape), of operators that only write an image in another way; else None."""
        return None

    def __matmul__(self, inner: LinearOperator) -> Composition:
        """(A2 @ A1)(x) = A2(A1(x))."""
        return Composition(self, inner)

    @abstractmethod
    def _forward(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def _adjoint(self, y: Tensor) -> Tensor: ...

    @abstractmethod
    def _select(self, index: Tensor) -> LinearOperator: ...

    def _pinv(self, y: Tensor) -> Tensor:
        return cgls(self._forward, self._adjoint, y, iterations=self.iterations)

    def _solve(self, v: Tensor, c: float | Tensor) -> Tensor:
        return cg(lambda u: self._forward(self._adjoint(u)) + c * u, v, iterations=self.iterations)

    def _prox(self, z: Tensor, y: Tensor, c: float | Tensor) -> Tensor:
        return z + self._adjoint(self._solve(y - self._forward(z), c))

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


@dataclass(frozen=True, eq=False)
class SVD:
    """A = U diag(s) V^T in a spectral space of the image's own shape (C, H, W).

    A x = U(s * Vt(x)). V is square and orthonormal: a singular value 0 is a direction that A does not see. U and Ut
    are orthonormal too, Ut(y) = 0 where there is no measurement: white noise stays white.

    Attributes:
        singular_values: s >= 0, broadcasts to (B, C, H, W); float64, where the operator's own state lives:
            take `singular_values.to(x)` once, before a loop.
        V, Vt: spectral (B, C, H, W) -> image (B, C, H, W), and back.
        U, Ut: spectral (B, C, H, W) -> measurement (B, *measurement_shape), and back.
    """

    singular_values: Tensor
    V: Callable[[Tensor], Tensor]
    Vt: Callable[[Tensor], Tensor]
    U: Callable[[Tensor], Tensor]
    Ut: Callable[[Tensor], Tensor]

    def __post_init__(self):
        for name in ("V", "Vt", "U", "Ut"):
            object.__setattr__(self, name, settled(getattr(self, name)))


class Composition(LinearOperator):
    """A = A2 A1: first `inner`, then `outer`; `A2 @ A1` makes one.

    Arguments:
        outer, inner: A2 and A1; the measurements of `inner` are the images of `outer`.
        iterations: of the conjugate gradients in `pinv` and `solve`.

    Raises:
        ValueError: the shapes do not fit.
    """

    def __init__(self, outer: LinearOperator, inner: LinearOperator, iterations: int = 100):
        if outer.image_shape != inner.measurement_shape:
            raise ValueError(
                f"{type(inner).__name__} gives {inner.measurement_shape} but {type(outer).__name__} takes "
                f"{outer.image_shape}: build the outer one for the measurement_shape of the inner one."
            )
        if 1 not in (outer.batch, inner.batch) and outer.batch != inner.batch:
            raise ValueError(f"The operators are for {outer.batch} and {inner.batch} images; make them agree.")
        self.outer, self.inner, self.iterations = outer, inner, iterations
        self.image_shape, self.measurement_shape = inner.image_shape, outer.measurement_shape
        self.batch = max(outer.batch, inner.batch)
        self.precision = max(outer.precision, inner.precision, key=lambda dtype: torch.finfo(dtype).eps)

    def _forward(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.inner.adjoint(self.outer.adjoint(y))

    def frame(self, x: Tensor) -> Tensor:
        framed = self.inner.frame(x)
        # The outer frame is one of inner measurements: it is that of x too where both have the same pixels.
        same_pixels = framed.shape[-2:] == self.inner.measurement_shape[-2:]
        return self.outer.frame(framed) if same_pixels else framed

    def _select(self, index: Tensor) -> Composition:
        return Composition(self.outer.select(index), self.inner.select(index), self.iterations)


def name_of(operator: LinearOperator) -> str:
    """What messages call an operator."""
    return getattr(operator, "_name", type(operator).__name__)


def _as_variance(c: float | Tensor, v: Tensor) -> float | Tensor:
    if not isinstance(c, Tensor):
        if not c >= 0:
            raise ValueError(f"c (or 1/gamma) is a variance, >= 0; got {c}.")
        return c
    if c.ndim and c.shape not in ((1, 1, 1, 1), (len(v), 1, 1, 1)):
        raise ValueError(f"c is one number or ({len(v)}, 1, 1, 1), one per image; got {tuple(c.shape)}.")
    return c.to(v)
