"""Image values for which PIL has no mode."""

from __future__ import annotations

import numpy as np


class Deep(np.ndarray):
    """An image of 16-bit or floating-point colour: an array (H, W, C), C = 1, 2 (grey, alpha), 3 or 4 (RGB, alpha).

    Attributes:
        icc_profile: what its colours mean, as in files, or None.
    """

    icc_profile: bytes | None

    def __new__(cls, values: np.ndarray, icc_profile: bytes | None = None) -> Deep:
        made = np.asarray(values).view(cls)
        made.icc_profile = icc_profile
        return made

    def __array_finalize__(self, other) -> None:
        self.icc_profile = getattr(other, "icc_profile", None)
