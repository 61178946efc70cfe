"""What a linear operator is, and what is measured with it.

Notation: x an image (B, C, H, W); y = A x + noise a measurement (B, C', H', W'); A^T the adjoint; A^+ the
pseudo-inverse; c >= 0 a variance, a float or (B, 1, 1, 1); noise a standard deviation in the units of x.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genprior.ambient import own, settle_methods, settled
from genprior.checks import Shape, UnsupportedError, as_shape, as_tensor
from genprior.linalg import cg, cgls, divide


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


@dataclass(frozen=True, eq=False)
class Measurement:
    """What was measured: y = A x + noise n, n ~ N(0, I).

    It keeps copies of y and of the noise, and can be pickled.

    Attributes:
        y: (B, *operator.measurement_shape), finite, any range.
        operator: A.
        noise: standard deviation >= 0 in the units of x, float or (B, 1, 1, 1).

    Raises:
        ValueError: y does not fit the operator or is not finite, or the noise is not a standard deviation.
    """

    y: Tensor
    operator: LinearOperator
    noise: float | Tensor

    def __post_init__(self):
        self.operator._check("a measurement", self.y, self.operator.measurement_shape)
        if not torch.isfinite(self.y).all():
            raise ValueError(
                f"y has {(~torch.isfinite(self.y)).sum()} values that are NaN or infinite. If they mark holes, put 0 "
                "there and say so to the operator, Inpaint(mask, ...); otherwise repair them."
            )
        object.__setattr__(self, "y", own(self.y))
        object.__setattr__(self, "noise", _own_noise(self.noise, len(self.y)))

    def with_noise(self, noise: float | Tensor) -> Measurement:
        """The same y, not copied, with another noise."""
        return _sharing(self.y, self.operator, _own_noise(noise, len(self.y)))

    @property
    def seen(self) -> Tensor:
        """1 for values of y that depend on x, 0 for others, such as those under the holes of a mask; shaped like y.

        Of A A^T n, with n normal, the rows of A that are 0 give 0, exactly, and almost surely no others do.
        """
        n = torch.randn(self.y.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32, device="cpu")
        return (self.operator(self.operator.adjoint(n.to(self.y))) != 0).to(self.y)

    def select(self, index: Tensor) -> Measurement:
        """The measurement of the images of that `index` (1-D, long), which may repeat images."""
        per_image = isinstance(self.noise, Tensor) and self.noise.ndim and len(self.noise) > 1
        noise = self.noise[index.to(self.noise.device)] if per_image else self.noise
        return _sharing(self.y[index.to(self.y.device)], self.operator.select(index), noise)

    def to(self, like: Tensor) -> Measurement:
        """The measurement with y in the dtype and on the device of a tensor."""
        noise = self.noise.to(like.device) if isinstance(self.noise, Tensor) else self.noise
        return _sharing(self.y.to(like), self.operator, noise)


def _sharing(y: Tensor, operator: LinearOperator, noise: float | Tensor) -> Measurement:
    """The measurement of a y that is the library's own and was checked, which is not copied again."""
    measurement = object.__new__(Measurement)
    for name, value in (("y", y), ("operator", operator), ("noise", noise)):
        object.__setattr__(measurement, name, value)
    return measurement


@settled
def _own_noise(given: float | Tensor, images: int) -> float | Tensor:
    noise = torch.as_tensor(given)
    if noise.ndim and noise.shape not in ((1, 1, 1, 1), (images, 1, 1, 1)):
        raise ValueError(f"noise is one number or ({images}, 1, 1, 1); got the shape {tuple(noise.shape)}.")
    if not (torch.isfinite(noise) & (noise >= 0)).all():
        raise ValueError(f"noise is a standard deviation, finite and >= 0; got {given}.")
    return own(noise) if isinstance(given, Tensor | np.ndarray) else given


