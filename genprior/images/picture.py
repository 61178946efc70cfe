"""The user's image as a tensor, and the way back to its original kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Picture:
    """The user's image: the tensor, and what is needed to return the same kind.

    Attributes:
        x: (B, C, H, W) float32; on the CPU, or for torch input on its own device.
        alpha: (B, 1, H, W) in [0, 1], or None if the input has none.
    """

    x: Tensor
    alpha: Tensor | None
    _give: Callable[[Tensor, Tensor | None], Any] = field(repr=False)

    @property
    def seen(self) -> Tensor:
        """x with hidden colours (alpha 0) replaced by those of the nearest visible pixel, (B, C, H, W).

        A hidden colour is often black, and nobody sees it; no operator may carry it to where it would be seen.
        """
        if self.alpha is None or not (self.alpha == 0).any():
            return self.x
        return torch.stack([_unhidden(x, alpha[0] == 0) for x, alpha in zip(self.x, self.alpha)])

    def like(self, x: Tensor, alpha: bool = True) -> Any:
        """Return x, clipped to [0, 1], in the user's kind, layout and dtype (integers are rounded).

        A path gives a PIL image; palette, CMYK and other colour modes give RGB; 1-bit images and boolean arrays, which
        cannot hold a restored image, give 8-bit grey and float32. A grey image that gained colour gets a colour axis.

        Args:
            x: (B, C, H, W), B as read; C, H and W may differ (colourisation, super-resolution).
            alpha: whether to return the kept alpha too, resized to x: by nearest neighbour if it is 0 or 1
                everywhere, bilinearly otherwise.

        Raises:
            ValueError: x has another batch size, or channels or NaN that this kind cannot hold (integers have no NaN).
        """
        if x.ndim != 4 or len(x) != len(self.x):
            raise ValueError(f"got a tensor of shape {tuple(x.shape)}, wanted ({len(self.x)}, C, H, W) as was read.")
        kept = _resize_alpha(self.alpha, x.shape[-2:]) if alpha and self.alpha is not None else None
        return self._give(x.detach().clamp(0, 1), kept)

    def emptied(self) -> Picture:
        """A copy without the values of x: all that `like` needs, in less memory."""
        return replace(self, x=self.x.new_empty(len(self.x), 0, *self.x.shape[2:]))


def _unhidden(x: Tensor, hidden: Tensor) -> Tensor:
    """x (C, H, W) with pixels `hidden` (H, W) copied from the nearest visible one; unchanged if none is visible."""
    if not hidden.any() or hidden.all():
        return x
    row, column = torch.from_numpy(nearest_seen(hidden.cpu().numpy()))
    return x[:, row, column]


def nearest_seen(hidden: np.ndarray) -> np.ndarray:
    """Row and column of the nearest visible pixel, for each pixel of (H, W): (2, H, W)."""
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(hidden, return_distances=False, return_indices=True), dtype=np.int64)


def _resize_alpha(alpha: Tensor, size: torch.Size) -> Tensor:
    if alpha.shape[-2:] == size:
        return alpha
    return torch.cat([_resize_one_alpha(a[None], size) for a in alpha])


def _resize_one_alpha(alpha: Tensor, size: torch.Size) -> Tensor:
    if ((alpha == 0) | (alpha == 1)).all():
        return F.interpolate(alpha, tuple(size), mode="nearest-exact")
    return F.interpolate(alpha, tuple(size), mode="bilinear", antialias=True)
