"""Super-resolution: y is x made smaller by a whole factor, with antialiasing.

Notation: R_h (h, H) and R_w (w, W) the 1-D maps along the columns and rows of x; R = U diag(s) V^T.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from genprior.operators.base import SVD, Constant, LinearOperator, Shape, as_integer, as_shape
from genprior.registry import lookup


class SuperResolution(LinearOperator):
    """A x = R_h x R_w^T, the antialiased reduction of x by `scale`; everything in closed form from two small SVDs.

    Antialiasing, each the same along both axes and centred on the blocks of scale x scale pixels:
    "bicubic": `torch.nn.functional.interpolate(mode="bicubic", antialias=True)`, as Pillow and MATLAB reduce.
    "gaussian": Kornia's Gaussian kernel, scale / 2 wide, 3 widths each side, reflected at the border, a value a block.
    That width keeps exp(-pi^2 / 8) = 0.29 of the highest frequency that y can hold: less blurs, more aliases.
    "average": the mean of each block.

    Arguments:
        scale: whole, >= 1.
        image_shape: (C, H, W) of x, the larger one.
        antialias: "bicubic", "gaussian" or "average".

    Raises:
        ValueError: scale is not whole, or does not divide H and W, or the antialiasing is unknown.
    """

    def __init__(self, scale: int, image_shape: Shape, antialias: str = "bicubic"):
        self.scale = scale = as_integer("scale", scale, 1, math.inf)
        self.image_shape = as_shape(image_shape)
        self.antialias = antialias
        reduction = lookup("antialias", antialias, REDUCTIONS)
        C, H, W = self.image_shape
        h, w = H // scale, W // scale
        if (h * scale, w * scale) != (H, W):
            nearest = f"crop it to {h * scale} x {w * scale}" if h and w else f"take one of at least {scale} x {scale}"
            raise ValueError(f"Scale {scale} does not divide an image of {H} x {W}; {nearest}.")
        if antialias == "gaussian" and scale > 1 and min(h, w) < 2:
            raise ValueError(f"antialias='gaussian' needs at least {2 * scale} x {2 * scale} pixels; got {H} x {W}.")
        self.measurement_shape = (C, h, w)
        self._maps = Constant(lambda: (reduction(H, scale), reduction(W, scale)))
        self._factors = Constant(lambda: tuple(f for R in self._maps.value for f in _decompose(R)))
        self._bases = Constant(lambda: tuple(f for R in self._maps.value for f in torch.linalg.eigh(R @ R.mT)))
        self._inverses = Constant(lambda: tuple(map(_right_inverse, self._maps.value)))

    @classmethod
    def for_measurement(cls, scale: int, measurement_shape: Shape, antialias: str = "bicubic") -> SuperResolution:
        """The super-resolution whose measurements have that (C, h, w); arguments as for the class."""
        C, h, w = as_shape(measurement_shape)
        scale = as_integer("scale", scale, 1, math.inf)
        return cls(scale, (C, h * scale, w * scale), antialias)

    def _forward(self, x: Tensor) -> Tensor:
        R_h, R_w = self._maps.like(x)
        return R_h @ x @ R_w.mT

    def _adjoint(self, y: Tensor) -> Tensor:
        R_h, R_w = self._maps.like(y)
        return R_h.mT @ y @ R_w

    def _pinv(self, y: Tensor) -> Tensor:
        P_h, P_w = self._inverses.like(y)
        return P_h @ y @ P_w.mT

    def _solve(self, v: Tensor, c: float | Tensor) -> Tensor:
        # of (h, h) and (w, w): for large images less work than the SVD
        eigenvalues_h, U_h, eigenvalues_w, U_w = self._bases.like(v)
        return U_h @ (U_h.mT @ v @ U_w / (torch.outer(eigenvalues_h, eigenvalues_w) + c)) @ U_w.mT

    def svd(self) -> SVD:
        """The SVD of a Kronecker product is that of its factors; V is square, s is 0 beyond the first (h, w)."""
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
        return SVD(widen(torch.outer(s_h, s_w))[None, None], V, Vt, U, Ut)

    def _select(self, index: Tensor) -> SuperResolution:
        return self


def _bicubic(n: int, scale: int) -> Tensor:
    # one n x n image: of n images of n x 1, whose memory format is ambiguous, interpolate makes something else
    unit = torch.eye(n, dtype=torch.float64)[None, None]
    return F.interpolate(unit, size=(n // scale, n), mode="bicubic", antialias=True)[0, 0]


def _gaussian(n: int, scale: int) -> Tensor:
    if scale == 1:
        return torch.eye(n, dtype=torch.float64)
    from kornia.filters import get_gaussian_kernel1d

    # 3 widths each side of the centre of a block; as even as the scale is, so that the kernel is centred there
    size = 3 * scale
    kernel = get_gaussian_kernel1d(size, scale / 2, force_even=size % 2 == 0, dtype=torch.float64)
    padded = F.pad(_columns(n), (0, 0, scale, scale), mode="reflect")
    return F.conv2d(padded, kernel.reshape(1, 1, size, 1), stride=(scale, 1)).reshape(n, -1).T.contiguous()


def _average(n: int, scale: int) -> Tensor:
    return F.avg_pool2d(_columns(n), (scale, 1)).reshape(n, -1).T.contiguous()


REDUCTIONS: dict[str, Callable[[int, int], Tensor]] = {"bicubic": _bicubic, "gaussian": _gaussian, "average": _average}


def _columns(n: int) -> Tensor:
    """The n unit vectors as n images of n x 1."""
    return torch.eye(n, dtype=torch.float64).reshape(n, 1, n, 1)


def _right_inverse(R: Tensor) -> Tensor:
    """R^+ = R^T (R R^T)^-1: the rows of R are independent."""
    return torch.linalg.solve(R @ R.mT, R).mT


def _decompose(R: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(torch.linalg.svd(R, full_matrices=True))
