"""JPEG: the coefficients that a JPEG file quantises, as a linear map of the image.

Notation: p a plane (B, 1, h, w): luma or chroma, in the units of x; s the number of pixels per chroma sample.
"""

from __future__ import annotations

import math

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from genprior.checks import Shape, as_integer, as_shape
from genprior.linalg import cg
from genprior.operators.colour import WEIGHTS
from genprior.operators.constant import Constant
from genprior.operators.linear import LinearOperator
from genprior.registry import lookup

# Pixels across and down per chroma sample
SUBSAMPLINGS = {"4:4:4": (1, 1), "4:2:2": (2, 1), "4:2:0": (2, 2), "4:4:0": (1, 2), "4:1:1": (4, 1)}
SIDE = 8  # of a block
# EXIF orientation of a stored picture: whether to swap its axes, and which to reverse then, to turn it upright
TURNS: dict[int, tuple[bool, tuple[int, ...]]] = {
    1: (False, ()),
    2: (False, (-1,)),
    3: (False, (-2, -1)),
    4: (False, (-2,)),
    5: (True, ()),
    6: (True, (-1,)),
    7: (True, (-2, -1)),
    8: (True, (-2,)),
}


class JPEG(LinearOperator):
    """The coefficients of an image before JPEG rounds them, in the units of x: an 8-bit grey level is 1 / 255.

        A = DCT  continue  average  continue  M  turn

    M converts R, G and B to Y, Cb and Cr (JFIF). Cb and Cr are averaged over the pixels of each sample. Each 8 x 8
    block then gets its orthonormal discrete cosine transform (type II). Blocks that reach past the image continue it as
    libjpeg does: the last column is repeated before averaging, the last row after it.

    y holds Y, Cb and Cr one after the other, (1, 1, N), each plane row by row, each coefficient where its block lies.
    JPEG first subtracts 128 grey levels from Y, which is not linear; A leaves that out, and `offset` holds their share
    of A x. `solve` has a closed form if the sides are multiples of 8 pixels, or of 8 chroma samples; else it iterates.

    Arguments:
        image_shape: (C, H, W) of the upright image, C = 1 or 3.
        subsampling: of chroma, "4:4:4" (none), "4:2:2", "4:2:0", "4:4:0" or "4:1:1"; no effect for C = 1.
        orientation: EXIF orientation of the stored picture, 1 to 8.
        iterations: of the conjugate gradients.

    Raises:
        ValueError: an argument is none of these.

    References:
        ITU-T T.81, 1992, for the transform. E. Hamilton, JPEG file interchange format, 1992, for the colours.
    """

    def __init__(self, image_shape: Shape, subsampling: str = "4:2:0", orientation: int = 1, iterations: int = 50):
        self.image_shape = as_shape(image_shape)
        C, H, W = self.image_shape
        if C not in (1, 3):
            raise ValueError(f"JPEG takes grey or colour images, (1, {H}, {W}) or (3, {H}, {W}); got {image_shape}.")
        self.subsampling, self.iterations = subsampling, iterations
        self.orientation = as_integer("orientation, as EXIF counts it,", orientation, 1, 8)
        across, down = lookup("subsampling", subsampling, SUBSAMPLINGS)
        self._stored = (W, H) if TURNS[self.orientation][0] else (H, W)
        self._cells = ((1, 1),) if C == 1 else ((1, 1), (down, across), (down, across))
        self.planes = tuple(_blocks(self._stored, cell) for cell in self._cells)
        self.measurement_shape = (1, 1, sum(map(math.prod, self.planes)))
        self._constants = Constant(self._make)

    def joined(self, planes: list[Tensor]) -> Tensor:
        """Join Y, Cb and Cr, each (B, h, w) as in `self.planes`, into (B, 1, 1, N)."""
        return torch.cat([plane.flatten(1) for plane in planes], dim=1)[:, None, None]

    def split(self, y: Tensor) -> list[Tensor]:
        """Split (B, 1, 1, N) into the planes Y, Cb and Cr, each (B, 1, h, w)."""
        parts = y.flatten(1).split([math.prod(size) for size in self.planes], dim=1)
        return [part.unflatten(1, (1, *size)) for part, size in zip(parts, self.planes)]

    @property
    def offset(self) -> Tensor:
        """The coefficients of 128 grey levels of Y, (1, 1, 1, N), float32: 0 except for the first of each block."""
        planes = [torch.zeros(1, *size) for size in self.planes]
        planes[0][:, ::SIDE, ::SIDE] = SIDE * 128 / 255
        return self.joined(planes)

    def decoded(self, y: Tensor) -> Tensor:
        """The unclipped image from a decoder that repeats the chroma samples."""
        _, M, _, _ = self._constants.like(y)
        H, W = self._stored
        colours = [_enlarged(p, *cell)[..., :H, :W] for p, cell in zip(self._pixels(y), self._cells)]
        return _upright(torch.einsum("ij,bjhw->bihw", M.inverse(), torch.cat(colours, dim=1)), self.orientation)

    def _forward(self, x: Tensor) -> Tensor:
        _, M, _, _ = self._constants.like(x)
        colours = torch.einsum("ij,bjhw->bihw", M, _stored(x, self.orientation)).split(1, dim=1)
        planes = [_averaged(p, cell, size) for p, cell, size in zip(colours, self._cells, self.planes)]
        return self._transformed(planes)

    def _adjoint(self, y: Tensor) -> Tensor:
        _, M, _, _ = self._constants.like(y)
        planes = self._pixels(y)
        colours = [_spread(p, cell, self._stored) for p, cell in zip(planes, self._cells)]
        return _upright(torch.einsum("ij,bihw->bjhw", M, torch.cat(colours, dim=1)), self.orientation)

    def _pinv(self, y: Tensor) -> Tensor:
        return self._adjoint(self._whole_solve(y, 0.0)) if self._is_whole else super()._pinv(y)

    def _solve(self, v: Tensor, c: float | Tensor) -> Tensor:
        return self._whole_solve(v, c) if self._is_whole else super()._solve(v, c)

    def _prox(self, z: Tensor, y: Tensor, c: float | Tensor) -> Tensor:
        if self._is_whole:
            return super()._prox(z, y, c)
        # solved for the image, not for y, which has more values than the rank of A: fewer iterations, less rounding
        r = self._adjoint(y - self._forward(z))
        return z + cg(lambda x: self._adjoint(self._forward(x)) + c * x, r, iterations=self.iterations)

    @property
    def _is_whole(self) -> bool:
        """Whether no block reaches past the image: the blocks of A are then orthogonal."""
        return all(
            size == (self._stored[0] // down, self._stored[1] // across)
            for size, (down, across) in zip(self.planes, self._cells)
        )

    def _whole_solve(self, v: Tensor, c: float | Tensor) -> Tensor:
        """(A A^T + c I)^-1 v for whole blocks.

        The transform is orthonormal, so A A^T reduces to the colours and the averages S, S S^T = I / s. A 3 x 3 matrix
        couples sqrt(s) S Y with Cb and Cr; the rest of Y has the eigenvalue |m_Y|^2.
        """
        _, _, E, e = self._constants.like(v)
        down, across = self._cells[-1]
        root = math.sqrt(down * across)
        Y, *chroma = self._pixels(v)
        means = F.avg_pool2d(Y, (down, across))
        u = torch.einsum("ij,bihw->bjhw", E, torch.cat([root * means, *chroma], dim=1))
        u = torch.einsum("ij,bjhw->bihw", E, u / (e[:-1].reshape(-1, 1, 1) + c))
        Y = (Y - _enlarged(means, down, across)) / (e[-1] + c) + _enlarged(u[:, :1], down, across) / root
        return self._transformed([Y, *u[:, 1:].split(1, dim=1)])

    def _transformed(self, planes: list[Tensor]) -> Tensor:
        D, *_ = self._constants.like(planes[0])
        return self.joined([_in_blocks(p, D) for p in planes])

    def _pixels(self, y: Tensor) -> list[Tensor]:
        D, *_ = self._constants.like(y)
        return [_in_blocks(p, D.mT) for p in self.split(y)]

    def _select(self, index: Tensor) -> JPEG:
        return self

    def _make(self) -> tuple[Tensor, ...]:
        """The transform of 8 values; M; the eigenvectors of S M M^T S; its eigenvalues and |m_Y|^2."""
        frequency, place = torch.arange(SIDE, dtype=torch.float64)[:, None], torch.arange(SIDE, dtype=torch.float64)
        D = torch.cos(math.pi / SIDE * frequency * (place + 0.5)) * math.sqrt(2 / SIDE)
        D[0] /= math.sqrt(2)
        M = torch.ones(1, 1, dtype=torch.float64) if self.image_shape[0] == 1 else _colours()
        scale = torch.tensor([1 / math.sqrt(math.prod(cell)) for cell in self._cells], dtype=torch.float64)[:, None]
        e, E = torch.linalg.eigh(scale * M @ (scale * M).mT)
        return D, M, E, torch.cat([e, M[:1].square().sum(1)])


def _colours() -> Tensor:
    """Y is the luma with weights w; Cb and Cr are B - Y and R - Y, scaled to [-1/2, 1/2]."""
    w = torch.tensor(WEIGHTS, dtype=torch.float64)
    red, _, blue = torch.eye(3, dtype=torch.float64)
    return torch.stack([w, (blue - w) / (2 - 2 * w[2]), (red - w) / (2 - 2 * w[0])])


def _blocks(size: tuple[int, int], cell: tuple[int, int]) -> tuple[int, int]:
    """The sides of a plane in whole blocks, for a picture of `size` and samples of `cell` pixels."""
    rows, columns = (SIDE * math.ceil(n / (SIDE * each)) for n, each in zip(size, cell))
    return rows, columns


def _averaged(p: Tensor, cell: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Average p (B, 1, H, W) over each sample, and continue it to whole blocks."""
    (down, across), (H, W) = cell, p.shape[-2:]
    p = F.pad(p, (0, size[1] * across - W, 0, -H % down), mode="replicate")
    p = F.avg_pool2d(p, cell)
    return F.pad(p, (0, 0, 0, size[0] - p.shape[-2]), mode="replicate")


def _spread(p: Tensor, cell: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The adjoint of `_averaged`, for a picture of `size`."""
    (down, across), (H, W) = cell, size
    p = _folded(p, math.ceil(H / down), p.shape[-1])
    return _folded(_enlarged(p, down, across) / (down * across), H, W)


def _folded(p: Tensor, H: int, W: int) -> Tensor:
    """The adjoint of repeating the last row and column: the repetitions are added to them."""
    p = torch.cat([p[..., : H - 1, :], p[..., H - 1 :, :].sum(-2, keepdim=True)], dim=-2)
    return torch.cat([p[..., : W - 1], p[..., W - 1 :].sum(-1, keepdim=True)], dim=-1)


def _enlarged(p: Tensor, down: int, across: int) -> Tensor:
    return p.repeat_interleave(down, dim=-2).repeat_interleave(across, dim=-1)


def _in_blocks(p: Tensor, D: Tensor) -> Tensor:
    """D b D^T for each block b of a plane."""
    blocks = rearrange(p, "b c (h i) (w j) -> b c h w i j", i=SIDE, j=SIDE)
    return rearrange(D @ blocks @ D.mT, "b c h w i j -> b c (h i) (w j)")


def _stored(x: Tensor, orientation: int) -> Tensor:
    swapped, turned = TURNS[orientation]
    x = x.flip(turned) if turned else x
    return x.mT if swapped else x


def _upright(x: Tensor, orientation: int) -> Tensor:
    swapped, turned = TURNS[orientation]
    x = x.mT if swapped else x
    return x.flip(turned) if turned else x
