"""Super-resolution: y is x downsampled by an integer factor, with antialiasing."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from genprior.checks import Shape, as_integer, as_shape
from genprior.operators.separable import Separable
from genprior.registry import lookup


class SuperResolution(Separable):
    """A x = R_h x R_w^T, x downsampled by `scale` with antialiasing; closed forms from two small matrices.

    The antialiasing filters are the same along both axes and centred on the blocks of scale x scale pixels:
    "bicubic": `torch.nn.functional.interpolate(mode="bicubic", antialias=True)`, as in Pillow and MATLAB.
    "gaussian": Kornia's Gaussian kernel of width scale / 2, cut at 3 widths, reflected at borders, one value a block.
    That width keeps exp(-pi^2 / 8) = 0.29 of the highest frequency in y: keeping less blurs, keeping more aliases.
    "average": the mean of each block.

    Arguments:
        scale: an integer, >= 1.
        image_shape: (C, H, W) of x, the larger one.
        antialias: "bicubic", "gaussian" or "average".

    Raises:
        ValueError: scale is not an integer or does not divide H and W, or the antialiasing is unknown.
    """

    def __init__(self, scale: int, image_shape: Shape, antialias: str = "bicubic"):
        self.scale = self.coarser = scale = as_integer("scale", scale, 1, math.inf)
        self.antialias = antialias
        reduction = lookup("antialias", antialias, REDUCTIONS)
        C, H, W = as_shape(image_shape)
        h, w = H // scale, W // scale
        if (h * scale, w * scale) != (H, W):
            nearest = f"crop it to {h * scale} x {w * scale}" if h and w else f"take one of at least {scale} x {scale}"
            raise ValueError(f"Scale {scale} does not divide an image of {H} x {W}; {nearest}.")
        if antialias == "gaussian" and scale > 1 and min(h, w) < 2:
            raise ValueError(f"antialias='gaussian' needs at least {2 * scale} x {2 * scale} pixels; got {H} x {W}.")
        super().__init__(partial(_maps, reduction, (H, W), scale), (C, H, W), (C, h, w))

    @classmethod
    def for_measurement(cls, scale: int, measurement_shape: Shape, antialias: str = "bicubic") -> SuperResolution:
        """The super-resolution whose measurements have the given (C, h, w); arguments as for the class."""
        C, h, w = as_shape(measurement_shape)
        scale = as_integer("scale", scale, 1, math.inf)
        return cls(scale, (C, h * scale, w * scale), antialias)


def _maps(reduction: Callable[[int, int], Tensor], size: tuple[int, int], scale: int) -> tuple[Tensor, ...]:
    return tuple(reduction(n, scale) for n in size)


def _bicubic(n: int, scale: int) -> Tensor:
    # one n x n image: n images of n x 1 have an ambiguous memory format, and interpolate gives something else
    unit = torch.eye(n, dtype=torch.float64)[None, None]
    return F.interpolate(unit, size=(n // scale, n), mode="bicubic", antialias=True)[0, 0]


def _gaussian(n: int, scale: int) -> Tensor:
    if scale == 1:
        return torch.eye(n, dtype=torch.float64)
    from kornia.filters import get_gaussian_kernel1d

    # 3 widths on each side of a block's centre; even if the scale is, so that the kernel is centred there
    size = 3 * scale
    kernel = get_gaussian_kernel1d(size, scale / 2, force_even=size % 2 == 0, dtype=torch.float64)
    padded = F.pad(_columns(n), (0, 0, scale, scale), mode="reflect")
    means = F.conv2d(padded, kernel.reshape(1, 1, size, 1), stride=(scale, 1))
    return rearrange(means, "n 1 m 1 -> m n").contiguous()


def _average(n: int, scale: int) -> Tensor:
    return rearrange(F.avg_pool2d(_columns(n), (scale, 1)), "n 1 m 1 -> m n").contiguous()


REDUCTIONS: dict[str, Callable[[int, int], Tensor]] = {"bicubic": _bicubic, "gaussian": _gaussian, "average": _average}


def _columns(n: int) -> Tensor:
    """The n unit vectors as n images of n x 1."""
    return torch.eye(n, dtype=torch.float64).reshape(n, 1, n, 1)
