"""Known pixels: inpainting returns them as they were."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from genprior.likelihoods import Likelihood
from genprior.operators.masking import kept_by
from genprior.operators.measurement import Measurement


def known_pixels(measurement: Measurement, stated: float | Tensor | Likelihood | str | None) -> Tensor | None:
    """The pixels of each image that are known exactly, bool, shaped like y, on the CPU; None if there are none.

    If the operator is a mask, these are all pixels outside the holes, unless a noise above 0 or another likelihood was
    stated. If no noise was stated, an image without holes is one to denoise, and none of its pixels is known.

    Arguments:
        measurement: y (B, C, H, W) and its operator.
        stated: the noise stated for them, or only its name; None if it was estimated.
    """
    kept = kept_by(measurement.operator, measurement.y)
    if kept is None or isinstance(stated, Likelihood | str):
        return None
    number = len(measurement.y)
    kept = kept.cpu().expand(number, -1, -1, -1)
    if stated is None:
        exact = ~kept.flatten(1).all(1).reshape(-1, 1, 1, 1)
    else:
        exact = torch.as_tensor(stated).cpu().expand(number, 1, 1, 1) == 0
    return kept & exact if exact.any() else None


def keep(samples: Tensor, y: Tensor, known: Tensor) -> Tensor:
    """Samples (B, n, C, H, W) with the values of y (B, C, H, W) at known pixels."""
    return torch.where(known[:, None], y[:, None].to(samples), samples)


def giving_back(give: Callable[[Tensor], Any], given: Any, y: Tensor, known: Tensor) -> Callable[[Tensor], Any]:
    """Wrap `give`, the way back to the user's kind, to put the user's own values at known pixels.

    Other pixels pass through float32 and [0, 1], which cannot hold all that a user's array or tensor can.
    """
    return functools.partial(_given_back, give=give, given=_copy(given), y=y.cpu(), known=known)


def _given_back(x: Tensor, give: Callable[[Tensor], Any], given: Any, y: Tensor, known: Tensor) -> Any:
    return _with_known(give(x), given, y, known)


def _with_known(out: Any, given: Any, y: Tensor, known: Tensor) -> Any:
    if isinstance(out, list):
        return [_with_known(*each) for each in zip(out, given, y.split(1), known.split(1))]
    if isinstance(out, Tensor):
        source = given if isinstance(given, Tensor) else y.reshape(out.shape)
        return torch.where(known.reshape(out.shape).to(out.device), source.to(out), out)
    if isinstance(out, np.ndarray) and given is not None:
        np.copyto(out, given, where=_in_layout(known, out.shape), casting="unsafe")
        return out
    # From files, integers came through as they were, and floats are in y.
    if isinstance(out, np.ndarray) and out.dtype.kind == "f":
        np.copyto(out[..., : y.shape[1]], rearrange(y, "1 c h w -> h w c").numpy(), where=_in_layout(known, out.shape))
    if isinstance(out, Image.Image) and out.mode == "F":
        return Image.fromarray(np.where(known[0, 0], y[0, 0], np.asarray(out)).astype(np.float32))
    return out


def _in_layout(known: Tensor, shape: tuple[int, ...]) -> np.ndarray:
    """`known` (B, C, H, W) in the layout of an array: channels first, as in y, or last, as in pictures."""
    if len(shape) > 2 and tuple(shape[-3:]) == tuple(known.shape[1:]):
        return known.reshape(shape).numpy()
    of_pixels = known[:, 0].numpy()  # in a picture, all channels of a pixel are known, or none
    of_pixels = of_pixels if len(shape) == 4 else of_pixels[0]
    return of_pixels if len(shape) == 2 else of_pixels[..., None]


def _copy(given: Any) -> Any:
    """A copy of what was given, safe from later changes; None for files and pictures, since y has all they hold."""
    if isinstance(given, list | tuple):
        return [_copy(each) for each in given]
    if isinstance(given, Tensor):
        return given.detach().clone()
    return given.copy() if isinstance(given, np.ndarray) else None
