"""Priors on disk: a folder of config.json (family, shape of images, arguments), model.safetensors, card.json (origin).

No code is loaded from a folder, and no pickle: the family is looked up by name and built from checked arguments.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from genprior.ambient import settled
from genprior.nets.wrapped import plain_state, unwrapped
from genprior.priors.amortized import LearnedPosterior
from genprior.priors.base import Prior, supports
from genprior.priors.ddpm import DDPM
from genprior.priors.diffusers import card_of, from_diffusers, is_diffusers
from genprior.priors.field import GaussianField
from genprior.priors.flow import Flow
from genprior.priors.gan import GAN
from genprior.priors.gaussian import Gaussian
from genprior.priors.hub import fetch, is_hub_name
from genprior.priors.labels import check_names
from genprior.priors.latent import LatentDiffusion
from genprior.priors.patches import PatchFlow
from genprior.priors.vae import VAE
from genprior.priors.weights import ADVICE, is_weights, refuse_weights
from genprior.registry import lookup

FORMAT = 1
FAMILIES: dict[str, type[Prior]] = {
    "amortized": LearnedPosterior,
    "ddpm": DDPM,
    "gan": GAN,
    "gaussian": Gaussian,
    "gaussian-field": GaussianField,
    "ldm": LatentDiffusion,
    "nf": Flow,
    "nf-patch": PatchFlow,
    "vae": VAE,
}
# What makes a prior from the arguments in config.json, for its weights to be read into.
BUILDERS: dict[str, Callable[..., Prior]] = {
    **FAMILIES,
    "gaussian": Gaussian.blank,
    "gaussian-field": GaussianField.blank,
    "ldm": LatentDiffusion.blank,
}
BUNDLED = Path(__file__).parent / "bundled"
ELSE = "or a folder that holds a trained prior, or owner/name on the Hugging Face Hub"


def write_prior(prior: Prior, folder: Path, card: dict[str, Any], *, half: bool = False) -> None:
    """Write `prior` to the existing, empty `folder`.

    Arguments:
        card: what a user should know: data, licence, steps, seed, seconds, device, metrics. The names of the classes
            and a hash of the weights are added.
        half: store the weights in float16, half the size; they are read back as float32.
    """
    prior = unwrapped(prior)
    family = next((name for name, cls in FAMILIES.items() if type(prior) is cls), None)
    if family is None:
        raise ValueError(f"A {type(prior).__name__} cannot be stored; only these can: {', '.join(FAMILIES)}.")
    state = {key: t.detach().cpu().contiguous() for key, t in plain_state(prior).items()}
    if half:
        state = {key: t.half() if t.dim() > 0 and t.is_floating_point() else t for key, t in state.items()}
    weights = save(state)
    (folder / "model.safetensors").write_bytes(weights)
    digest = hashlib.sha256(weights).hexdigest()
    shape = list(prior.image_shape)
    config = {"format": FORMAT, "family": family, "image_shape": shape, "arguments": prior.config}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    card = {**card, "sha256": digest}
    if prior.class_names:
        card["classes"] = list(check_names(prior.class_names, prior.classes))
    (folder / "card.json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n")


@settled
def save_prior(prior: Prior, folder: str | Path, card: dict[str, Any] | None = None) -> None:
    """Write `prior` to a new folder, which `load_prior` and `restore` take.

    Arguments:
        card: what a user should know, see `write_prior`.

    Raises:
        FileExistsError: there is something of that name.
        ValueError: the prior is of no family that can be stored.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists; choose another path.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        whole = Path(temporary) / "prior"
        whole.mkdir()
        write_prior(prior, whole, card or {})
        whole.rename(folder)


def read_prior(folder: str | Path) -> Prior:
    """The prior that `write_prior` wrote, or of a model that diffusers saved, in evaluation mode on the CPU.

    Raises:
        ValueError: the folder is not a prior, is damaged, or comes from a newer format.
        UnsupportedError: it is a model of diffusers that is no prior here, see `from_diffusers`.
    """
    folder = Path(folder)
    if is_diffusers(folder):
        return from_diffusers(folder)
    config = _read_config(folder)
    try:
        build = lookup("prior family", config.get("family"), BUILDERS)
        # A new network draws initial weights, which are overwritten: the global random state stays as it was.
        with torch.random.fork_rng(devices=[]):
            prior = build(**config["arguments"])
        state = load_file(folder / "model.safetensors")
        prior.load_state_dict({key: t.float() if t.is_floating_point() else t for key, t in state.items()})
        if (folder / "card.json").exists():
            prior.class_names = check_names(read_card(folder).get("classes", ()), prior.classes)
    except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, OSError, SafetensorError) as error:
        raise ValueError(f"The prior in {folder} is damaged or incomplete: {error}") from error
    return prior.eval().requires_grad_(False)


def read_card(folder: str | Path) -> dict[str, Any]:
    """The card of the prior in `folder`."""
    folder = Path(folder)
    return card_of(folder) if is_diffusers(folder) else _read_json(folder / "card.json")


def bundled() -> list[str]:
    """Names of the priors that come with the package."""
    return sorted(p.name for p in BUNDLED.glob("*") if (p / "config.json").exists())


