"""The folder of a diffusers model: its description and its parts, read without running code from it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from genprior.checks import OPEN_SHAPE, OpenShape, Rule, UnsupportedError, check_arguments, positive
from genprior.files import sha256
from genprior.priors.foreign.diffusers_network import check_config, check_name, package
from genprior.priors.foreign.weights import fill, listed, misfit, read_weights, taken_from

if TYPE_CHECKING:
    from diffusers.schedulers import SchedulerMixin

WEIGHTS = "diffusion_pytorch_model"
FULL = f"{WEIGHTS}.safetensors"
# Autoencoders of latent diffusions: their names in pipelines, and their classes.
AUTOENCODERS = ("vqvae", "vae", "movq")
AUTOENCODER_KINDS = ("VQModel", "AutoencoderKL")
OWN = "genprior.json"  # what genprior knows of a pipeline but the pipeline's own files do not state
MEASURED: Rule = (lambda v: v is None or positive(v), "a positive number, or null where it was not measured")
# Files that describe a model, and homes of its weights: in a pipeline's layout or, for older models, in one folder.
DESCRIPTION = (
    "model_index.json", "config.json", "scheduler_config.json", "*/config.json", "*/scheduler_config.json", OWN
)  # fmt: skip
HOMES = ("", "unet/", *(f"{name}/" for name in AUTOENCODERS))
# Endings of weights, in order of preference: full precision, half precision, pickled.
ENDINGS = (".safetensors", ".fp16.safetensors", ".bin")
DATA = tuple(tuple(f"{home}{WEIGHTS}{ending}" for home in HOMES) for ending in ENDINGS)
# Names of an attention's weights: in models saved by older versions -> now.
NEW_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
OLD_NAMES = re.compile(rf"\.({'|'.join(NEW_NAMES)})\.")


def is_diffusers(folder: Path) -> bool:
    """Whether a folder's description says that diffusers saved it."""
    return (folder / "model_index.json").exists() or "_diffusers_version" in _json(folder / "config.json")


