"""The record of a run, in JSON and arrays: enough to draw the same samples again."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import itertools
import platform
from typing import Any

import numpy as np
import torch

import genprior
from genprior.devices import device_of
from genprior.files import sha256
from genprior.likelihoods import Likelihood
from genprior.nets.wrapped import plain_state
from genprior.operators.base import Operator
from genprior.priors.base import Prior
from genprior.samplers import SAMPLERS
from genprior.samplers.base import Sampler


def versions(*packages: str) -> dict[str, str]:
    """The versions of this package and of others, by their names on PyPI."""
    found = {"genprior": genprior.__version__}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def machine(device: torch.device, processes: int) -> dict[str, Any]:
    """The machine on which figures are measured."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "name": f"{device.type}, {name}",
        "processes": processes,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def of_operator(operator: Operator) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Class and parameters of an operator, and its arrays: a mask, a kernel, a matrix.

    For an operator made of others, such as a composition, theirs have names such as "inner.kernel".
    """
    parameters: dict[str, Any] = {"class": type(operator).__name__}
    arrays = {}
    for name, value in vars(operator).items():
        if name.startswith("_"):
            continue
        if isinstance(value, torch.Tensor):
            arrays[name] = value.cpu().numpy()
        elif isinstance(value, Operator):
            parameters[name], inner = of_operator(value)
            arrays |= {f"{name}.{key}": array for key, array in inner.items()}
        else:
            parameters[name] = value
    return parameters, arrays


def of_noise(noise: float | torch.Tensor | Likelihood) -> tuple[Any, dict[str, np.ndarray]]:
    """The noise for JSON, one or more numbers or the class and parameters of a likelihood; and its arrays by name."""
    if not isinstance(noise, Likelihood):
        level = torch.as_tensor(noise, dtype=torch.float64).cpu()
        return (level.item() if level.numel() == 1 else level.flatten().tolist()), {"noise": level.numpy()}
    values = dict(noise.named())
    arrays = {f"noise.{name}": torch.as_tensor(value).cpu().numpy() for name, value in values.items()}
    return {"class": type(noise).__name__, **{k: v for k, v in values.items() if isinstance(v, float)}}, arrays


def noise_in_words(noise: float | torch.Tensor | Likelihood) -> str:
    """The distinct standard deviations, in order; or the likelihood with its parameters, tensors by their shapes."""
    if not isinstance(noise, Likelihood):
        return ", ".join(f"{level:.4g}" for level in sorted(set(torch.as_tensor(noise).flatten().tolist())))
    told = (f"{k} {tuple(v.shape)}" if isinstance(v, torch.Tensor) else f"{k}={v:.4g}" for k, v in noise.named())
    return f"{type(noise).__name__}({', '.join(told)})"


def of_sampler(sampler: Sampler) -> dict[str, Any]:
    """The name of a sampler (None for a user's own), its class, and its parameters, which may be samplers too."""
    values = {field.name: getattr(sampler, field.name) for field in dataclasses.fields(sampler)}
    return {
        "name": next((name for name, kind in SAMPLERS.items() if kind is type(sampler)), None),
        "class": type(sampler).__name__,
        "parameters": {key: of_sampler(v) if isinstance(v, Sampler) else v for key, v in values.items()},
    }


def of_prior(prior: Prior) -> dict[str, Any]:
    """Class of a prior, shape of its images, its device, precision and revision, and the hash of its weights."""
    state = plain_state(prior)
    return {
        "class": type(prior).__name__,
        "image_shape": prior.image_shape,
        "device": str(device_of(prior)),
        "autocast": None if prior.autocast is None else str(prior.autocast).removeprefix("torch."),
        "revision": prior.revision,
        "weights_sha256": weights_hash(state),
    }


def weights_hash(state: dict[str, torch.Tensor]) -> str:
    """SHA-256 of the names, dtypes, shapes and values of tensors, whatever their device and memory format."""
    named = ((f"{name} {t.dtype} {tuple(t.shape)}", t) for name, t in sorted(state.items()))
    return sha256(*itertools.chain.from_iterable(named))
