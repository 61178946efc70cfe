"""Denoising: the whole image was measured."""

from __future__ import annotations

import torch
from torch import Tensor

from genprior.checks import Shape, as_shape
from genprior.operators.linear import SVD, LinearOperator


class Denoise(LinearOperator):
    """A x = x.

    Arguments:
        image_shape: (C, H, W).
    """

    def __init__(self, image_shape: Shape):
        self.image_shape = self.measurement_shape = as_shape(image_shape)

    def decoded(self, y: Tensor) -> Tensor:
        return y

    def _forward(self, x: Tensor) -> Tensor:
        return x

    def _adjoint(self, y: Tensor) -> Tensor:
        return y

    def _pinv(self, y: Tensor) -> Tensor:
        return y

    def _solve(self, v: Tensor, c: float | Tensor) -> Tensor:
        return v / (1 + c)

    def svd(self) -> SVD:
        """V = U = I, s = 1."""
        ones = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        return SVD(ones, self._forward, self._adjoint, self._forward, self._adjoint)

    def _select(self, index: Tensor) -> Denoise:
        return self
