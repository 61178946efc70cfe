"""Priors on disk: a folder of config.json (family and arguments), model.safetensors (weights), card.json (origin).

No code is loaded from a folder, and no pickle: the family is looked up by name and built from checked arguments.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from genprior.priors.base import Prior
from genprior.priors.ddpm import DDPM
from genprior.registry import lookup

FORMAT = 1
FAMILIES: dict[str, type[Prior]] = {"ddpm": DDPM}
BUNDLED = Path(__file__).parent / "bundled"


def write_prior(prior: Prior, folder: Path, card: dict[str, Any], *, half: bool = False) -> None:
    """Write `prior` to the existing, empty `folder`.

    Arguments:
        card: what a user should know: data, licence, steps, seed, seconds, device, metrics. A hash of the weights
            is added.
        half: store the weights in float16, half the size; they are read back as float32.
    """
    family = next((name for name, cls in FAMILIES.items() if type(prior) is cls), None)
    if family is None:
        raise ValueError(f"A {type(prior).__name__} cannot be stored; only these can: {', '.join(FAMILIES)}.")
    state = {key: t.detach().cpu().contiguous() for key, t in prior.state_dict().items()}
    if half:
        state = {key: t.half() if t.dim() > 0 and t.is_floating_point() else t for key, t in state.items()}
    weights = save(state)
    (folder / "model.safetensors").write_bytes(weights)
    digest = hashlib.sha256(weights).hexdigest()
    config = {"format": FORMAT, "family": family, "arguments": prior.config}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "card.json").write_text(json.dumps({**card, "sha256": digest}, indent=2, ensure_ascii=False) + "\n")


def read_prior(folder: str | Path) -> Prior:
    """The prior that `write_prior` wrote, in evaluation mode on the CPU.

    Raises:
        ValueError: the folder is not a prior, is damaged, or comes from a newer format.
    """
    folder = Path(folder)
    config = _read_json(folder / "config.json")
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"{folder} is not a prior of format {FORMAT}: its config.json says {config!r:.80}.")
    try:
        family = lookup("prior family", config.get("family"), FAMILIES)
        # A new network draws initial weights, which are overwritten: the global random state stays as it was.
        with torch.random.fork_rng(devices=[]):
            prior = family(**config["arguments"])
        state = load_file(folder / "model.safetensors")
        prior.load_state_dict({key: t.float() if t.is_floating_point() else t for key, t in state.items()})
    except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, OSError, SafetensorError) as error:
        raise ValueError(f"The prior in {folder} is damaged or incomplete: {error}") from error
    return prior.eval().requires_grad_(False)


def read_card(folder: str | Path) -> dict[str, Any]:
    """The card of the prior in `folder`."""
    return _read_json(Path(folder) / "card.json")


def bundled() -> list[str]:
    """Names of the priors that come with the package."""
    return sorted(p.name for p in BUNDLED.glob("*") if (p / "config.json").exists())


def load_prior(name: str | Path, device: str | torch.device = "cpu") -> Prior:
    """A prior by name, family or folder, its network in bfloat16 where the device computes faster in it.

    Arguments:
        name: a bundled prior such as "ddpm-photo"; a family such as "ddpm", which means its photo prior if there is
            one, else the one trained on MNIST; or a folder written by `genprior train`.
        device: where to put it.

    Raises:
        ValueError: there is no such prior.
    """
    device = torch.device(device)
    prior = read_prior(find_prior(name)).to(device, memory_format=torch.channels_last)
    prior.autocast = torch.bfloat16 if has_bfloat16(device) else None
    return prior


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16, so that it is fast in it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def find_prior(name: str | Path) -> Path:
    """The folder of a prior by name, family or path."""
    if isinstance(name, str):
        for candidate in (name, f"{name}-photo", f"{name}-mnist"):
            if candidate in bundled():
                return BUNDLED / candidate
    if Path(name).is_dir():
        return Path(name)
    folders = {bundle: BUNDLED / bundle for bundle in bundled()}
    return lookup("prior", str(name), folders, hint="or a folder that holds a trained prior")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path.parent} is not a prior: {path.name} cannot be read ({error}).") from error
