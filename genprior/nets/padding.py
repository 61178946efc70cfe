"""Padding of images to a size that a network's levels divide."""

import torch
from torch import Tensor


def mirrored(x: Tensor, multiple: int) -> Tensor:
    """Pad x (..., H, W) with mirrored rows below and columns to the right, up to the next multiple.

    Repeating the last row instead would turn its noise into stripes, which a denoiser takes for structure.
    """
    for axis in (-2, -1):
        size = x.shape[axis]
        if beyond := -size % multiple:
            index = torch.arange(size + beyond, device=x.device) % (2 * size)
            x = x.index_select(axis, torch.minimum(index, 2 * size - 1 - index))
    return x
