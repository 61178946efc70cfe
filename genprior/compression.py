"""JPEG compression as a measurement, from a file or simulated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genprior import images
from genprior.checks import Shape, as_integer
from genprior.files import replacing
from genprior.images.jpeg import Coefficients, JPEGLike, read_coefficients
from genprior.likelihoods import Likelihood, Quantised
from genprior.operators.jpeg import JPEG, SUBSAMPLINGS, TURNS
from genprior.operators.measurement import Measurement
from genprior.registry import lookup

LEVELS = 255  # grey levels per unit of x
ENCODER = {name: SUBSAMPLINGS[name] for name in ("4:4:4", "4:2:2", "4:2:0")}  # those that Pillow writes


def read_jpeg(image: JPEGLike | Sequence[JPEGLike]) -> Measurement:
    """Read the measurement in a JPEG file: y = A x, in cells as wide as the steps of its quantisation tables.

    The file was made from 8-bit pixels, and the encoder rounded their luma and chroma too, which the cells ignore:
    where steps are one or two levels, at a quality above 90, the picture itself may lie a step beyond its cell.

    Arguments:
        image: path, bytes of the file, the PIL image opened from it, or a list of these, of one size and one sampling.

    Returns:
        A measurement for `restore`, whose operator is a `JPEG` on the upright picture and whose noise is `Quantised`.

    Raises:
        TypeError, ValueError, OSError, UnsupportedError: as for `read_coefficients`.
    """
    return _measured(_files(image))


def measured(image: Any) -> tuple[Measurement, Callable[[Tensor], Any]]:
    """`read_jpeg`, and the way from restored images back to the kind that Pillow decodes, or a list of them."""
    files = _files(image)
    pictures = [file.picture for file in files]
    decoded = images.read(pictures if isinstance(image, list | tuple) else pictures[0])
    return _measured(files), decoded.emptied().like


def cut(measurement: Measurement, most: int) -> Measurement:
    """Cut the measurement of a JPEG file to the middle of its image, by whole blocks.

    Arguments:
        measurement: of `read_jpeg`.
        most: pixels a side, a multiple of 32, which blocks of every subsampling divide.
    """
    A, law = measurement.operator, measurement.noise
    assert isinstance(A, JPEG)
    assert isinstance(law, Quantised)
    C, *sides = A.image_shape
    within = JPEG((C, *(min(side, most) for side in sides)), A.subsampling, A.orientation)
    across, down = SUBSAMPLINGS[A.subsampling]
    stored = sides[::-1] if TURNS[A.orientation][0] else sides
    # in whole blocks of chroma; luma corners are `down` and `across` times as far
    top, left = (max(0, side - most) // 2 // (8 * cell) * 8 for side, cell in zip(stored, (down, across)))
    corners = [(top * down, left * across), (top, left), (top, left)]

    def part(values: Tensor) -> Tensor:
        planes = zip(A.split(values), corners, within.planes)
        return within.joined([p[:, 0, i : i + h, j : j + w] for p, (i, j), (h, w) in planes])

    return Measurement(part(measurement.y), within, Quantised(part(torch.as_tensor(law.step))))


def compress(x: Tensor, *, quality: int = 75, subsampling: str = "4:2:0") -> Measurement:
    """Simulate the measurement in a JPEG file of x, with the tables of Pillow's encoder and only their rounding.

    Arguments:
        x: (B, C, H, W) in [0, 1].
        quality: 1 to 100, on libjpeg's scale.
        subsampling: of chroma: "4:4:4", "4:2:2" or "4:2:0".

    Raises:
        ValueError: quality or subsampling is none of these.
    """
    lookup("subsampling", subsampling, ENCODER)
    operator = JPEG(tuple(x.shape[1:]), subsampling)
    step = steps(operator, quality).to(x)
    offset = operator.offset.to(x)
    return Measurement(offset + step * ((operator(x) - offset) / step).round(), operator, Quantised(step))


def compressed(x: Tensor, noise: float | Tensor | Likelihood, parameters: dict[str, Any]) -> Measurement:
    """`compress`, after checking its parameters and the noise that `degrade` was given."""
    if isinstance(noise, Likelihood | Tensor) or noise != 0:
        raise ValueError(f"jpeg rounds its coefficients and adds no other noise: leave noise={noise} out.")
    if others := sorted(parameters.keys() - {"quality", "subsampling"}):
        raise TypeError(f"jpeg takes quality, subsampling; got {', '.join(others)}.")
    return compress(x, **parameters)


def save(image: Image.Image, path: Path, *, quality: int = 75, subsampling: str = "4:2:0") -> None:
    """Write an image as a JPEG file with Pillow's encoder, all or nothing; arguments as for `compress`."""
    lookup("subsampling", subsampling, ENCODER)
    quality = as_integer("quality", quality, 1, 100)
    with replacing(path) as file:
        image.save(file, "JPEG", quality=quality, subsampling=subsampling)


