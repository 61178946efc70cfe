"""Operators that act along columns, then along rows, with closed forms from two small matrices.

Notation: R_h (h, H) and R_w (w, W) the 1-D maps along the columns and rows of x; R = U diag(s) V^T.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from genprior.checks import Shape
from genprior.linalg import reciprocal, rounding
from genprior.operators.constant import Constant
from genprior.operators.linear import SVD, LinearOperator

Maps = Callable[[], tuple[Tensor, ...]]


class Separable(LinearOperator):
    """A x = R_h x R_w^T for each channel, the Kronecker product of R_h and R_w.

    Eigenvalues of A A^T + c I up to (8 eps |A|)^2, with the eps of the dtype of y, count as zero, and their directions
    are left out. So do those within the rounding of the eigendecomposition in float64, eps |A|^2 times the longer side
    of y.

    Arguments:
        maps: creates R_h and R_w on first use, (h, H) and (w, W), or (B, 1, h, H) and (B, 1, w, W) for one pair per
            image; float64. See `Constant` for what can be pickled.
        image_shape: (C, H, W).
        measurement_shape: (C, h, w), h <= H and w <= W.
        batch: 1 or B.
    """

    def __init__(self, maps: Maps, image_shape: Shape, measurement_shape: Shape, batch: int = 1):
        self.image_shape, self.measurement_shape, self.batch = image_shape, measurement_shape, batch
        self._maps = Constant(maps)
        self._factors = Constant(self._decompose)
        self._bases = Constant(self._diagonalize)

    def _forward(self, x: Tensor) -> Tensor:
        R_h, R_w = self._maps.like(x)
        return R_h @ x @ R_w.mT

    def _adjoint(self, y: Tensor) -> Tensor:
        R_h, R_w = self._maps.like(y)
        return R_h.mT @ y @ R_w

    def _pinv(self, y: Tensor) -> Tensor:
        return self.wiener(y, 0.0)

    def _solve(self, v: Tensor, c: float | Tensor) -> Tensor:
        eigenvalues, most, U_h, U_w, _, _ = self._bases.like(v)
        return U_h @ (U_h.mT @ v @ U_w * reciprocal(eigenvalues + c, self._least(most))) @ U_w.mT

    def _prox(self, z: Tensor, y: Tensor, c: float | Tensor) -> Tensor:
        return z + self.wiener(y - self._forward(z), c)

    def wiener(self, v: Tensor, c: float | Tensor) -> Tensor:
        """A^T (A A^T + c I)^-1 v, with A^T U as one factor: U alone would round values divided by a small c."""
        eigenvalues, most, U_h, U_w, B_h, B_w = self._bases.like(v)
        return B_h @ (U_h.mT @ v @ U_w * reciprocal(eigenvalues + c, self._least(most))) @ B_w.mT

    def _least(self, most: Tensor) -> Tensor:
        """The threshold up to which eigenvalues of A A^T count as zero; `most` is the largest, in the dtype in use."""
        decomposed = torch.finfo(torch.float64).eps * max(self.measurement_shape[1:])
        return max(rounding(most.dtype) ** 2, decomposed) * most

    def svd(self) -> SVD:
        """The SVD, a Kronecker product of those of the factors; V is square, s is 0 beyond the first (h, w)."""
        _, H, W = self.image_shape
        _, h, w = self.measurement_shape

        def widen(s):
            return F.pad(s, (0, W - w, 0, H - h))

        def V(s):
            _, _, Vt_h, _, _, Vt_w = self._factors.like(s)
            return Vt_h.mT @ s @ Vt_w

        def Vt(x):
            _, _, Vt_h, _, _, Vt_w = self._factors.like(x)
            return Vt_h @ x @ Vt_w.mT

        def U(s):
            U_h, _, _, U_w, _, _ = self._factors.like(s)
            return U_h @ s[..., :h, :w] @ U_w.mT

        def Ut(y):
            U_h, _, _, U_w, _, _ = self._factors.like(y)
            return widen(U_h.mT @ y @ U_w)

        _, s_h, _, _, s_w, _ = self._factors.value
        s = widen(_outer(s_h, s_w)).reshape(self.batch, 1, H, W)
        least = rounding(s.dtype) * s.amax(dim=(-2, -1), keepdim=True)
        return SVD(torch.where(s > least, s, 0), V, Vt, U, Ut)

    def _select(self, index: Tensor) -> Separable:
        return Separable(partial(_selected, self._maps, index), self.image_shape, self.measurement_shape, len(index))

    def _decompose(self) -> tuple[Tensor, ...]:
        return tuple(factor for R in self._maps.value for factor in torch.linalg.svd(R, full_matrices=True))

    def _diagonalize(self) -> tuple[Tensor, ...]:
        """The eigenvalues of A A^T and the largest; U_h and U_w; R_h^T U_h and R_w^T U_w."""
        # matrices of (h, h) and (w, w): for large images less work than the SVD
        R_h, R_w = self._maps.value
        (e_h, U_h), (e_w, U_w) = (torch.linalg.eigh(R @ R.mT) for R in (R_h, R_w))
        eigenvalues = _outer(e_h, e_w)
        return eigenvalues, eigenvalues.amax(dim=(-2, -1), keepdim=True), U_h, U_w, R_h.mT @ U_h, R_w.mT @ U_w


def _selected(maps: Constant, index: Tensor) -> tuple[Tensor, ...]:
    return tuple(R[index.to(R.device)] for R in maps.value)


def _outer(a: Tensor, b: Tensor) -> Tensor:
    return a[..., :, None] * b[..., None, :]
