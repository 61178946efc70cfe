"""Several images on one sheet."""

import math

from einops import rearrange
from torch import Tensor


def drawn(x: Tensor) -> Tensor:
    """Images of any number of channels on one sheet, (1 or 3, H', W').

    Images that are neither grey nor RGB appear as grey channels side by side.

    Args:
        x: (B, C, H, W).

    Raises:
        ValueError: x is not a batch of images.
    """
    if x.ndim != 4 or x.shape[1] in (1, 3) or x.numel() == 0:
        return grid(x)
    b, c = x.shape[:2]
    return grid(x.flatten(0, 1)[:, None], columns=c * math.ceil(math.sqrt(b / c)))


def grid(x: Tensor, columns: int | None = None, pad: int = 2) -> Tensor:
    """Images side by side on one white sheet, row by row, clipped to [0, 1]: (C, H', W').

    Args:
        x: (B, C, H, W).
        columns: images per row; by default ceil(sqrt(B)).
        pad: pixels between neighbours.

    Raises:
        ValueError: x is not a batch of images, columns < 1 or pad < 0.
    """
    if x.ndim != 4 or x.numel() == 0:
        raise ValueError(f"got a tensor of shape {tuple(x.shape)}, wanted (B, C, H, W), none of them 0.")
    if (columns is not None and columns < 1) or pad < 0:
        raise ValueError(f"got columns={columns} and pad={pad}, wanted columns >= 1 and pad >= 0.")
    b, c, h, w = x.shape
    columns = columns or math.ceil(math.sqrt(b))
    rows = math.ceil(b / columns)
    cells = x.new_ones(rows * columns, c, h + pad, w + pad)
    cells[:b, :, :h, :w] = x.detach().clamp(0, 1)
    sheet = rearrange(cells, "(rows columns) c h w -> c (rows h) (columns w)", rows=rows)
    return sheet[:, : sheet.shape[1] - pad, : sheet.shape[2] - pad]
