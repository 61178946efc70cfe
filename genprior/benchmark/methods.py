"""The methods that an evaluation compares, samplers and classical methods alike, and the figures it computes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from genprior.benchmark.baselines import BASELINES, Baseline
from genprior.devices import device_of
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.registry import lookup
from genprior.restoration import restore
from genprior.samplers import find_sampler
from genprior.samplers.base import Sampler
from genprior.scores import perceptual
from genprior.scores.metrics import psnr, ssim
from genprior.scores.uncertainty import coverage, crps, widest


def coverage_level(n: int) -> float:
    """The level of the interval whose coverage is measured: 0.9, or, below 19 samples, the widest they determine."""
    return min(0.9, widest(n))


@dataclass(frozen=True)
class Outcome:
    """The output of a method for a measurement.

    Attributes:
        mean: its estimate, (C, H, W), in the measured frame.
        samples: (n, C, H, W), or None if the method draws none.
        evaluations: network evaluations for all samples.
        seconds: time for all samples.
    """

    mean: Tensor
    samples: Tensor | None
    evaluations: int
    seconds: float


@dataclass(frozen=True)
class Method:
    """A map from measurement to image.

    Attributes:
        name: for tables and files.
        definition: the method with all its parameters, in words: methods with the same definition do the same.
        device: where it computes.
        run: (measurement, truth, seed) -> outcome; only oracles use the truth.
    """

    name: str
    definition: str
    device: torch.device
    run: Callable[[Measurement, Tensor, int], Outcome]


def find_methods(
    sampler: str | Sampler | Sequence[str | Sampler],
    baselines: str | Sequence[str],
    prior: Prior,
    steps: int | None,
    n: int,
) -> list[Method]:
    """Find samplers and baselines by name; samplers may also be objects; each appears once.

    Raises:
        ValueError: there is no such name, or a sampler does not accept that number of steps.
        UnsupportedError: "auto" finds no sampler for the prior.
    """
    found: dict[str, Method] = {}
    for given in [sampler] if isinstance(sampler, str | Sampler) else sampler:
        chosen = find_sampler(given, prior, steps)
        name = given if isinstance(given, str) else str(given)  # an object is identified by its parameters
        definition = f"auto: {chosen}, and a picture" if given == "auto" else str(chosen)
        run = partial(_sample, prior=prior, sampler=given if given == "auto" else chosen, steps=steps, n=n)
        found[name] = Method(name, definition, device_of(prior), run)
    for name in [baselines] if isinstance(baselines, str) else baselines:
        baseline = lookup("baseline", name, BASELINES)
        found[name] = Method(name, "classical", torch.device("cpu"), partial(_classical, baseline=baseline))
    if not found:
        raise ValueError("There is nothing to evaluate: give a sampler or a baseline.")
    return list(found.values())


def figures(outcome: Outcome, truth: Tensor, lpips: bool, holes: Tensor | None = None) -> dict[str, Any]:
    """The figures of one image; coverage and CRPS need at least two samples.

    Arguments:
        holes: where the image was unknown, (1 or C, H, W), to measure PSNR there separately too; or None.
    """
    samples = outcome.samples
    found: dict[str, Any] = {}
    for kind, x in {"sample": None if samples is None else samples[0], "mean": outcome.mean}.items():
        if x is None:
            continue
        found[f"psnr_{kind}"] = float(psnr(x, truth))
        found[f"ssim_{kind}"] = float(ssim(x, truth))
        if holes is not None and holes.any():
            found[f"psnr_holes_{kind}"] = float(psnr(_inside(x, holes), _inside(truth, holes)))
        if lpips:
            found[f"lpips_{kind}"] = perceptual.lpips(x, truth)
    if samples is not None and len(samples) > 1:
        found["coverage"] = float(coverage(samples[None], truth[None], coverage_level(len(samples))))
        found["crps"] = float(crps(samples[None], truth[None]))
    return found | {"evaluations": outcome.evaluations, "seconds": outcome.seconds}


def _inside(x: Tensor, holes: Tensor) -> Tensor:
    """The values of x in the holes, as an image (1, 1, N)."""
    return x[holes.expand_as(x)][None, None]


def _sample(
    measurement: Measurement,
    truth: Tensor,
    seed: int,
    prior: Prior,
    sampler: str | Sampler,
    steps: int | None,
    n: int,
) -> Outcome:
    result = restore(measurement, prior=prior, sampler=sampler, steps=steps, n=n, seed=seed, progress=False)
    return Outcome(result.mean, result.samples, result.network_evaluations, result.seconds)


def _classical(measurement: Measurement, truth: Tensor, seed: int, baseline: Baseline) -> Outcome:
    began = time.perf_counter()
    x = baseline(measurement, truth)
    return Outcome(x, None, 0, time.perf_counter() - began)
