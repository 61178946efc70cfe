"""Draw any number of samples of any size, in chunks and tiles that fit into memory, with a progress bar."""

from __future__ import annotations

import contextlib
import copy
import math
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from tqdm.auto import tqdm

from genprior import plausible
from genprior.cells import in_cells
from genprior.checks import Shape, UnsupportedError, as_integer
from genprior.devices import rows_at_once, state_of, tile_side
from genprior.likelihoods import Quantised
from genprior.noise import Noise
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.priors.wrappers.tiled import Tiled
from genprior.samplers.base import Sampler


def in_tiles(prior: Prior, tile: int | None, sampler: Sampler, image_shape: Shape) -> Prior:
    """The prior, denoising in tiles of that side; None takes the largest tiles that fit, if the image is larger."""
    if tile is not None:
        tile = as_integer("tile, the side of the tiles in pixels,", tile, 1, math.inf)
        if sampler.needs != "denoise":
            raise UnsupportedError(
                f"{type(sampler).__name__} does not denoise, so that nothing is there to tile: leave tile={tile} out."
            )
        return Tiled(prior.prior, tile, prior.overlap) if isinstance(prior, Tiled) else Tiled(prior, tile)
    largest = tile_side(state_of(prior).device)
    small = image_shape[1] * image_shape[2] <= largest**2
    return prior if small or isinstance(prior, Tiled) or not _is_local(prior, sampler) else Tiled(prior, largest)


def _is_local(prior: Prior, sampler: Sampler) -> bool:
    """Whether tiles make no difference."""
    return sampler.needs == "denoise" and prior.reach is not None and None in prior.image_shape[1:]


def draw(
    prior: Prior, measurement: Measurement, sampler: Sampler, n: int, seed: int, progress: bool
) -> tuple[Tensor, dict[str, Tensor], Prior]:
    """Draw n samples of every image, (B, n, C, H, W) on the CPU; also return diagnostics, (B, n), and the prior used.

    If the memory of a GPU does not suffice, that is one with half the tile.
    """
    try:
        return *_draw_once(prior, measurement, sampler, n, seed, progress), prior
    except torch.OutOfMemoryError:
        halved = _halved(prior, sampler, measurement.operator.image_shape)
        if halved is None:
            raise
        prior = halved
        warnings.warn(
            f"The device ran out of memory. Once more, with tiles of {prior.tile} x {prior.tile}: give tile="
            f"{prior.tile} to have them at once.",
            stacklevel=5,
        )
    torch.cuda.empty_cache()  # outside the handler, whose error still holds the tensors of the first attempt
    return *_draw_once(prior, measurement, sampler, n, seed, progress), prior


def _halved(prior: Prior, sampler: Sampler, image_shape: Shape) -> Tiled | None:
    """The prior with half the tile, or tiles of half an image that was denoised whole; None if that is impossible."""
    try:
        if isinstance(prior, Tiled):
            return Tiled(prior.prior, prior.side(*image_shape[1:]) // 2, prior.overlap)
        return Tiled(prior, max(image_shape[1:]) // 2) if _is_local(prior, sampler) else None
    except ValueError:
        return None


def _draw_once(
    prior: Prior, measurement: Measurement, sampler: Sampler, n: int, seed: int, progress: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """`draw` with this prior only, in chunks that fit into memory."""
    A, state = measurement.operator, state_of(prior)
    device = state.device
    image = torch.arange(len(measurement.y)).repeat_interleave(n)
    sample = torch.arange(n).repeat(len(measurement.y))
    at_once = n if sampler.clouds else max(1, rows_at_once(A.image_shape, device) // sampler.chains(1))
    chunks = torch.arange(len(image)).split(at_once)
    draws, told = [], []
    prior = prior.sized(*A.image_shape[1:])
    tiles = prior.tiles(*A.image_shape[1:]) if isinstance(prior, Tiled) else 1
    total = len(measurement.y) * sampler.chains(n) * sampler.calls * tiles
    with torch.no_grad(), _watched(prior, sampler.needs, total, progress) as prior:
        for rows in chunks:
            part = measurement.select(image[rows]).to(state)
            # Image 0 is left to `prior.sample`, so that its draws with the same seed are independent of these.
            x, diagnostics = sampler.draw(prior, part, Noise(seed, image[rows] + 1, sample[rows]))
            if not torch.isfinite(x).all():
                raise FloatingPointError(
                    f"{sampler} diverged: its samples are not finite. Check noise={measurement.noise}, or try more "
                    "steps or another sampler."
                )
            if isinstance(part.noise, Quantised):
                x = in_cells(x, part)
            draws.append(A.frame(x).float().cpu())
            told.append(plausible.figures(x, part, prior) | diagnostics)
    figures = {name: torch.cat([each[name].float().cpu() for each in told]) for name in told[0]}
    figures = {name: rearrange(each, "(b n) -> b n", n=n) for name, each in figures.items()}
    return rearrange(torch.cat(draws), "(b n) c h w -> b n c h w", n=n), figures


@contextlib.contextmanager
def _watched(prior: Prior, method: str, total: int, shown: bool) -> Iterator[Prior]:
    """The prior, with a bar that moves with every call of `method`, or every tile of a tiled prior."""
    if not (shown and total):
        yield prior
        return
    with tqdm(total=total, desc="restore", disable=None, leave=False) as bar:

        def call(*arguments: Any) -> Any:
            result = getattr(prior, method)(*arguments)
            bar.update(len(arguments[0]))
            return result

        watched = copy.copy(prior)  # shares its networks; the user's prior is left alone
        if isinstance(prior, Tiled):
            watched.watch = bar.update  # pyright: ignore[reportArgumentType]
        else:
            setattr(watched, method, call)
        yield watched
