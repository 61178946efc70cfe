"""The summary that a run prints before it begins."""

from pathlib import Path

import torch
from torch import nn

from genprior.devices import device_name
from genprior.training.precision import precision_name
from genprior.training.settings import Settings


def banner(
    settings: Settings,
    objectives: list[nn.Module],
    images: int,
    held_out: int,
    start: int,
    dtype: torch.dtype | None,
    accelerator,
    out: Path,
) -> str:
    """Return what is trained, on which data, how and where, one line each."""
    processes = accelerator.num_processes
    micro_batch = settings.batch // (processes * settings.accumulate)
    rows = {
        "images": f"{images:,}, and {held_out:,} held out" if held_out else f"{images:,}",
        "batch": f"{settings.batch} = {processes} process(es) x {settings.accumulate} micro-batch(es) x {micro_batch}",
        "steps": f"{start:,} to {steps(settings, images)}",
        "parameters": f"{parameter_count(objectives):,} trained",
        "device": f"{device_name(accelerator.device)}, {precision_name(dtype)}" + ", compiled" * settings.compile,
        "folder": f"{out}, saved every {settings.save_every} steps; call again to go on",
    }
    return "\n".join(f"{name:>10}  {text}" for name, text in rows.items())


def steps(settings: Settings, images: int) -> str:
    """Return the number of steps, as far as it is known before any are timed."""
    if settings.minutes is not None:
        return f"what fits into {settings.minutes:g} minutes, at most {settings.steps:,}"
    return f"{settings.steps:,}, {settings.steps * settings.batch / images:.3g} epochs in all"


def parameter_count(objectives: list[nn.Module]) -> int:
    """Return the number of trained parameters, counting those that objectives share once."""
    trained = {p for objective in objectives for p in objective.parameters() if p.requires_grad}
    return sum(p.numel() for p in trained)
