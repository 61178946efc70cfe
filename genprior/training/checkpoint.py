"""Checkpoints: folders of safetensors and JSON that are either complete or not there.

A folder is written under a temporary name, flushed to disk, and renamed; a reader never sees half of one.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def save(
    folder: Path,
    step: int,
    settings: dict[str, Any],
    modules: dict[str, nn.Module],
    optimizers: list[torch.optim.Optimizer],
) -> None:
    """Write modules, optimisers, the step number and the settings of the run to `folder`."""
    tensors = _tensors(modules)
    for i, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer {i}/{index}/{key}": torch.as_tensor(value) for key, value in state.items()}

    def write(temporary: Path) -> None:
        save_file(
            {key: t.detach().cpu().contiguous().clone() for key, t in tensors.items()}, temporary / "state.safetensors"
        )
        (temporary / "state.json").write_text(json.dumps({"step": step, "settings": settings}))

    write_folder(folder, write)


def load(folder: Path, modules: dict[str, nn.Module], optimizers: list[torch.optim.Optimizer]) -> int:
    """Restore what `save` wrote, in place; returns the step number.

    Raises:
        ValueError: the modules are not those that were saved; they stay as they are.
    """
    tensors = load_file(folder / "state.safetensors")
    found = {name: tuple(t.shape) for name, t in tensors.items() if not name.startswith("optimizer ")}
    wanted = {name: tuple(t.shape) for name, t in _tensors(modules).items()}
    odd = sorted(name for name in found | wanted if found.get(name) != wanted.get(name))
    if odd:
        raise ValueError(
            f"The checkpoint {folder} is of another network: its {odd[0]} has the shape {found.get(odd[0])}, not "
            f"{wanted.get(odd[0])}; give the network that it was made of, or another folder."
        )
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        group, key = name.split("/", 1)
        groups.setdefault(group, {})[key] = tensor
    for name, module in modules.items():
        module.load_state_dict(groups[name])
    for i, optimizer in enumerate(optimizers):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in groups.get(f"optimizer {i}", {}).items():
            index, key = name.split("/")
            state.setdefault(int(index), {})[key] = _laid_out_like(parameters[int(index)], tensor)
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return progress(folder)[0]


def progress(folder: Path) -> tuple[int, dict[str, Any]]:
    """The step number and the settings that `save` wrote."""
    state = json.loads((folder / "state.json").read_text())
    if "settings" not in state:
        raise ValueError(f"The checkpoint {folder} does not say its settings; train in another folder.")
    return state["step"], state["settings"]


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint among `folder`/step-*, or None."""
    return max(_complete(folder), key=_step, default=None)


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints, and what killed runs left half-written."""
    for path in sorted(_complete(folder), key=_step)[:-keep]:
        shutil.rmtree(path)
    for path in folder.glob(".step-*.tmp"):
        shutil.rmtree(path)


def _tensors(modules: dict[str, nn.Module]) -> dict[str, Tensor]:
    return {f"{name}/{key}": t for name, m in modules.items() for key, t in m.state_dict().items()}


def _complete(folder: Path) -> list[Path]:
    return [p for p in folder.glob("step-*") if (p / "state.json").exists()]


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _laid_out_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """The tensor in the parameter's memory format, in which the optimiser made it."""
    return torch.empty_like(parameter).copy_(tensor) if tensor.shape == parameter.shape else tensor
