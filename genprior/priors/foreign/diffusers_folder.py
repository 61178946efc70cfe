"""The folder of a model of diffusers: what it says of itself, and its parts, read without running any code of it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from safetensors import SafetensorError

from genprior.checks import UnsupportedError
from genprior.files import sha256
from genprior.priors.foreign.diffusers_network import check_config, check_name, package

if TYPE_CHECKING:
    from diffusers.schedulers import SchedulerMixin

WEIGHTS = "diffusion_pytorch_model"
FULL = f"{WEIGHTS}.safetensors"
# Autoencoders of latent diffusions: their names in pipelines, and their classes.
AUTOENCODERS = ("vqvae", "vae", "movq")
AUTOENCODER_KINDS = ("VQModel", "AutoencoderKL")
# What describes a model, and its weights: laid out as a pipeline is saved, or all in one folder, as older ones are.
DESCRIPTION = ("model_index.json", "config.json", "scheduler_config.json", "*/config.json", "*/scheduler_config.json")
HOMES = ("", "unet/", *(f"{name}/" for name in AUTOENCODERS))
# Weights, the first that are there: in full precision, in half, and pickled.
ENDINGS = (".safetensors", ".fp16.safetensors", ".bin")
DATA = tuple(tuple(f"{home}{WEIGHTS}{ending}" for home in HOMES) for ending in ENDINGS)


def is_diffusers(folder: Path) -> bool:
    """Whether a folder holds, by its own account, something that diffusers saved."""
    return (folder / "model_index.json").exists() or "_diffusers_version" in _json(folder / "config.json")


def check_folder(folder: Path) -> None:
    """Refuse, by what describes it and without its weights, a model that is no prior.

    Raises:
        UnsupportedError: diffusers is not installed, or the model has a class, a text, or parts of another kind.
        ValueError: a part of it is missing or cannot be read.
    """
    package()
    if not folder.is_dir():
        raise ValueError(
            f"There is no folder {folder}. (A repository of the Hugging Face Hub is genprior.load_prior('owner/name').)"
        )
    if (name := autoencoder_of(folder)) and not _json(folder / name / "config.json"):
        raise ValueError(f"{folder} holds no {name}/config.json of an autoencoder that can be read.")
    if (folder / "model_index.json").exists():
        check_name(_parts(folder)["unet"])
    network = _json(home_of(folder, "unet") / "config.json")
    if not network:
        raise ValueError(f"{folder} holds no config.json of a network that can be read.")
    check_name(network.get("_class_name"))
    check_config(network)


def autoencoder_of(folder: Path) -> str | None:
    """The name of the autoencoder in the folder of a latent diffusion; None where there is none.

    Raises:
        UnsupportedError: the folder is of a pipeline that has other parts.
    """
    if not (folder / "model_index.json").exists():
        return None
    parts = _parts(folder)
    names = [name for name in AUTOENCODERS if parts.get(name) in AUTOENCODER_KINDS]
    if not {"unet", "scheduler"} <= set(parts) or set(parts) - {"unet", "scheduler", *names[:1]}:
        refuse_parts(parts)
    return names[0] if names else None


def is_whole(folder: Path) -> bool:
    """Whether the weights of all of its parts are there."""
    homes = {home_of(folder, name) for name in ("unet", autoencoder_of(folder)) if name}
    return all(any(home.glob(f"{WEIGHTS}*")) for home in homes)


def card_of(folder: Path) -> dict[str, Any]:
    """What there is to say of the model in a folder, as in the card of a prior of ours."""
    names = ("unet", autoencoder_of(folder))
    weights = [weights_of(home_of(folder, name))[0] for name in names if name]
    summary = "a UNet2DModel of diffusers" + (" and an autoencoder" if names[1] else "")
    return {"summary": summary, "sha256": sha256(*weights)}


def weights_of(home: Path, variant: str | None = None) -> tuple[Path, str | None]:
    """The file of weights in a folder, and the variant that it is, as "fp16".

    Of .safetensors files, else of pickles, that of the variant; without one that of full precision, or the only one.

    Raises:
        ValueError: there is none, or there are several variants of which none is the full one.
    """
    found = {ending: _variants(home, ending) for ending in ("safetensors", "bin")}
    for variants in found.values():
        if variant in variants:
            return variants[variant], variant
        if variant is None and len(variants) == 1:
            return next((path, only) for only, path in variants.items())
    names = [path.name for variants in found.values() for path in variants.values()]
    wanted = FULL if variant is None else f"weights of the variant {variant!r}"
    there = f"only {', '.join(names)}" if names else "the only weights that are read, and no pickle of that name"
    raise ValueError(
        f"{home} has no {wanted}, {there}. Give one of the variants, genprior.from_diffusers(folder, variant=…), or, "
        "where there are other files that you trust, load and save them with diffusers once: "
        "DDPMPipeline.from_pretrained(…).save_pretrained(folder)."
    )


def read_part(folder: Path, name: str, kinds: tuple[str, ...], variant: str | None) -> Any:
    """A part of a pipeline, in float32, in evaluation mode, without gradients.

    Arguments:
        folder: of the pipeline, or of the part itself.
        name: of the part, such as "unet".
        kinds: classes of diffusers, of which it is one or a subclass.
        variant: see `weights_of`.

    Raises:
        ValueError: it is damaged or incomplete, or its weights are those of another network.
    """
    home = home_of(folder, name)
    own = str(_json(home / "config.json").get("_class_name"))
    kind: Any = getattr(package(), own if own in kinds else kinds[0])
    path, variant = weights_of(home, variant)
    _refuse_code(path)
    safe = path.suffix == ".safetensors"
    try:
        part, loaded = kind.from_pretrained(
            home, use_safetensors=safe, local_files_only=True, output_loading_info=True, variant=variant
        )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError, SafetensorError) as error:
        reason = str(error).split(". If you want")[0]  # what follows is advice to diffusers' own callers
        raise ValueError(f"The {kind.__name__} in {home} is damaged or incomplete: {reason}.") from error
    missing = [*loaded["missing_keys"], *loaded["mismatched_keys"]]
    if missing or loaded["unexpected_keys"]:
        lacks = f"it lacks {_briefly(missing)}" if missing else f"it has {_briefly(loaded['unexpected_keys'])} besides"
        raise ValueError(f"The weights in {home} are not those of the network in its config.json: {lacks}.")
    return part.float().eval().requires_grad_(False)


def read_scheduler(folder: Path) -> SchedulerMixin:
    """The scheduler of a pipeline.

    Raises:
        ValueError: there is none, or none that diffusers has.
    """
    home = home_of(folder, "scheduler")
    config = _json(home / "scheduler_config.json")
    if not config:
        raise ValueError(
            f"{home} has no scheduler_config.json that can be read, which would say how the network's noise grew: give "
            "the scheduler of its training, genprior.from_diffusers(folder, scheduler=diffusers.DDPMScheduler())."
        )
    diffusers = package()
    kind = getattr(diffusers, str(config.get("_class_name")), None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        raise ValueError(f"{home} is of the scheduler {config.get('_class_name')!r}, which diffusers does not have.")
    return kind.from_config(config)  # pyright: ignore[reportAttributeAccessIssue]


def home_of(folder: Path, part: str) -> Path:
    """Where a part of a pipeline lies: in a folder of its own, or among the others."""
    return folder / part if (folder / part).is_dir() else folder


def refuse_parts(parts: Mapping[str, str]) -> NoReturn:
    """Say what a pipeline is made of, {name: class}, and what it should be made of."""
    has = ", ".join(f"{name} ({kind})" for name, kind in sorted(parts.items()))
    raise UnsupportedError(
        f"This pipeline has {has}. Only unconditional diffusions are priors here: pipelines of a unet (UNet2DModel) "
        f"and a scheduler, such as DDPMPipeline, and, on latents, of an autoencoder too "
        f"({' or '.join(AUTOENCODER_KINDS)}), such as LDMPipeline."
    )


def _parts(folder: Path) -> dict[str, str]:
    """{name: class} of the parts of a pipeline."""
    index = _json(folder / "model_index.json")  # {name: [library, class]}
    return {name: part[1] for name, part in index.items() if isinstance(part, list) and part[1] is not None}


def _variants(home: Path, ending: str) -> dict[str | None, Path]:
    """The files of weights of that ending, by variant; that of full precision alone without one."""
    found = {path.name.split(".")[1]: path for path in sorted(home.glob(f"{WEIGHTS}.*.{ending}"))}
    full = home / f"{WEIGHTS}.{ending}"
    return {None: full, **found} if full.exists() else {**found}


def _refuse_code(path: Path) -> None:
    """Refuse a pickle that holds anything but weights, which torch finds out without running it."""
    if path.suffix != ".bin":
        return
    try:
        torch.load(path, map_location="meta", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is a pickle of more than weights, which may run code: it is not read. If you trust it, load and "
            "save it with diffusers once, DDPMPipeline.from_pretrained(…).save_pretrained(folder), and give that."
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(f"The weights {path} are damaged or incomplete: {error}") from error


def _json(path: Path) -> dict[str, Any]:
    """The dictionary in a file, an empty one if there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _briefly(names: list[str]) -> str:
    return ", ".join(names if len(names) <= 3 else [*names[:3], f"and {len(names) - 3} more"])