class Matrix(LinearOperator):
    """A given as a matrix: y = M vec(x), for small dense problems; everything in closed form by one cached SVD.

    Arguments:
        M: (m, D), or (B, m, D) for one matrix per image; D = C H W, x flattened in that order; y is (B, m, 1, 1).
        image_shape: (C, H, W).

    Raises:
        ValueError: M is not finite or does not have D columns.
    """

    def __init__(self, M: Tensor | np.ndarray, image_shape: Shape):
        self.image_shape = as_shape(image_shape)
        M = as_tensor("M", M)
        D = math.prod(self.image_shape)
        if M.ndim not in (2, 3) or M.shape[-1] != D or not M.numel():
            raise ValueError(
                f"M must be (m, {D}) or (B, m, {D}) for images of shape {self.image_shape}; got {tuple(M.shape)}."
            )
        if not M.is_floating_point():
            raise ValueError(f"M must hold real floats; got {M.dtype}.")
        if not torch.isfinite(M).all():
            raise ValueError("M must be finite; it holds NaN or infinite values.")
        self.M = M if M.ndim == 3 else M[None]
        self.batch, m = self.M.shape[:2]
        self.measurement_shape = (m, 1, 1)
        self._M = Constant(self._matrix)
        self._factors = Constant(self._decompose)

    def _matrix(self) -> tuple[Tensor]:
        return (self.M,)

    def _decompose(self) -> tuple[Tensor, Tensor, Tensor]:
        U, s, Vt = torch.linalg.svd(self.M.double(), full_matrices=True)
        rounding = torch.finfo(s.dtype).eps * max(self.M.shape[-2:]) * s.amax(dim=-1, keepdim=True)
        return U, torch.where(s > rounding, s, 0), Vt

    def _forward(self, x: Tensor) -> Tensor:
        (M,) = self._M.like(x)
        return _matvec(M, x, self.measurement_shape)

    def _adjoint(self, y: Tensor) -> Tensor:
        (M,) = self._M.like(y)
        return _matvec(M.mT, y, self.image_shape)

    def _pinv(self, y: Tensor) -> Tensor:
        svd = self.svd()
        return svd.V(divide(svd.Ut(y), svd.singular_values.to(y)))

    def _solve(self, v: Tensor, c: float | Tensor) -> Tensor:
        U, s, _ = self._factors.like(v)
        eigenvalues = _fit(s, self.measurement_shape) ** 2 + c
        return _matvec(U, divide(_matvec(U.mT, v, self.measurement_shape), eigenvalues), self.measurement_shape)

    def svd(self) -> SVD:
        def V(s):
            return _matvec(self._factors.like(s)[2].mT, s, self.image_shape)

        def Vt(x):
            return _matvec(self._factors.like(x)[2], x, self.image_shape)

        def U(s):
            return _matvec(self._factors.like(s)[0], _fit(s.flatten(1), self.measurement_shape), self.measurement_shape)

        def Ut(y):
            return _fit(_matvec(self._factors.like(y)[0].mT, y, self.measurement_shape).flatten(1), self.image_shape)

        return SVD(_fit(self._factors.value[1], self.image_shape), V, Vt, U, Ut)

    def _select(self, index: Tensor) -> Matrix:
        return Matrix(self.M[index.to(self.M.device)], self.image_shape)


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


class Constant:
    """Tensors made when first needed and kept in every dtype and on every device they were asked in.

    Arguments:
        make: () -> tuple of tensors; floats and complex numbers follow the precision of x, the rest keeps its dtype. A
            method, or a partial of a function of a module: it is what of the constant is pickled.
    """

    def __init__(self, make: Callable[[], tuple[Tensor, ...]]):
        self._make = make
        self._casts: dict[object, tuple[Tensor, ...]] = {}

    def __getstate__(self) -> dict[str, object]:
        return {"_make": self._make, "_casts": {}}

    @property
    def value(self) -> tuple[Tensor, ...]:
        """The tensors as made."""
        return self._get(None, self._make)

    def like(self, x: Tensor) -> tuple[Tensor, ...]:
        """The tensors in the dtype and on the device of x."""

        def cast(a: Tensor) -> Tensor:
            dtype = x.dtype.to_complex() if a.is_complex() else x.dtype if a.is_floating_point() else a.dtype
            return a.to(device=x.device, dtype=dtype)

        return self._get((x.dtype, x.device), lambda: tuple(cast(a) for a in self.value))

    def _get(self, key: object, make: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        if key not in self._casts:
            # a tensor made under inference_mode could never again take part in a gradient
            with torch.inference_mode(False), torch.no_grad():
                self._casts[key] = make()
        return self._casts[key]


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


def _matvec(M: Tensor, x: Tensor, shape: Shape) -> Tensor:
    """M vec(x) for each image, (B, ...) -> (B, *shape)."""
    return (M @ x.reshape(len(x), -1, 1)).reshape(len(x), *shape)


def _fit(s: Tensor, shape: Shape) -> Tensor:
    """Coefficients (B, k) cut or padded with zeros to (B, *shape)."""
    n = math.prod(shape)
    s = s[:, :n]
    return torch.nn.functional.pad(s, (0, n - s.shape[1])).reshape(len(s), *shape)
