"""What a computation ran on: processes, device, memory, versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from datetime import timedelta
from typing import Any

import torch

from genprior.priors.base import Prior
from genprior.restoration import pick_device


class Alone:
    """One process, in the words of accelerate's PartialState."""

    process_index = 0
    num_processes = 1
    is_main_process = True

    def wait_for_everyone(self) -> None:
        """Nobody to wait for."""


def processes(device: str) -> Any:
    """The processes that torchrun or accelerate started, as a PartialState; `Alone` without them.

    Accelerate keeps one state for the whole process, so it is left alone where there is nothing to share.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return Alone()
    from accelerate import PartialState

    # They wait for the slowest of them, which may take days.
    return PartialState(cpu=pick_device(device).type == "cpu", timeout=timedelta(days=30))


def device_of(prior: Prior) -> torch.device:
    """Where a prior lies and computes."""
    return next((t.device for t in (*prior.parameters(), *prior.buffers())), torch.device("cpu"))


def machine(device: torch.device, processes: int) -> dict[str, Any]:
    """What to say of where figures were measured."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "name": f"{device.type}, {name}",
        "processes": processes,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def versions(*extras: str) -> dict[str, str]:
    """Of the packages that figures depend on."""
    import genprior

    others = ("torch", "deepinv", "kornia", "scikit-image", *extras)
    return {"genprior": genprior.__version__} | {name: importlib.metadata.version(name) for name in others}
