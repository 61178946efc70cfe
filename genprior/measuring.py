"""Turn the user's input into a measurement, and restored images back into the user's kind."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genprior import images
from genprior.checks import as_integer, as_tensor
from genprior.compression import measured
from genprior.likelihoods import Likelihood, PoissonGaussian
from genprior.nets.wrapped import unwrapped
from genprior.noise_level import noise_level
from genprior.operators.base import Operator, name_of
from genprior.operators.blur import weights
from genprior.operators.build import SIMULATED_MASKS, canonical, for_image, for_measurement
from genprior.operators.check import check_foreign
from genprior.operators.colour import Colorize
from genprior.operators.deepinv import from_physics, physics_noise
from genprior.operators.linear import LinearOperator
from genprior.operators.masking import kept_by
from genprior.operators.measurement import Measurement
from genprior.photon_noise import photon_noise
from genprior.scale import warn_of_sum

Noisiness = float | Tensor | Likelihood | str | None
PHOTONS = "poisson"  # photon noise, to be estimated
LEAST_SD = 0.1  # least estimated sd, in units of the gain: less makes no difference to counts

NEARLY = 4.5 / 255  # how far the channels of a grey image that was scanned or compressed as colour may differ


def as_noise(noise: Any) -> float | Tensor | Likelihood:
    """The noise as a float, a tensor with one number for each image, or a likelihood; `Measurement` checks it."""
    if isinstance(noise, Likelihood):
        return noise
    if isinstance(noise, list | tuple):
        return torch.tensor([as_noise(each) for each in noise]).reshape(-1, 1, 1, 1)
    if np.ma.is_masked(noise):
        raise ValueError("noise is a masked array, and its masked values mean nothing; give all of its values.")
    if isinstance(noise, Tensor | np.ndarray) and noise.ndim:
        noise = torch.as_tensor(noise).float()
        return noise.reshape(-1, 1, 1, 1) if noise.ndim == 1 else noise
    if isinstance(noise, bool) or not isinstance(noise, Real | Tensor | np.ndarray):
        raise TypeError(
            "noise is a standard deviation in the units of the image, such as 0.02, or a likelihood, such as "
            f"Poisson(1 / 30), or, to restore, 'poisson' to have photon noise estimated; got {noise!r}."
        )
    return float(noise)


def simulation(op: str, x: Tensor, parameters: dict[str, Any], seed: int) -> dict[str, Any]:
    """The parameters of `op` with masks read, or simulated: one for each image, keyed by (seed, image number)."""
    parameters = _with_kernels(parameters, len(x))
    mask = parameters.get("mask")
    if op != "inpaint" or mask is None:
        return parameters
    if not _is_simulated(mask):
        return {**parameters, "mask": _one_or_each("mask", images.read_mask(mask, tuple(x.shape[-2:])), len(x))}
    as_integer("seed", seed, 0, math.inf)
    seeds = [int(np.random.SeedSequence((seed, i)).generate_state(1)[0]) for i in range(len(x))]
    masks = [for_image(op, tuple(x.shape[1:]), **parameters, seed=s).mask for s in seeds]  # pyright: ignore[reportAttributeAccessIssue]
    return {"mask": torch.cat(masks)}


def _with_kernels(parameters: dict[str, Any], number: int) -> dict[str, Any]:
    """The parameters with kernels as one tensor of floats; kernels of different sizes are zero-padded."""
    kernel = parameters.get("kernel")
    if isinstance(kernel, list | tuple):
        kernel = stacked([weights(each) for each in kernel])
    if not isinstance(kernel, Tensor | np.ndarray):
        return parameters
    kernel = weights(kernel)
    return {**parameters, "kernel": _one_or_each("kernel", kernel, number) if kernel.ndim == 3 else kernel}


def stacked(kernels: list[Tensor]) -> Tensor:
    """Stack kernels (kh, kw) into one (B, kh, kw), with their origins (kh // 2, kw // 2) aligned."""
    if not kernels or any(kernel.ndim != 2 for kernel in kernels):
        shapes = ", ".join(str(tuple(kernel.shape)) for kernel in kernels)
        raise ValueError(f"A list of kernels has one (kh, kw) for each image; got {shapes or 'none'}.")
    H, W = (max(kernel.shape[axis] for kernel in kernels) for axis in (0, 1))
    stacked = torch.zeros(len(kernels), H, W, dtype=torch.promote_types(kernels[0].dtype, torch.float32))
    for place, kernel in zip(stacked, kernels):
        h, w = kernel.shape
        top, left = H // 2 - h // 2, W // 2 - w // 2
        place[top : top + h, left : left + w] = kernel
    return stacked


def _one_or_each(what: str, values: Any, number: int) -> Any:
    if len(values) not in (1, number):
        raise ValueError(f"There are {len(values)} {what}s for {number} images; give one for all, or one for each.")
    return values


def _is_simulated(mask: Any) -> bool:
    """Whether a mask is a name, such as "random", even a misspelt one, and not a file."""
    return isinstance(mask, str) and (mask in SIMULATED_MASKS or not (Path(mask).suffix or Path(mask).exists()))


def as_operator(op: Any, parameters: dict[str, Any], image_shape: tuple[int, ...] | None = None) -> Operator:
    if parameters:
        raise ValueError(f"{sorted(parameters)} belong to named operators; an operator object has its own.")
    op = unwrapped(op)
    if isinstance(op, Operator):
        return op
    if _is_physics(op):
        return from_physics(op, image_shape)
    raise TypeError(f"op is a name, an operator or a deepinv physics, not {images.kind_of(op)}.")


def stated_noise(img: Any, op: Any, noise: Any) -> Noisiness:
    """The noise that the user, the measurement or the physics states; None or "poisson" if it is to be estimated."""
    if noise is not None:
        return noise if _is_photons(noise) else as_noise(noise)
    if isinstance(img, Measurement):
        return img.noise
    op = unwrapped(op)
    return physics_noise(op) if _is_physics(op) else None


def measure(
    img: Any, op: Any, noise: Noisiness, parameters: dict[str, Any]
) -> tuple[Measurement, Callable[[Tensor], Any]]:
    """The user's measurement, and the way from a restored (B, C, H, W) back to the user's kind."""
    if isinstance(img, Measurement):
        if parameters or op != "inpaint":
            raise ValueError("A Measurement brings its own operator: leave op and its parameters out.")
        check_foreign(img.operator, img.y)
        way = _all if len(img.y) > 1 else _first
        return _measurement(img.y, img.operator, noise), way
    if isinstance(op, str) and canonical(op) == "jpeg":
        return _measure_jpeg(img, noise, parameters)
    if isinstance(op, str):
        return _measure_picture(img, canonical(op), noise, parameters)

    op = unwrapped(op)
    operator = _physics_operator(op, img, **parameters) if _is_physics(op) else as_operator(op, parameters)
    y, give = _uninterpreted(img, operator)
    check_foreign(operator, y)
    return _measurement(y, operator, noise), give


def _physics_operator(physics: Any, img: Any, image_shape: tuple[int, ...] | None = None, **others) -> Operator:
    """The operator of a physics; if nothing states the size of its images, its adjoint of y does."""
    if others:
        raise ValueError(f"{sorted(others)} belong to named operators; a deepinv physics takes image_shape only.")
    return from_physics(physics, image_shape, y=img if isinstance(img, Tensor | np.ndarray) else None)


def _uninterpreted(img: Any, operator: Operator) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """y for an operator object, (B, *measurement_shape), and the way back to a tensor or array like the one given."""
    name, shape = name_of(operator), operator.measurement_shape
    if not isinstance(img, Tensor | np.ndarray):
        raise TypeError(
            f"With {name} as op, img is its measurement y, a tensor or an array of shape {shape}; got "
            f"{images.kind_of(img)}. Give the operator's name instead to have files and pictures read."
        )
    if img.ndim not in (3, 4) or tuple(img.shape[-3:]) != shape or not len(img):
        raise ValueError(f"{name} measures {shape}; give y in that shape, B first for several; got {tuple(img.shape)}.")
    y = as_tensor("y", img)
    if y.is_complex():
        raise TypeError(f"{name} takes real values; y is {y.dtype}.")
    batched = img.ndim == 4
    dtype = y.dtype if y.is_floating_point() else torch.float32
    give = partial(_like, batched=batched, device=y.device, dtype=dtype, array=isinstance(img, np.ndarray))
    y_in_floats = y.to(torch.promote_types(y.dtype, torch.float32))
    return y_in_floats if batched else y_in_floats[None], give


# Ways back to the kind that was given, as module-level functions so that results can be pickled.
def _all(x: Tensor) -> Tensor:
    return x


def _first(x: Tensor) -> Tensor:
    return x[0]


def _like(x: Tensor, *, batched: bool, device: torch.device, dtype: torch.dtype, array: bool) -> Tensor | np.ndarray:
    x = (x if batched else x[0]).to(device, dtype)
    return x.numpy() if array else x


def _measure_picture(
    img: Any, op: str, noise: Noisiness, parameters: dict[str, Any]
) -> tuple[Measurement, Callable[[Tensor], Any]]:
    picture = images.read(img, role="measurement", nan=op == "inpaint")
    y, unknown, give = picture.seen, None, picture.emptied().like
    if picture.alpha is not None:
        unknown = picture.alpha == 0
    if op == "inpaint":
        if others := parameters.keys() - {"mask"}:
            raise TypeError(f"To restore, inpaint takes mask; got {', '.join(sorted(others))}.")
        holes = _holes(picture, parameters)
        if unknown is not None:
            alpha: Any = picture.alpha
            picture = replace(picture, alpha=torch.where(holes, 1.0, alpha))
            hidden = unknown & ~holes
            give = partial(_give_with_hidden, picture, hidden) if hidden.any() else picture.emptied().like
        unknown = holes if unknown is None else holes | unknown
        parameters = {**parameters, "mask": unknown}
        y = torch.where(unknown, 0.0, y)
    if op == "colorize" and y.shape[1] == 3:
        y = as_grey(y)
    parameters = _with_kernels(parameters, len(y))
    operator = for_measurement(op, tuple(y.shape[1:]), **parameters)
    warn_of_sum(parameters.get("kernel"))
    return _measurement(y, operator, noise, unknown), give


def _measure_jpeg(
    img: Any, noise: Noisiness, parameters: dict[str, Any]
) -> tuple[Measurement, Callable[[Tensor], Any]]:
    if parameters or noise is not None:
        given = ", ".join([*parameters, *["noise"] * (noise is not None)])
        raise TypeError(f"To restore, jpeg takes all it needs from the file: leave {given} out.")
    return measured(img)


def _give_with_hidden(picture: images.Picture, hidden: Tensor, x: Tensor) -> Any:
    """The restored image in the kind given; colours that alpha 0 hides outside the holes stay as they were."""
    return picture.like(torch.where(hidden.to(x.device), picture.x.to(x), x))


def as_grey(y: Tensor) -> Tensor:
    """The luma (B, 1, H, W) of colour images that are grey to within `NEARLY`, as scans and JPEG files of grey ones.

    Raises:
        ValueError: they have colours.
    """
    colour = float((y.amax(1) - y.amin(1)).max())
    if not colour <= NEARLY:
        raise ValueError(
            f"colorize takes grey images, and this one has colours: its channels differ by up to {colour:.3g}. If it "
            "is a toned one, or its colours are to be replaced, convert it to grey: Image.open(file).convert('L')."
        )
    first = y[:, :1]  # for equal channels, the luma to the last bit
    return first + Colorize(tuple(y.shape[1:]))(y - first)


def _measurement(y: Tensor, operator: Operator, noise: Noisiness, holes: Tensor | None = None) -> Measurement:
    """The measurement; unstated noise is estimated from y outside the holes, by default what a mask does not keep."""
    if not (noise is None or isinstance(noise, str)):
        return Measurement(y, operator, noise)
    # it is known how smooth pictures are, and so what linear operators make of them
    if not isinstance(operator, LinearOperator):
        raise ValueError(
            f"The noise of {name_of(operator)} cannot be estimated, since y is no picture: state it, as noise=0.02."
        )
    if holes is None:
        kept = kept_by(operator, y)
        holes = None if kept is None else ~kept
    return Measurement(y, operator, _estimated(y, holes) if noise is None else _photons(y, holes))


def _photons(y: Tensor, holes: Tensor | None) -> Likelihood:
    gain, sd = photon_noise(y, holes)
    sd = torch.maximum(sd, LEAST_SD * gain)
    return PoissonGaussian(gain, sd) if len(y) > 1 else PoissonGaussian(gain.item(), sd.item())


def _is_photons(noise: Any) -> bool:
    return isinstance(noise, str) and noise == PHOTONS


def _estimated(y: Tensor, holes: Tensor | None) -> float | Tensor:
    """The noise level, (B, 1, 1, 1) for several images; 0 if all is holes and there is none to estimate."""
    if holes is None:
        noise = noise_level(y)
    else:
        holes = holes.expand(len(y), -1, -1, -1)
        measured = ~holes.flatten(1).all(1)
        noise = y.new_zeros(len(y), 1, 1, 1)
        if measured.any():
            noise[measured] = noise_level(y[measured], holes[measured])
    # one number, as a user would state it: the same draws to the last bit
    return noise.item() if len(y) == 1 else noise


def _holes(picture: images.Picture, parameters: dict[str, Any]) -> Tensor:
    """(B or 1, 1, H, W) bool: the mask, or else where alpha is 0; and wherever a channel is NaN."""
    holes = picture.x.isnan().any(dim=1, keepdim=True)
    mask = parameters.get("mask")
    if _is_simulated(mask):
        raise ValueError(f"mask={mask!r} is no file; names simulate holes, with `degrade`. Give the mask itself.")
    if mask is not None:
        mask = images.read_mask(mask, tuple(picture.x.shape[-2:])).to(holes.device)
        return holes | _one_or_each("mask", mask, len(holes))
    if picture.alpha is not None:
        holes = holes | (picture.alpha == 0)
    if not holes.any():
        raise ValueError(
            "The holes are not marked: pass mask= (white, True or 1 marks a hole), set holes to NaN, or make them "
            "transparent (alpha 0)."
        )
    return holes


def _is_physics(op: Any) -> bool:
    # A user with a physics has imported deepinv; importing it here just to ask would take seconds.
    deepinv = sys.modules.get("deepinv")
    return deepinv is not None and isinstance(op, deepinv.physics.Physics)
