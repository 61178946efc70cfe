"""Masks: True in the holes to fill."""

import numpy as np
import torch
from torch import Tensor

from genprior.ambient import settled
from genprior.images.checks import check_not_masked, shape_of
from genprior.images.picture import Picture
from genprior.images.reading import ImageLike, read, same_size

# How far the channels of a grey mask may differ: JPEG rounds YCbCr.
_GREY_TOLERANCE = 4 / 255


@settled
def read_mask(mask: ImageLike, size: tuple[int, ...] | None = None) -> Tensor:
    """Read the holes that a mask marks, (B or 1, 1, H, W) bool: white, True or 1 is a hole (from 0.5 on).

    Args:
        mask: a path, PIL image, numpy array (H x W, H x W x 1, B x H x W x 1), torch tensor (H x W, 1 x H x W,
            B x 1 x H x W) or a list of them; integer arrays hold 0 and 1, or 0 and white; colour channels must agree.
        size: (H, W) that the mask must have.

    Raises:
        TypeError: the kind or dtype is none of the above.
        ValueError: the mask is a masked array, coloured, transparent, too dark to mark a hole, not in [0, 1], or of
            another size.
        OSError: the file does not exist or cannot be opened.
    """
    check_not_masked(mask, "The mask, a masked array,", "whether they are holes nobody knows")
    if isinstance(mask, np.ndarray | Tensor):
        if mask.ndim == 4 and len(mask) > 1:
            # one mask may hold 0 and 1, another 0 and white
            mask = list(mask)
        elif bool(((mask == 0) | (mask == 1)).all()):
            mask = mask != 0
    if isinstance(mask, Tensor):
        mask = mask.float() if mask.dtype == torch.bool else mask
        mask = mask[None] if mask.ndim == 2 else mask
        if mask.ndim not in (3, 4) or mask.shape[-3] != 1:
            raise ValueError(f"a mask tensor is H x W, 1 x H x W or B x 1 x H x W; got {shape_of(mask.shape)}.")
    is_list = isinstance(mask, list | tuple)
    holes = torch.cat(same_size([read_mask(m) for m in mask])) if is_list else _holes(read(mask))
    if size is not None and holes.shape[-2:] != tuple(size):
        raise ValueError(
            f"the mask is {shape_of(holes.shape[-2:])} but the image is {shape_of(size)} (height x width); "
            "resize the mask by nearest neighbour."
        )
    return holes


def _holes(mask: Picture) -> Tensor:
    if mask.alpha is not None and mask.alpha.min() < 1:
        raise ValueError("the mask is partly transparent; save it without alpha, white where the holes are.")
    if (mask.x - mask.x[:, :1]).abs().max() > _GREY_TOLERANCE:
        raise ValueError("the mask is coloured; save it in grey, white where the holes are.")
    x = mask.x.mean(1, keepdim=True)
    if 0 < x.max() < 0.5:
        raise ValueError(
            f"the mask marks no hole: its largest value is {float(x.max()):.3g} of white and holes start at 0.5; "
            "make holes white (a file that holds 0 and 1: read it as an array and pass array.astype(bool))."
        )
    return x >= 0.5
