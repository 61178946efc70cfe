"""Build operators from their names and parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from genprior.ambient import settled
from genprior.checks import Shape
from genprior.operators.base import Operator
from genprior.operators.blur import Blur, gaussian_kernel, motion_kernel
from genprior.operators.colour import Colorize
from genprior.operators.denoise import Denoise
from genprior.operators.inpaint import Inpaint, box_mask, random_mask, stroke_mask
from genprior.operators.jpeg import JPEG
from genprior.operators.phase import PhaseRetrieval
from genprior.operators.superres import SuperResolution
from genprior.registry import lookup

ALIASES = {
    "sr": "super-resolution",
    "superres": "super-resolution",
    "colourise": "colorize",
    "colourize": "colorize",
    "colorise": "colorize",
}


SIMULATED_MASKS = ("random", "box", "stroke")


def canonical(op: str) -> str:
    """The operator's own name, given its name or an alias.

    Raises:
        ValueError: there is no such operator.
    """
    op = ALIASES.get(op, op)
    lookup("operator", op, FOR_MEASUREMENT)
    return op


@settled
def for_measurement(op: str, measurement_shape: Shape, **parameters) -> Operator:
    """Build the named operator whose measurements have the given (C, H, W), to restore a measured image.

    Arguments:
        op: "inpaint" (mask), "super-resolution" (scale, antialias), "gaussian-deblur" (width, boundary),
            "motion-deblur" (length, angle, boundary), "deblur" (kernel, boundary), "colorize", "denoise" or
            "phase-retrieval" (oversample). "jpeg" is read from a JPEG file: see `genprior.read_jpeg`.
        measurement_shape: (C, H, W) of y.
        parameters: those of the operator, as in its class or kernel function.

    Raises:
        ValueError: the name is unknown, or a value does not fit.
        TypeError: a parameter is missing, or the operator does not have it.
    """
    return _build(op, FOR_MEASUREMENT, measurement_shape, parameters)


@settled
def for_image(op: str, image_shape: Shape, **parameters) -> Operator:
    """Build the named operator for images of the given (C, H, W), to degrade an image.

    Arguments and errors as for `for_measurement`; for "inpaint", mask may also be "random" (fraction, seed), "box"
    (size, seed) or "stroke" (fraction, seed); "jpeg" takes subsampling.
    """
    return _build(op, FOR_IMAGE, image_shape, parameters)


def _build(op: str, table: dict[str, Callable[..., Operator]], shape: Shape, parameters: dict) -> Operator:
    op = ALIASES.get(op, op)
    return _call(str(op), lookup("operator", op, table), shape, parameters)


def _call(name: str, make: Callable[..., Any], shape: Shape, parameters: dict) -> Any:
    """make(shape, **parameters), with an error that names the parameters it takes."""
    signature = inspect.signature(make)
    try:
        signature.bind(shape, **parameters)
    except TypeError as error:
        _, *names = (p.name for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD)
        takes = f"takes {', '.join(names)}" if names else "takes no parameters"
        raise TypeError(f"{name} {takes}; got {', '.join(parameters) or 'none'} ({error}).") from None
    return make(shape, **parameters)


def _inpaint(shape: Shape, *, mask: Tensor | np.ndarray) -> Inpaint:
    if isinstance(mask, str):
        raise ValueError(f"mask={mask!r} simulates holes, with `degrade`; to restore, give the mask itself.")
    return Inpaint(mask, shape)


def _simulated_inpaint(shape: Shape, *, mask: Tensor | np.ndarray | str, **simulation) -> Inpaint:
    if isinstance(mask, str):
        return Inpaint(_call(f"mask={mask!r}", lookup("mask", mask, MASKS), shape, simulation), shape)
    if simulation:
        raise TypeError(f"inpaint takes {', '.join(simulation)} with mask='random', 'box' or 'stroke' only.")
    return Inpaint(mask, shape)


def _superres(make: Callable[..., SuperResolution], shape: Shape, *, scale: int, antialias: str = "bicubic"):
    return make(scale, shape, antialias)


def _gaussian_deblur(make: Callable[..., Blur], shape: Shape, *, width: float, boundary: str = "valid"):
    return make(gaussian_kernel(width), shape, boundary)


def _motion_deblur(make: Callable[..., Blur], shape: Shape, *, length: float, angle=0.0, boundary="valid"):
    return make(motion_kernel(length, angle), shape, boundary)


def _jpeg_measured(shape: Shape) -> JPEG:
    raise ValueError(
        f"The size of a JPEG picture does not follow from its {shape[-1]} coefficients: restore the file itself, "
        "restore('photo.jpg', 'jpeg'), read it by genprior.read_jpeg, or give the operator, JPEG(image_shape)."
    )


def _deblur(make: Callable[..., Blur], shape: Shape, *, kernel: Tensor | np.ndarray, boundary: str = "valid"):
    return make(kernel, shape, boundary)


MASKS = {"random": random_mask, "box": box_mask, "stroke": stroke_mask}
FOR_IMAGE: dict[str, Callable[..., Operator]] = {
    "inpaint": _simulated_inpaint,
    "super-resolution": partial(_superres, SuperResolution),
    "gaussian-deblur": partial(_gaussian_deblur, Blur),
    "motion-deblur": partial(_motion_deblur, Blur),
    "deblur": partial(_deblur, Blur),
    "colorize": lambda shape: Colorize(shape),
    "denoise": lambda shape: Denoise(shape),
    "phase-retrieval": lambda shape, *, oversample=2: PhaseRetrieval(shape, oversample),
    "jpeg": lambda shape, *, subsampling="4:2:0": JPEG(shape, subsampling),
}
FOR_MEASUREMENT: dict[str, Callable[..., Operator]] = {
    "inpaint": _inpaint,
    "super-resolution": partial(_superres, SuperResolution.for_measurement),
    "gaussian-deblur": partial(_gaussian_deblur, Blur.for_measurement),
    "motion-deblur": partial(_motion_deblur, Blur.for_measurement),
    "deblur": partial(_deblur, Blur.for_measurement),
    "colorize": Colorize.for_measurement,
    "denoise": lambda shape: Denoise(shape),
    "phase-retrieval": lambda shape, *, oversample=2: PhaseRetrieval.for_measurement(shape, oversample),
    "jpeg": _jpeg_measured,
}
