"""genprior info: versions, devices and folders, for bug reports."""

from __future__ import annotations

import argparse
import json
import platform
from typing import Any

PACKAGES = (
    "torch",
    "numpy",
    "pillow",
    "deepinv",
    "kornia",
    "accelerate",
    "scikit-image",
    "diffusers",
    "gradio",
    "lpips",
)


def add(parser: argparse.ArgumentParser) -> None:
    """`genprior info`."""
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(options: argparse.Namespace) -> int:
    found = {"versions": _versions(), "devices": _devices(), "folders": _folders()}
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    for title, entries in found.items():
        print(title)
        for name, value in entries.items():
            told = value if isinstance(value, str) else ", ".join(f"{key} {each}" for key, each in value.items())
            print(f"  {name:14} {told}")
    return 0


def _versions() -> dict[str, str]:
    from genprior.record import versions

    return {"python": platform.python_version(), "platform": platform.platform(), **versions(*PACKAGES)}


def _devices() -> dict[str, dict[str, Any]]:
    import psutil
    import torch

    from genprior.devices import has_bfloat16, pick_device

    found: dict[str, dict[str, Any]] = {}
    for k in range(torch.cuda.device_count()):
        device = torch.device("cuda", k)
        free, total = torch.cuda.mem_get_info(device)
        found[str(device)] = {"name": torch.cuda.get_device_name(device), **_memory(free, total)}
    if torch.backends.mps.is_available():
        found["mps"] = {}
    ram = psutil.virtual_memory()
    found["cpu"] = {"threads": torch.get_num_threads(), **_memory(ram.available, ram.total)}
    for name, told in found.items():
        told["bfloat16"] = "yes" if has_bfloat16(torch.device(name)) else "no"
    return found | {"auto": {"is": str(pick_device("auto"))}}


def _memory(free: int, total: int) -> dict[str, str]:
    return {"memory": f"{total / 2**30:.1f} GiB", "free": f"{free / 2**30:.1f} GiB"}


def _folders() -> dict[str, str]:
    import torch
    from huggingface_hub.constants import HF_HUB_CACHE

    from genprior.priors.store import BUNDLED

    return {"bundled priors": str(BUNDLED), "Hub's cache": str(HF_HUB_CACHE), "torch's cache": torch.hub.get_dir()}