def check_folder(folder: Path) -> None:
    """Refuse a model that cannot be a prior, judging by its description, without reading its weights.

    Raises:
        UnsupportedError: diffusers is not installed, or the model needs a class or a text, or has other parts.
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
    if "_class_name" not in network:
        raise ValueError(
            f"{folder} is no model of diffusers: its config.json does not say of what class. (A prior of genprior's is "
            "genprior.load_prior(folder).)"
        )
    check_name(network["_class_name"])
    check_config(network)


def autoencoder_of(folder: Path) -> str | None:
    """Return the name of the autoencoder in the folder of a latent diffusion; None if there is none.

    Raises:
        UnsupportedError: the folder holds a pipeline with other parts.
    """
    if not (folder / "model_index.json").exists():
        return None
    parts = _parts(folder)
    names = [name for name in AUTOENCODERS if parts.get(name) in AUTOENCODER_KINDS]
    if not {"unet", "scheduler"} <= set(parts) or set(parts) - {"unet", "scheduler", *names[:1]}:
        refuse_parts(parts)
    return names[0] if names else None


def is_whole(folder: Path) -> bool:
    """Whether the weights of all parts are present."""
    homes = {home_of(folder, name) for name in ("unet", autoencoder_of(folder)) if name}
    return all(any(home.glob(f"{WEIGHTS}*")) for home in homes)


def card_of(folder: Path) -> dict[str, Any]:
    """Return the card of the model in a folder, as for a genprior prior."""
    names = ("unet", autoencoder_of(folder))
    weights = [weights_of(home_of(folder, name)) for name in names if name]
    summary = "a UNet2DModel of diffusers" + (" and an autoencoder" if names[1] else "")
    return {"summary": summary} | _json(folder / "card.json") | {"sha256": sha256(*weights)}


def weights_of(home: Path, variant: str | None = None) -> Path:
    """Return the file of weights in a folder.

    Among .safetensors files, else among pickles, it is that of the variant or, without a variant, that of full
    precision, or the only one.

    Raises:
        ValueError: there is none, or there are several variants and none in full precision.
    """
    found = {ending: _variants(home, ending) for ending in ("safetensors", "bin")}
    for variants in found.values():
        if variant in variants:
            return variants[variant]
        if variant is None and len(variants) == 1:
            return next(iter(variants.values()))
    names = [path.name for variants in found.values() for path in variants.values()]
    wanted = FULL if variant is None else f"weights of the variant {variant!r}"
    there = f"only {', '.join(names)}" if names else "the only weights that are read, and no pickle of that name"
    raise ValueError(
        f"{home} has no {wanted}, {there}. Give one of the variants, genprior.from_diffusers(folder, variant=…), or, "
        "where there are other files that you trust, load and save them with diffusers once: "
        "DDPMPipeline.from_pretrained(…).save_pretrained(folder)."
    )


def read_part(folder: Path, name: str, kinds: tuple[str, ...], variant: str | None) -> Any:
    """Read a part of a pipeline, in evaluation mode, without gradients, with its weights in the precision of the file.

    diffusers' own `from_pretrained` would map the file into memory as long as the network lives, beside its copies.

    Arguments:
        folder: of the pipeline, or of the part itself.
        name: of the part, such as "unet".
        kinds: classes of diffusers; the part is built as the one its configuration names, else as the first.
        variant: see `weights_of`.

    Raises:
        ValueError: it is damaged or incomplete, its weights belong to another network, or they hold code.
    """
    home = home_of(folder, name)
    own = str(_json(home / "config.json").get("_class_name"))
    kind: Any = getattr(package(), own if own in kinds else kinds[0])
    path = weights_of(home, variant)
    try:
        part = _empty(kind, home)
    except (OSError, ValueError, TypeError, LookupError, RuntimeError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"The config.json in {home} makes no {kind.__name__}: {error}") from error
    state = {OLD_NAMES.sub(_renamed, name): tensor for name, tensor in read_weights(path).items()}
    missing, others, unlike, broken = misfit(state, part)
    ways = {"lacks": missing, "also has": others, "has other shapes of": unlike}
    for way, names in ways.items():
        if names:
            raise ValueError(
                f"{path} is not of the {kind.__name__} that the config.json beside it describes: it {way} "
                f"{listed(names)}."
            )
    if broken:
        raise ValueError(f"{path} is damaged: there are values that are no finite numbers in {listed(broken)}.")
    fill(part, taken_from(state))
    return part.eval().requires_grad_(False)


def write_pipeline(parts: tuple[Any, Any, Any], own: dict[str, Any], folder: Path, card: dict[str, Any]) -> None:
    """Write a latent diffusion in the layout of diffusers, which can read it too, and beside it what genprior knows.

    Arguments:
        parts: autoencoder, unet, scheduler.
        own: see `read_own`.

    Raises:
        UnsupportedError: a network is of a class that diffusers does not have, so nothing could read it again.
    """
    package().LDMPipeline(*parts).save_pretrained(folder)
    check_folder(folder)
    (folder / OWN).write_text(json.dumps(own, indent=2) + "\n")
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    (folder / "card.json").write_text(text, encoding="utf-8", errors="backslashreplace")  # of names of other bytes


def read_own(folder: Path) -> tuple[OpenShape | None, float | None]:
    """Read the shape of the images and the decoder's variance of a pipeline saved by genprior, None where unknown.

    Raises:
        ValueError: the file that holds them is damaged.
    """
    if not (folder / OWN).exists():
        return None, None
    own = _json(folder / OWN)
    try:
        check_arguments(own, image_shape=OPEN_SHAPE, decoder_variance=MEASURED)
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{folder / OWN} is damaged: {error}") from error
    return tuple(own["image_shape"]), own["decoder_variance"]


def read_scheduler(folder: Path) -> SchedulerMixin:
    """Read the scheduler of a pipeline.

    Raises:
        ValueError: there is none, or diffusers does not have its class.
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
    """Return where a part of a pipeline lies: in a folder of its own, or among the others."""
    return folder / part if (folder / part).is_dir() else folder


def refuse_parts(parts: Mapping[str, str]) -> NoReturn:
    """Refuse a pipeline with the parts {name: class}; the message says which parts it should have."""
    has = ", ".join(f"{name} ({kind})" for name, kind in sorted(parts.items()))
    raise UnsupportedError(
        f"This pipeline has {has}. Only unconditional diffusions are priors here: pipelines of a unet (UNet2DModel) "
        f"and a scheduler, such as DDPMPipeline, and, on latents, of an autoencoder too "
        f"({' or '.join(AUTOENCODER_KINDS)}), such as LDMPipeline."
    )


def _parts(folder: Path) -> dict[str, str]:
    """Read {name: class} of the parts of a pipeline."""
    index = _json(folder / "model_index.json")  # {name: [library, class]}
    if not index:
        raise ValueError(f"{folder} holds no model_index.json of a pipeline that can be read.")
    return {name: part[1] for name, part in index.items() if isinstance(part, list) and part[1] is not None}


def _variants(home: Path, ending: str) -> dict[str | None, Path]:
    """Return the files of weights with that ending, by variant; the key of full precision is None."""
    found = {path.name.split(".")[1]: path for path in sorted(home.glob(f"{WEIGHTS}.*.{ending}"))}
    full = home / f"{WEIGHTS}.{ending}"
    return {None: full, **found} if full.exists() else {**found}


def _empty(kind: Any, home: Path) -> Any:
    """Build the network of a config.json, without weights yet; the global random state stays as it was."""
    from accelerate import init_empty_weights

    with torch.random.fork_rng(devices=[]), init_empty_weights():
        return kind.from_config(kind.load_config(home))


def _renamed(old: re.Match[str]) -> str:
    return f".{NEW_NAMES[old[1]]}."


def _json(path: Path) -> dict[str, Any]:
    """Read the dictionary in a file; an empty one if there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
