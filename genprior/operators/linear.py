"""The interface of linear operators, and their compositions.

Notation: x an image (B, C, H, W); y = A x a measurement (B, C', H', W'); A^T the adjoint; A^+ the pseudo-inverse;
c >= 0 a variance, a float or (B, 1, 1, 1).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import overload

from torch import Tensor

from genprior.ambient import settled
from genprior.checks import UnsupportedError
from genprior.linalg import cg, cgls
from genprior.operators.base import Composed, Operator


class LinearOperator(Operator):
    """A linear map A from images to measurements; immutable; works in the dtype and on the device of its input.

    Attributes:
        iterations: of the conjugate gradients used where no closed form exists.
        coarser: for operators that go to a coarser grid and treat all channels alike, the shift of x, in pixels, that
            shifts A x by one, away from borders; None for all others.
    """

    iterations: int = 100
    coarser: int | None = None

    def vjp(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """A x and the adjoint, which is the same for every x."""
        return self(x), self.adjoint

    def jvp(self, x: Tensor, u: Tensor) -> Tensor:
        """A u, the same for every x."""
        return self(u)

    @settled
    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y, (B, *measurement_shape) -> (B, *image_shape)."""
        self._check("a measurement", y, self.measurement_shape)
        return self._adjoint(y)

    @settled
    def pinv(self, y: Tensor) -> Tensor:
        """A^+ y: the minimum-norm minimiser of |A x - y|."""
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
            gamma: > 0, float or (B, 1, 1, 1); may be arbitrarily large.
        """
        self._check("an image", z, self.image_shape)
        self._check("a measurement", y, self.measurement_shape)
        return self._prox(z, y, _as_variance(1 / gamma, y))

    def completion(self) -> Completion | None:
        """A as part of a simpler operator, as a "valid" blur is part of a periodic one; None if there is none."""
        return None

    def svd(self) -> SVD:
        """A = U diag(s) V^T with real orthonormal transforms.

        Raises:
            UnsupportedError: the operator has no singular value decomposition in closed form.
        """
        raise UnsupportedError(
            f"{type(self).__name__} has no SVD in closed form here; Inpaint, SuperResolution, Colorize, Denoise and "
            "Matrix have one, and Blur if it is circular or its kernel is separable, such as a Gaussian. Samplers that "
            "need only `solve` or `prox` take any operator."
        )

    def select(self, index: Tensor) -> LinearOperator:
        """The operator for the images at `index` (1-D, long); only per-image state is indexed."""
        return self if self.batch == 1 else self._select(index)

    @overload
    def __matmul__(self, inner: LinearOperator) -> Composition: ...

    @overload
    def __matmul__(self, inner: Operator) -> Operator: ...

    def __matmul__(self, inner: Operator) -> Operator:
        """(A2 @ A1)(x) = A2(A1(x)); linear if both are."""
        return Composition(self, inner) if isinstance(inner, LinearOperator) else super().__matmul__(inner)

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


@dataclass(frozen=True, eq=False)
class SVD:
    """A = U diag(s) V^T in a spectral space with the shape of the image, (C, H, W).

    A x = U(s * Vt(x)). V is square and orthonormal: a singular value of 0 marks a direction that A does not see. U and
    Ut are orthonormal too, and Ut(y) = 0 in unmeasured directions, so white noise stays white.

    Attributes:
        singular_values: s >= 0, broadcasts to (B, C, H, W); float64, on the device of the operator's own state: call
            `singular_values.to(x)` once, before a loop.
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
class Completion:
    """A x is part of B x: had all of B x been measured, y would be B x with noise.

    Attributes:
        whole: B, whose measurements have the shape of images.
        missing: where B x was not measured, bool, broadcasts to (B, C, H, W).
        embed: y -> the values of B x that y holds, 0 where they are missing; (B, *measurement_shape) -> (B, C, H, W).
    """

    whole: LinearOperator
    missing: Tensor
    embed: Callable[[Tensor], Tensor]


class Composition(Composed, LinearOperator):
    """A = A2 A1 for linear operators; created by `A2 @ A1`.

    Arguments:
        outer, inner: see `Composed`.
        iterations: of the conjugate gradients in `pinv` and `solve`.

    Raises:
        ValueError: the shapes do not fit.
    """

    outer: LinearOperator
    inner: LinearOperator

    def __init__(self, outer: LinearOperator, inner: LinearOperator, iterations: int = 100):
        super().__init__(outer, inner)
        self.iterations = iterations

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.inner.adjoint(self.outer.adjoint(y))

    def _select(self, index: Tensor) -> Composition:
        return Composition(self.outer.select(index), self.inner.select(index), self.iterations)


def _as_variance(c: float | Tensor, v: Tensor) -> float | Tensor:
    if not isinstance(c, Tensor):
        if not c >= 0:
            raise ValueError(f"c (or 1/gamma) is a variance, >= 0; got {c}.")
        return c
    if c.ndim and c.shape not in ((1, 1, 1, 1), (len(v), 1, 1, 1)):
        raise ValueError(f"c is one number or ({len(v)}, 1, 1, 1), one per image; got {tuple(c.shape)}.")
    return c.to(v)
