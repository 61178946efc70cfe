"""Inpainting, where some pixels were never measured, and seeded masks to simulate it.

Notation: holes are the pixels to fill (mask = white / True / 1), keep = 1 - holes.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from genprior.ambient import settled
from genprior.checks import Shape, as_integer, as_number, as_shape, as_tensor
from genprior.linalg import divide
from genprior.operators.constant import Constant
from genprior.operators.denoise import Denoise
from genprior.operators.linear import SVD, Completion, LinearOperator


class Inpaint(LinearOperator):
    """A x = keep * x; y has the size of x, and its values in the holes mean nothing.

    Without holes A is the identity; with nothing but holes it is the zero operator: A^+ y = 0, solve(v, c) = v / c.

    Arguments:
        mask: True / 1 / white = hole to fill; (H, W), (1, H, W), (C, H, W) or (B, 1 or C, H, W); bool, floats in [0, 1]
            (a hole above 0.5) or integers (0 and 1, or 0 to 255: a hole above 127). Tensor or numpy array.
        image_shape: (C, H, W).

    Raises:
        ValueError: the mask's shape or values are none of these.
    """

    def __init__(self, mask: Tensor | np.ndarray, image_shape: Shape):
        self.image_shape = self.measurement_shape = as_shape(image_shape)
        self.mask = _as_mask(mask, self.image_shape)
        self.batch = len(self.mask)
        self._masks = Constant(self._hole_and_keep)

    def _hole_and_keep(self) -> tuple[Tensor, Tensor]:
        return self.mask, (~self.mask).double()

    def _forward(self, x: Tensor) -> Tensor:
        # where, not a product: 0 * NaN is NaN, and a hole may hold anything
        hole, _ = self._masks.like(x)
        return torch.where(hole, 0, x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._forward(y)

    def _pinv(self, y: Tensor) -> Tensor:
        return self._forward(y)

    def _solve(self, v: Tensor, c: float | Tensor) -> Tensor:
        _, keep = self._masks.like(v)
        return divide(v, keep + c)

    def _prox(self, z: Tensor, y: Tensor, c: float | Tensor) -> Tensor:
        hole, _ = self._masks.like(z)
        return torch.where(hole, z, z + (y - z) / (1 + c))

    def completion(self) -> Completion:
        return Completion(Denoise(self.image_shape), self.mask, _identity)

    def svd(self) -> SVD:
        """V is the identity, s = keep, and U the identity on the pixels kept."""
        _, keep = self._masks.value
        return SVD(keep, _identity, _identity, self._forward, self._forward)

    def _select(self, index: Tensor) -> Inpaint:
        return Inpaint(self.mask[index.to(self.mask.device)], self.image_shape)


@settled
def random_mask(shape: tuple[int, ...], fraction: float, seed: int = 0) -> Tensor:
    """Random pixels as holes, exactly round(fraction H W) of them, (1, H, W) bool.

    Arguments:
        shape: (..., H, W).
        fraction: share of the pixels that are holes, 0 to 1.
        seed: of the places.
    """
    H, W = shape[-2:]
    fraction = as_number("fraction, the part of the pixels that are holes,", fraction, 0, 1)
    order = torch.randperm(H * W, generator=_generator(seed))
    return (order < round(fraction * H * W)).reshape(1, H, W)


@settled
def box_mask(shape: tuple[int, ...], size: int | tuple[int, int], seed: int = 0) -> Tensor:
    """One rectangular hole at a uniformly random place, (1, H, W) bool.

    Arguments:
        shape: (..., H, W).
        size: side in pixels, or (height, width).
        seed: of the place.
    """
    # kornia.augmentation.RandomErasing draws boxes too, but from the global random state
    H, W = shape[-2:]
    h, w = size if isinstance(size, tuple | list) and len(size) == 2 else (size, size)
    h = as_integer("size, a side or (height, width) in pixels,", h, 1, H)
    w = as_integer("size, a side or (height, width) in pixels,", w, 1, W)
    generator = _generator(seed)
    top = int(torch.randint(H - h + 1, (), generator=generator))
    left = int(torch.randint(W - w + 1, (), generator=generator))
    mask = torch.zeros(1, H, W, dtype=torch.bool)
    mask[:, top : top + h, left : left + w] = True
    return mask


@settled
def stroke_mask(shape: tuple[int, ...], fraction: float, seed: int = 0) -> Tensor:
    """Brush strokes, thick lines with bends, drawn until they cover the fraction, (1, H, W) bool.

    Arguments:
        shape: (..., H, W).
        fraction: share of the pixels that are holes, 0 to 0.9; exceeded by less than one segment.
        seed: of the strokes.
    """
    H, W = shape[-2:]
    fraction = as_number("fraction, the part of the pixels that strokes cover,", fraction, 0, 0.9)
    rng = np.random.default_rng(as_integer("seed", seed, 0, 2**63 - 1))
    image = Image.new("1", (W, H))
    draw = ImageDraw.Draw(image)
    side = max(H, W)
    while (mask := np.asarray(image)).mean() < fraction:
        brush = side * rng.uniform(0.02, 0.06)
        turn = rng.uniform(0, 2 * math.pi)
        x, y = rng.uniform(0, W), rng.uniform(0, H)
        for _ in range(rng.integers(2, 7)):
            turn += rng.normal(0, 0.7)
            step = side * rng.uniform(0.05, 0.2)
            x_end, y_end = x + step * math.cos(turn), y + step * math.sin(turn)
            draw.line((x, y, x_end, y_end), fill=1, width=max(1, round(brush)))
            draw.ellipse((x_end - brush / 2, y_end - brush / 2, x_end + brush / 2, y_end + brush / 2), fill=1)
            x, y = x_end, y_end
            if np.asarray(image).mean() >= fraction:
                break
    return torch.from_numpy(mask.copy())[None]


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(as_integer("seed", seed, 0, 2**63 - 1))


def _identity(x: Tensor) -> Tensor:
    return x


def _as_mask(mask: Tensor | np.ndarray, image_shape: Shape) -> Tensor:
    """Check a mask and return it as bool, (B or 1, 1 or C, H, W)."""
    mask = as_tensor("A mask, True where there is a hole,", mask)
    C, H, W = image_shape
    shape = tuple(mask.shape)
    mask = mask.reshape((1,) * (4 - mask.ndim) + shape) if mask.ndim in (2, 3) else mask
    if mask.ndim != 4 or mask.shape[1] not in (1, C) or tuple(mask.shape[2:]) != (H, W) or not len(mask):
        raise ValueError(
            f"A mask for images of shape {image_shape} is ({H}, {W}), (1, {H}, {W}), {image_shape} or "
            f"(B, 1, {H}, {W}); got {shape}."
        )
    if mask.dtype == torch.bool:
        return mask
    if mask.is_complex() or not torch.isfinite(mask).all():
        raise ValueError(f"A mask is bool, or finite real numbers; got {mask.dtype} with other values.")
    mask = mask if mask.is_floating_point() else mask.long()
    low, high = mask.min().item(), mask.max().item()
    top = 1 if mask.is_floating_point() else 255
    if low < 0 or high > top:
        raise ValueError(f"A mask of {mask.dtype} has values from 0 to {top}; got {low:g} to {high:g}.")
    # integers 0 and 1 are flags, any others grey values
    return mask > (127 if high > 1 else 0.5)
