"""Turn the argument `prior=` into a prior: a name, a folder, a `Prior`, or a network of another library."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from genprior.ambient import differentiable
from genprior.checks import Shape
from genprior.devices import pick_device
from genprior.images import kind_of
from genprior.nets.wrapped import unwrapped
from genprior.priors.base import Prior
from genprior.priors.foreign.denoiser import from_denoiser
from genprior.priors.foreign.diffusers import from_diffusers, is_of_diffusers
from genprior.priors.foreign.weights import ADVICE
from genprior.priors.store import find_prior, load_prior


def as_prior(prior: Any, device: str | torch.device, image_shape: Shape) -> Prior:
    """Return the prior for that argument of `restore`, on that device."""
    if isinstance(unwrapped(prior), Prior):
        prior = unwrapped(prior)
    if isinstance(prior, Prior):
        return differentiable(prior if device == "auto" else prior.to(pick_device(device)))
    if not isinstance(prior, str | Path):
        return as_prior(_foreign(prior, image_shape), device, image_shape)
    folder = find_prior(prior, image_shape)
    # files in the Hub's cache are links, whose targets have no suffix
    folder = folder.absolute() if folder.is_file() else folder.resolve()
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else [folder]
    content = tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in files)
    found, as_loaded = _loaded(folder, content, pick_device(device))
    if _state(found) != as_loaded:  # every result holds this prior, and one of them was used to change it
        _loaded.cache_clear()
        found, _ = _loaded(folder, content, pick_device(device))
    return found


def _foreign(given: Any, image_shape: Shape) -> Prior:
    """Return the prior of a diffusers pipeline or network, or of a denoiser of images with that many channels."""
    if is_of_diffusers(given):
        return from_diffusers(given)
    if callable(given) and not isinstance(given, type):
        denoiser = from_denoiser(given, (image_shape[0], None, None))  # pyright: ignore[reportArgumentType]
        denoiser.check(*image_shape[1:])  # for a network that takes images of one size only
        return denoiser
    advice = f" {ADVICE}" if isinstance(given, Mapping) else ""
    raise TypeError(f"prior is a name, a folder, a checkpoint, a Prior or a denoiser, not {kind_of(given)}.{advice}")


@functools.lru_cache(maxsize=2)
def _loaded(folder: Path, content: tuple, device: torch.device) -> tuple[Prior, list[tuple]]:
    """Load the prior in a folder or file, and cache it, with its state, as long as the files are the same."""
    prior = load_prior(folder, device)
    return prior, _state(prior)


def _state(prior: Prior) -> list[tuple]:
    """What shows that tensors of the prior were changed: torch counts changes in place."""
    return [(each.data_ptr(), each.dtype, each._version) for each in (*prior.parameters(), *prior.buffers())]
