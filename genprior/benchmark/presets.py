"""Degradations by name: those of papers, scaled to the size of the images, and ours.

Each is a function of the images' side, in pixels, and returns the arguments of `genprior.degrade` and
`genprior.evaluate`: `op`, `noise` on [0, 1], and the operator's own.

References: H. Chung, J. Kim, M. McCann, M. Klasky, J. C. Ye, Diffusion posterior sampling for general noisy inverse
problems, 2023 (the "dps-" ones): FFHQ and ImageNet at 256 x 256, noise 0.05 on [-1, 1], which is 0.025 on [0, 1].
Do not compare with their FFHQ figures: images and prior differ, and each preset names its own differences.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genprior.registry import lookup

PAPER_SIDE = 256
NOISE = 0.025


def preset(name: str, side: int) -> dict[str, Any]:
    """The arguments of `degrade` and `evaluate` for that task and images whose smaller side is `side`.

    Raises:
        ValueError: there is no such preset, or it does not support images of that size.
    """
    return lookup("preset", name, PRESETS)(side)


def dps_inpaint_box(side: int) -> dict[str, Any]:
    """A square hole of half the side (128 of 256), at a random position in each image.

    Unlike the paper's code, which keeps 16 pixels from the border, every position in the image is equally likely.
    """
    return {"op": "inpaint", "noise": NOISE, "mask": "box", "size": _scaled(128, side)}


def dps_inpaint_random(side: int) -> dict[str, Any]:
    """92 % of the pixels missing, in all channels at once, at random in each image.

    This follows the paper; its code draws 30 to 70 % instead. Ours is exactly 92 %; theirs draws pixels one by one.
    """
    return {"op": "inpaint", "noise": NOISE, "mask": "random", "fraction": 0.92}


def dps_sr4(side: int) -> dict[str, Any]:
    """Super-resolution by 4 from bicubic antialiased reduction, as in MATLAB's `imresize`.

    As in the paper except at the border, where theirs mirrors and ours drops the weights that lie beyond it.
    """
    return {"op": "super-resolution", "noise": NOISE, "scale": 4, "antialias": "bicubic"}


def dps_gaussian(side: int) -> dict[str, Any]:
    """Gaussian blur of width 3 at 256 pixels, scaled in proportion at other sizes.

    Unlike the paper's, it is "circular", while theirs mirrors the image, which has no adjoint in closed form (DiffPIR
    and PnP-DM are circular too); and it is cut at 3 widths from the middle, while theirs ends at 4.
    """
    return {"op": "gaussian-deblur", "noise": NOISE, "width": 3 * side / PAPER_SIDE, "boundary": "circular"}


def dps_motion(side: int) -> dict[str, Any]:
    """A curved camera motion within 61 of 256 pixels, scaled in proportion at other sizes: one kernel for all images.

    Unlike the paper's, it is "circular", like `dps_gaussian`; and the paper's kernels are random polylines (motionblur
    by L. Borodenko, intensity 0.5), while this one is a path of a Gaussian process (deepinv's generator, seed 0).

    Raises:
        ValueError: the side is above 256, where the kernel would exceed 61 pixels.
    """
    if side > PAPER_SIDE:
        raise ValueError(f"dps-motion is for images of up to 256 pixels, where its kernel has 61; got {side}: crop.")
    return {"op": "deblur", "noise": NOISE, "kernel": camera_motion(_odd(61, side)), "boundary": "circular"}


def photo_inpaint_random(side: int) -> dict[str, Any]:
    """70 % of the pixels missing, at random in each image."""
    return {"op": "inpaint", "noise": NOISE, "mask": "random", "fraction": 0.7}


def photo_inpaint_box(side: int) -> dict[str, Any]:
    """A square hole of a quarter of the side, at a random position in each image."""
    return {"op": "inpaint", "noise": NOISE, "mask": "box", "size": side // 4}


def photo_sr4(side: int) -> dict[str, Any]:
    """Super-resolution by 4 from bicubic antialiased reduction."""
    return {"op": "super-resolution", "noise": NOISE, "scale": 4}


def photo_gaussian(side: int) -> dict[str, Any]:
    """Gaussian blur of width 2 at any size; the scene continues past the frame ("valid")."""
    return {"op": "gaussian-deblur", "noise": NOISE, "width": 2.0, "boundary": "valid"}


def photo_motion(side: int) -> dict[str, Any]:
    """Motion along 15 pixels at 30 degrees at any size; the scene continues past the frame ("valid")."""
    return {"op": "motion-deblur", "noise": NOISE, "length": 15, "angle": 30.0, "boundary": "valid"}


def camera_motion(side: int) -> Tensor:
    """A curved motion kernel, (side, side), sum 1: deepinv's generator with its defaults and seed 0.

    References: C. Schuler, M. Hirsch, S. Harmeling, B. Schölkopf, Learning to deblur, 2016.
    """
    from deepinv.physics.generator import MotionBlurGenerator

    return MotionBlurGenerator((side, side), rng=torch.Generator().manual_seed(0)).step(1)["filter"][0, 0].double()


def _scaled(length: int, side: int) -> int:
    return round(length * side / PAPER_SIDE)


def _odd(length: int, side: int) -> int:
    """The odd number nearest to the scaled length, at least 3."""
    return max(3, 2 * round((length * side / PAPER_SIDE - 1) / 2) + 1)


PRESETS: dict[str, Callable[[int], dict[str, Any]]] = {
    "dps-inpaint-box": dps_inpaint_box,
    "dps-inpaint-random": dps_inpaint_random,
    "dps-sr4": dps_sr4,
    "dps-gaussian": dps_gaussian,
    "dps-motion": dps_motion,
    "photo-inpaint-random": photo_inpaint_random,
    "photo-inpaint-box": photo_inpaint_box,
    "photo-sr4": photo_sr4,
    "photo-gaussian": photo_gaussian,
    "photo-motion": photo_motion,
}
