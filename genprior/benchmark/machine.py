"""What a computation ran on."""

from __future__ import annotations

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
