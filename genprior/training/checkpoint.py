"""Checkpoints: folders of safetensors and JSON that are either complete or absent.

`complete.json`, written last, holds the hash of every file, so that later damage is detected too.
"""

import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from genprior.files import sha256, write_folder

MARKER = "complete.json"


def save(
    folder: Path,
    state: dict[str, Any],
    modules: Mapping[str, nn.Module],
    optimizers: Sequence[torch.optim.Optimizer],
    beside: Callable[[Path], None] = lambda folder: None,
) -> None:
    """Write modules, optimisers, the state of the run, and the files that `beside` writes, to `folder`."""
    tensors = _tensors(modules)
    for i, optimizer in enumerate(optimizers):
        for index, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer {i}/{index}/{key}": torch.as_tensor(value) for key, value in moments.items()}

    def write(temporary: Path) -> None:
        save_file(
            {key: t.detach().cpu().contiguous().clone() for key, t in tensors.items()}, temporary / "state.safetensors"
        )
        (temporary / "state.json").write_text(json.dumps(state))
        beside(temporary)
        mark_complete(temporary)

    write_folder(folder, write)


def load(folder: Path, modules: Mapping[str, nn.Module], optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Restore, in place, modules and optimisers that `save` wrote.

    Raises:
        ValueError: the modules do not match the saved ones; nothing is restored.
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


def load_sound(folder: Path, modules: Mapping[str, nn.Module], optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Check the files against their hashes, then `load`.

    Raises:
        ValueError: the files are damaged, or as for `load`.
    """
    if reason := damage(folder):
        raise ValueError(f"The checkpoint {folder}, the best, is damaged: {reason}.")
    load(folder, modules, optimizers)


def read_state(folder: Path) -> dict[str, Any]:
    """The state of the run that `save` wrote."""
    return json.loads((folder / "state.json").read_text())


def mark_complete(folder: Path) -> None:
    """Write the hashes of all files of `folder` into it; without them a checkpoint counts as damaged."""
    hashes = {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.name != MARKER}
    (folder / MARKER).write_text(json.dumps(hashes))


def damage(folder: Path) -> str | None:
    """What is wrong with the files of a checkpoint, or None."""
    try:
        hashes = json.loads((folder / MARKER).read_text())
        changed = [name for name, hashed in hashes.items() if sha256(folder / name) != hashed]
    except (OSError, ValueError, AttributeError) as error:
        return str(error)
    return f"{', '.join(changed)} changed since it was written" if changed else None


def latest(folder: Path) -> Path | None:
    """Return the newest undamaged checkpoint among `folder`/step-*, or None if there are no checkpoints.

    Damaged newer ones are renamed to damaged-step-*, with a warning for each.

    Raises:
        ValueError: all checkpoints are damaged.
    """
    found = sorted(_checkpoints(folder), key=step_of, reverse=True)
    damaged = {}
    for sound in found:
        if not (reason := damage(sound)):
            break
        damaged[sound] = reason
    else:
        if found:
            raise ValueError(
                f"Every checkpoint in {folder} is damaged ({found[0].name}: {damaged[found[0]]}); remove them to begin "
                "anew, or train in another folder."
            )
        return None
    for path, reason in damaged.items():
        aside = path.with_name(f"damaged-{path.name}")
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(path, aside)
        warnings.warn(
            f"The checkpoint {path} is damaged ({reason}); it is now called {aside.name}, and training goes on from "
            f"{sound.name}.",
            stacklevel=2,
        )
    return sound


def prune(folder: Path, keep: int, best: int | None = None) -> None:
    """Remove all but the newest `keep` checkpoints and that of step `best`, and what killed runs left unfinished."""
    for path in sorted(_checkpoints(folder), key=step_of)[:-keep]:
        if step_of(path) != best:
            # Rename first: a folder that a kill leaves half-removed must not look like a checkpoint.
            os.replace(path, path.with_name(f".{path.name}.pruned.tmp"))
    for path in [*folder.glob(".step-*.tmp"), *folder.glob(".prior.*.tmp")]:
        shutil.rmtree(path)


def path_of(folder: Path, step: int) -> Path:
    """Return the folder of a step's checkpoint."""
    return folder / f"step-{step:07d}"


def step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _checkpoints(folder: Path) -> list[Path]:
    return [path for path in folder.glob("step-*") if path.name.removeprefix("step-").isdigit()]


def _tensors(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    return {f"{name}/{key}": t for name, m in modules.items() for key, t in m.state_dict().items()}


def _laid_out_like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """Return the tensor in the parameter's memory format, the one in which the optimiser created it."""
    return torch.empty_like(parameter).copy_(tensor) if tensor.shape == parameter.shape else tensor