def steps(operator: JPEG, quality: int) -> Tensor:
    """The steps of Pillow's encoder, (1, 1, 1, N) float32 in the units of x; arguments as for `compress`."""
    luma, chroma = _tables(as_integer("quality", quality, 1, 100))
    return _on_planes(operator, [luma, chroma, chroma])


@cache
def _tables(quality: int) -> tuple[np.ndarray, np.ndarray]:
    """The quantisation tables of luma and chroma, (8, 8) each."""
    file = BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
    tables = Image.open(file).quantization  # pyright: ignore[reportAttributeAccessIssue]
    luma, chroma = (np.array(tables[number]).reshape(8, 8) for number in (0, 1))
    return luma, chroma


def _on_planes(operator: JPEG, tables: list[np.ndarray]) -> Tensor:
    """The step of each coefficient of y."""
    whole = [torch.from_numpy(np.tile(t, (h // 8, w // 8))) for t, (h, w) in zip(tables, operator.planes)]
    return operator.joined([plane[None].float() for plane in whole]) / LEVELS


def _files(image: Any) -> list[Coefficients]:
    if not isinstance(image, list | tuple):
        return [read_coefficients(image)]
    if not image:
        raise ValueError("the list is empty; give at least one JPEG file.")
    files = []
    for k, each in enumerate(image):
        try:
            files.append(read_coefficients(each))
        except (TypeError, ValueError) as error:
            raise type(error)(f"image {k} of the list: {error}") from error
    return files


def _measured(files: list[Coefficients]) -> Measurement:
    kinds = [_kind(file) for file in files]
    for k, kind in enumerate(kinds):
        if kind != kinds[0]:
            raise ValueError(
                f"a list is one batch, but item 0 is {_told(*kinds[0])} and item {k} is {_told(*kind)}: give them one "
                "at a time."
            )
    operator = JPEG(*kinds[0])
    levels = torch.cat([operator.joined([torch.from_numpy(p)[None].float() for p in file.planes]) for file in files])
    step = torch.cat([_on_planes(operator, file.steps) for file in files])
    return Measurement(operator.offset + step * levels, operator, Quantised(step))


def _kind(file: Coefficients) -> tuple[Shape, str, int]:
    """Image shape, subsampling and orientation: the arguments of the operator."""
    names = {cell: name for name, cell in SUBSAMPLINGS.items()}
    if file.cell not in names:
        across, down = file.cell
        raise ValueError(
            f"the JPEG file has samples of chroma of {across} x {down} pixels; read are {', '.join(names.values())}."
        )
    W, H = file.picture.size
    stored = (len(file.planes), H, W)
    shape = (stored[0], W, H) if TURNS[file.orientation][0] else stored
    return shape, names[file.cell], file.orientation


def _told(shape: Shape, subsampling: str, orientation: int) -> str:
    return f"{' x '.join(map(str, shape))} (channels x height x width), {subsampling}, of orientation {orientation}"
