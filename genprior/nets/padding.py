"""Images extended to a size that a network's levels divide."""

import torch
from torch import Tensor


def mirrored(x: Tensor, multiple: int) -> Tensor:
    """x (..., H, W) with rows below and columns to the right, mirrored, up to the next multiple.

    Repeating the last row instead would turn its noise into stripes, which a denoiser takes for structure.
    """
    for axis in (-2, -1):
        size = x.shape[axis]
        if beyond := -size % multiple:
            index = torch.arange(size + beyond, device=x.device) % (2 * size)
            x = x.index_select(axis, torch.minimum(index, 2 * size - 1 - index))
    return x
