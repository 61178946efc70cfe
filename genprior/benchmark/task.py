"""The task of an evaluation: operator, noise and prior, and whether they fit the images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from genprior.benchmark.dataset import Truth
from genprior.benchmark.items import digest
from genprior.benchmark.presets import PRESETS, preset
from genprior.checks import Shape
from genprior.devices import pick_device
from genprior.likelihoods import Likelihood
from genprior.measuring import as_noise
from genprior.operators.build import ALIASES, FOR_IMAGE, canonical
from genprior.operators.measurement import Measurement
from genprior.priors import store
from genprior.priors.base import Prior
from genprior.priors.find import as_prior
from genprior.priors.foreign.denoiser import DenoiserPrior
from genprior.record import noise_in_words
from genprior.registry import lookup
from genprior.scores import perceptual

SMALLEST = 11  # pixels a side, the window of SSIM


def find_task(
    op: Any, noise: float | Tensor | Likelihood | None, parameters: dict[str, Any], truths: list[Truth]
) -> tuple[Any, float | Likelihood, dict[str, Any]]:
    """Find the operator, noise and parameters of a task or preset; JPEG, which rounds, has noise 0.

    Raises:
        ValueError: there is no such operator or preset, or the noise is missing or not the same for all images.
    """
    if isinstance(op, str):
        lookup("operator or preset", op, {**FOR_IMAGE, **ALIASES, **PRESETS})
    if isinstance(op, str) and op in PRESETS:
        if parameters:
            raise ValueError(f"The preset {op} brings its own parameters; leave {', '.join(sorted(parameters))} out.")
        sides = sorted({min(truth.shape[1:]) for truth in truths})
        if len(sides) > 1:
            raise ValueError(f"A preset goes by the smaller side of the images, and there are {sides}; give crop=.")
        parameters = preset(op, sides[0])
        op, own = parameters.pop("op"), parameters.pop("noise")
        noise = own if noise is None else noise
    if noise is None and isinstance(op, str) and canonical(op) == "jpeg":
        noise = 0.0
    if noise is None:
        raise ValueError(
            "Give noise=, what to measure with: the standard deviation on [0, 1], such as 0.025, or a likelihood."
        )
    law = as_noise(noise)
    if isinstance(law, Tensor):
        raise ValueError(f"An evaluation has one noise level, a standard deviation; got {len(law)}.")
    if isinstance(law, Likelihood) and any(isinstance(value, Tensor) for _, value in law.named()):
        raise ValueError(f"An evaluation has one likelihood, of numbers, for all images; got {noise_in_words(law)}.")
    return op, law, parameters


def trials(measure: Callable[[Truth], Measurement], truths: list[Truth], lpips: bool) -> list[Measurement]:
    """Measure the first image of each shape, so that errors appear before anything is computed.

    Raises:
        ValueError: an image cannot be measured, or its measured frame is too small for the scores.
    """
    least = max(SMALLEST, perceptual.SMALLEST if lpips else 0)
    first: dict[Shape, Truth] = {}
    for truth in truths:
        first.setdefault(truth.shape, truth)
    made = []
    for truth in first.values():
        try:
            measurement = measure(truth)
        except ValueError as error:
            raise ValueError(f"image {truth.name}: {error}") from error
        H, W = measurement.operator.frame(truth.read()).shape[1:]
        if min(H, W) < least:
            needs = "SSIM and LPIPS need" if lpips else "SSIM needs"
            raise ValueError(
                f"image {truth.name}: {H} x {W} pixels of it are restored, and {needs} {least} x {least} at least; "
                "give larger images."
            )
        made.append(measurement)
    return made


def find_prior(prior: Any, shapes: set[Shape], device: str) -> tuple[Prior, dict[str, Any]]:
    """Find the prior, on its device, and what identifies it: its name and, if it is stored, its card's hash.

    Raises:
        TypeError, ValueError: it is not a prior, or images of those shapes need several priors.
    """
    if not isinstance(prior, str | Path):
        name = getattr(prior, "__name__", type(prior).__name__)
        return as_prior(prior, device, max(shapes)), {"name": name}
    folders = {store.find_prior(prior, shape): shape for shape in shapes}
    if len(folders) > 1:
        fitting = "; ".join(f"{folder.name} for {shape}" for folder, shape in folders.items())
        raise ValueError(f"The images call for several priors of the family {prior}: {fitting}. Name one of them.")
    (folder,) = folders
    name = str(prior) if Path(prior) == folder else folder.name
    card = store.read_card(folder)
    return store.load_prior(folder, pick_device(device)), {"name": name, "card_sha256": card.get("sha256")}


def prior_sha256(prior: Prior) -> str | None:
    """sha256 of the contents of a prior; None if it includes a function, whose code cannot be hashed."""
    parts = (part for part in prior.modules() if isinstance(part, DenoiserPrior))
    return digest(prior) if all(isinstance(part.denoiser, nn.Module) for part in parts) else None
