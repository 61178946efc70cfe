"""Checkpoints: folders of safetensors and JSON that are either complete or not there.

A folder is written under a temporary name, flushed to disk, and renamed; a reader never sees half of one.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Fill `folder` by `write(temporary)` and put it in place at once, replacing what was there."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write(temporary)
    for path in temporary.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    if folder.exists():
        old = folder.with_name(f".{folder.name}.{os.getpid()}.old.tmp")
        os.replace(folder, old)
        os.replace(temporary, folder)
        shutil.rmtree(old)
    else:
        os.replace(temporary, folder)


def save(folder: Path, step: int, modules: dict[str, nn.Module], optimizers: list[torch.optim.Optimizer]) -> None:
    """Write modules, optimisers and the step number to `folder`."""
    tensors = {f"{name}/{key}": t for name, m in modules.items() for key, t in m.state_dict().items()}
    for i, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer {i}/{index}/{key}": torch.as_tensor(value) for key, value in state.items()}

    def write(temporary: Path) -> None:
        save_file({key: t.detach().cpu().contiguous().clone() for key, t in tensors.items()}, temporary / "state.safetensors")
        (temporary / "state.json").write_text(json.dumps({"step": step}))

    write_folder(folder, write)


def load(folder: Path, modules: dict[str, nn.Module], optimizers: list[torch.optim.Optimizer]) -> int:
    """Restore what `save` wrote, in place; returns the step number."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in load_file(folder / "state.safetensors").items():
        group, key = name.split("/", 1)
        groups.setdefault(group, {})[key] = tensor
    for name, module in modules.items():
        module.load_state_dict(groups[name])
    for i, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in groups.get(f"optimizer {i}", {}).items():
            index, key = name.split("/")
            state.setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return json.loads((folder / "state.json").read_text())["step"]


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint among `folder`/step-*, or None."""
    complete = [p for p in folder.glob("step-*") if (p / "state.json").exists()]
    return max(complete, key=lambda p: int(p.name.removeprefix("step-")), default=None)


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints."""
    complete = sorted(folder.glob("step-*"), key=lambda p: int(p.name.removeprefix("step-")))
    for path in complete[:-keep]:
        shutil.rmtree(path)
