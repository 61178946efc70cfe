"""What a computation ran on: device, threads, versions."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

import torch


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
