"""An operator given as a matrix, for small problems."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from genprior.checks import Shape, as_shape, as_tensor
from genprior.linalg import divide
from genprior.operators.constant import Constant
from genprior.operators.linear import SVD, LinearOperator


class Matrix(LinearOperator):
    """A given as a matrix: y = M vec(x), for small dense problems; closed forms from one cached SVD.

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


def _matvec(M: Tensor, x: Tensor, shape: Shape) -> Tensor:
    """M vec(x) for each image, (B, ...) -> (B, *shape)."""
    return (M @ x.reshape(len(x), -1, 1)).reshape(len(x), *shape)


def _fit(s: Tensor, shape: Shape) -> Tensor:
    """Cut or zero-pad coefficients (B, k) to (B, *shape)."""
    n = math.prod(shape)
    s = s[:, :n]
    return torch.nn.functional.pad(s, (0, n - s.shape[1])).reshape(len(s), *shape)
