"""Random flips and quarter turns of images."""

import numpy as np


def check_orientations(orientations: int) -> None:
    """Refuse a number of orientations other than 1, 2 or 8."""
    if orientations not in (1, 2, 8):
        raise ValueError(f"orientations is {orientations}: give 8 (flipped and turned), 2 (mirrored) or 1 (as is).")


def turned(image: np.ndarray, orientations: int, rng: np.random.Generator) -> np.ndarray:
    """Return an image (H, W, ...) in a uniformly random orientation: 2 allows mirroring, 8 quarter turns too."""
    turn = rng.integers(0, 8)
    if orientations > 1 and turn >= 4:
        image = image[:, ::-1]
    return np.rot90(image, turn % 4) if orientations == 8 else image