def bundled_with_classes() -> list[str]:
    """Names of the bundled priors that have class labels."""
    return [name for name in bundled() if _read_config(BUNDLED / name)["arguments"].get("classes")]


@settled
def load_prior(
    name: str | Path,
    device: str | torch.device = "cpu",
    image_shape: tuple[int, int, int] | None = None,
) -> Prior:
    """A prior by name, family or folder, its network in bfloat16 where the device computes faster in it.

    Arguments:
        name: a bundled prior such as "ddpm-photo"; a family such as "ddpm"; a folder written by `genprior train`
            (the run's, for the average of most steps, or one of its priors), by `save_prior` or by diffusers (see
            `from_diffusers`); or the "owner/name" of such a one on the Hugging Face
            Hub, where `owner` is no folder. Only then is anything downloaded. A family means its bundled prior of
            images of just this shape if there is one (a 28 x 28 grey digit has "-mnist"), else the one of images of
            any size ("-photo"), which takes grey ones as colour; those of one kind of images ("-flowers") go by their
            name only.
        device: where to put it.
        image_shape: (C, H, W) of the images that a family is asked for; None for its prior of images of any size, or
            if it has none, the first by name.

    Raises:
        ValueError: there is no such prior, or none of the family fits the images, or the Hub cannot be reached.
    """
    device = torch.device(device)
    prior = read_prior(find_prior(name, image_shape)).to(device, memory_format=torch.channels_last)
    # A denoiser's own error hides the rounding; of decoders and densities, Markov chains want energies that agree.
    denoises = supports(prior, "denoise") or supports(prior, "denoise_given")
    prior.autocast = torch.bfloat16 if denoises and has_bfloat16(device) else None
    return prior


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16, so that it is fast in it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def find_prior(name: str | Path, image_shape: tuple[int, int, int] | None = None) -> Path:
    """The folder of a prior by name, family, path or repository, see `load_prior`."""
    names = bundled()
    if isinstance(name, str):
        family = [other for other in names if other.startswith(f"{name}-") and not _by_name_only(other)]
        if name in names or family:
            return BUNDLED / (name if name in names else _fitting(name, family, image_shape))
    if Path(name).is_dir():
        return _newest(Path(name))
    refuse_weights(Path(name))
    if isinstance(name, str) and is_hub_name(name) and not Path(name).parent.is_dir():
        return fetch(name)
    return lookup("prior", str(name), {other: BUNDLED / other for other in names}, hint=ELSE)


def resolved_name(name: str | Path, image_shape: tuple[int, int, int] | None = None) -> str:
    """What `find_prior` finds by that name, as one would ask for it again: name, folder, or owner/name of the Hub."""
    if not Path(name).is_dir() and is_hub_name(str(name)):
        return str(name)
    folder = find_prior(name, image_shape)
    return folder.name if folder.parent == BUNDLED else str(folder)


def _fitting(family: str, names: list[str], image_shape: tuple[int, int, int] | None) -> str:
    """The one among bundled priors that fits the images best."""
    shapes = {name: tuple(_read_config(BUNDLED / name)["image_shape"]) for name in names}
    if image_shape is None:
        return min(names, key=lambda name: None not in shapes[name])
    fitting = [name for name in names if _takes(shapes[name], image_shape)]
    if not fitting:
        there = ", ".join(f"{name} of {shape}" for name, shape in shapes.items())
        raise ValueError(
            f"No bundled {family} prior fits images of shape {tuple(image_shape)}; there is {there} (None: any). Give "
            f"another family, {ELSE}."
        )
    return min(fitting, key=lambda name: shapes[name] != tuple(image_shape))


def _by_name_only(name: str) -> bool:
    """Whether a bundled prior knows one kind of images, such as flowers, which their shape alone does not tell."""
    return bool(_read_config(BUNDLED / name).get("by_name_only"))


def _newest(folder: Path) -> Path:
    """The prior in a folder: itself, or of a training run the average of most steps, ended or only saved so far."""
    saved = [path.parent for path in folder.glob("step-*/complete.json")]
    found = [path for path in (*saved, folder / "prior") if (path / "config.json").exists()]
    if (folder / "config.json").exists() or not found:
        return folder
    # Of as many steps as a checkpoint, the result: it has been finished.
    return max(found, key=lambda path: (read_card(path).get("steps", 0), path.name == "prior"))


def _takes(own: tuple[int | None, ...], wanted: tuple[int, int, int]) -> bool:
    """Whether a prior of images of the shape `own` restores those of `wanted`: one of colour, grey ones too."""
    return (own[0] == wanted[0] or (own[0], wanted[0]) == (3, 1)) and all(
        a in (None, b) for a, b in zip(own[1:], wanted[1:])
    )


def _read_config(folder: Path) -> dict[str, Any]:
    config = _read_json(folder / "config.json")
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"{folder} is not a prior of format {FORMAT}: its config.json says {config!r:.80}.")
    return config


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        found = [other for other in sorted(path.parent.glob("*")) if is_weights(other)]
        if found and not path.exists():
            raise ValueError(f"{path.parent} has {found[0].name}, but no {path.name}. {ADVICE}") from None
        raise ValueError(f"{path.parent} is not a prior: {path.name} cannot be read ({error}).") from error
