"""Colorization: only a grey image was measured."""

from __future__ import annotations

import torch
from torch import Tensor

from genprior.checks import Shape, as_shape
from genprior.operators.constant import Constant
from genprior.operators.linear import SVD, LinearOperator

# Rec. 601 luma, as in kornia.color.rgb_to_grayscale
WEIGHTS = (0.299, 0.587, 0.114)


class Colorize(LinearOperator):
    """y = 0.299 r + 0.587 g + 0.114 b = <w, x> at each pixel, (3, H, W) -> (1, H, W); A A^T = |w|^2 I.

    Arguments:
        image_shape: (3, H, W).

    Raises:
        ValueError: the image does not have 3 channels.
    """

    def __init__(self, image_shape: Shape):
        self.image_shape = as_shape(image_shape)
        C, H, W = self.image_shape
        if C != 3:
            raise ValueError(f"Colorize takes colour images (3, {H}, {W}); got {self.image_shape}.")
        self.measurement_shape = (1, H, W)
        self._w = Constant(_weights)
        self._rotation = Constant(_rotation)

    @classmethod
    def for_measurement(cls, measurement_shape: Shape) -> Colorize:
        """The colorization of grey images (1, H, W)."""
        C, H, W = as_shape(measurement_shape)
        if C != 1:
            raise ValueError(f"Colorize measures one grey channel (1, {H}, {W}); got {tuple(measurement_shape)}.")
        return cls((3, H, W))

    def _forward(self, x: Tensor) -> Tensor:
        return (self._w.like(x)[0] * x).sum(dim=1, keepdim=True)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._w.like(y)[0] * y

    def _pinv(self, y: Tensor) -> Tensor:
        (w,) = self._w.like(y)
        return w * y / (w * w).sum()

    def _solve(self, v: Tensor, c: float | Tensor) -> Tensor:
        (w,) = self._w.like(v)
        return v / ((w * w).sum() + c)

    def svd(self) -> SVD:
        """V reflects the first channel onto w / |w|, s = (|w|, 0, 0), and U keeps the first channel."""

        def V(s):
            return torch.einsum("ij,bjhw->bihw", self._rotation.like(s)[0], s)

        def U(s):
            return s[:, :1]

        def Ut(y):
            return torch.cat([y, torch.zeros_like(y), torch.zeros_like(y)], dim=1)

        (w,) = self._w.value
        s = torch.zeros(1, 3, 1, 1, dtype=torch.float64)
        s[:, 0] = w.square().sum().sqrt()
        # a reflection is its own inverse
        return SVD(s, V, V, U, Ut)

    def _select(self, index: Tensor) -> Colorize:
        return self


def _weights() -> tuple[Tensor]:
    return (torch.tensor(WEIGHTS, dtype=torch.float64).reshape(3, 1, 1),)


def _rotation() -> tuple[Tensor]:
    return (_reflection(torch.tensor(WEIGHTS, dtype=torch.float64)),)


def _reflection(w: Tensor) -> Tensor:
    """Householder's I - 2 u u^T / |u|^2 with u = e_1 - w / |w|: orthonormal, symmetric, first column w / |w|."""
    e = torch.zeros_like(w)
    e[0] = 1
    u = e - w / w.norm()
    return torch.eye(len(w), dtype=w.dtype) - 2 * torch.outer(u, u) / (u @ u)
