"""The folder of a prior: config.json (family, shape of images, arguments), model.safetensors, card.json (origin).

A diffusion whose posterior covariance was measured also has covariance.safetensors.

Reading it runs no code and opens no pickle: the family is looked up by name and built from checked arguments.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save

from genprior.ambient import settled
from genprior.files import refuse_existing, sha256, write_folder
from genprior.nets.wrapped import plain_state, unwrapped
from genprior.priors.amortized import LearnedPosterior
from genprior.priors.base import Prior
from genprior.priors.ddpm import DDPM
from genprior.priors.flow import Flow
from genprior.priors.foreign import adm
from genprior.priors.foreign.diffusers import from_diffusers
from genprior.priors.foreign.diffusers_folder import card_of, is_diffusers
from genprior.priors.foreign.diffusers_latents import DiffusersLatentPrior
from genprior.priors.foreign.weights import ADVICE, fill, is_weights, tensors_in
from genprior.priors.gan import GAN
from genprior.priors.gaussian.field import GaussianField
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.priors.labels import check_names
from genprior.priors.latent import LatentDiffusion
from genprior.priors.patches import PatchFlow
from genprior.priors.vae import VAE
from genprior.registry import lookup

FORMAT = 1
MEASURED = "residuals."  # prefix of the names of a posterior covariance's tensors, see `MeasuredCovariance`
FAMILIES: dict[str, type[Prior]] = {
    "adm": adm.ADM,
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


def write_prior(prior: Prior, folder: Path, card: dict[str, Any], *, half: bool = False) -> None:
    """Write `prior` to the existing, empty `folder`.

    Arguments:
        card: what a user should know: data, licence, steps, seed, seconds, device, metrics. This function adds the
            names of the classes and a hash of the weights.
        half: store the weights in float16, at half the size; they are read back as float32.
    """
    prior = unwrapped(prior)
    family = next((name for name, cls in FAMILIES.items() if type(prior) is cls), None)
    if family is None:
        raise ValueError(f"A {type(prior).__name__} cannot be stored; only these can: {', '.join(FAMILIES)}.")
    state = {key: t.detach().cpu().contiguous() for key, t in plain_state(prior).items()}
    if half:
        state = {key: t.half() if t.dim() > 0 and t.is_floating_point() else t for key, t in state.items()}
    measured = {key: state.pop(key) for key in list(state) if key.startswith(MEASURED)}
    weights = save(state)
    (folder / "model.safetensors").write_bytes(weights)
    if measured:  # in its own file, since it may be measured again on other images, for the same weights
        (folder / "covariance.safetensors").write_bytes(save(measured))
    shape = list(prior.image_shape)
    config = {"format": FORMAT, "family": family, "image_shape": shape, "arguments": prior.config}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    card = {**card, "sha256": sha256(weights)}
    if prior.class_names:
        card["classes"] = list(check_names(prior.class_names, prior.classes))
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    (folder / "card.json").write_text(text, encoding="utf-8", errors="backslashreplace")  # of names of other bytes


@settled
def save_prior(prior: Prior, folder: str | Path, card: dict[str, Any] | None = None) -> None:
    """Write `prior` to a new folder, which `load_prior` and `restore` take.

    A latent diffusion of diffusers is written in the layout of diffusers, with the measured variance of its decoder.

    Arguments:
        card: what a user should know, see `write_prior`.

    Raises:
        FileExistsError: the path already exists.
        ValueError: the prior's family cannot be stored.
        UnsupportedError: a network of a diffusers model is of a class that diffusers does not have.
    """
    folder = Path(folder)
    refuse_existing([folder], False, "choose another path")
    plain = unwrapped(prior)
    if isinstance(plain, DiffusersLatentPrior):
        write_folder(folder, lambda whole: plain.save(whole, card or {}))
    else:
        write_folder(folder, lambda whole: write_prior(plain, whole, card or {}))


def read_prior(folder: str | Path) -> Prior:
    """Read the prior that `write_prior` wrote, or a model that diffusers saved, in evaluation mode on the CPU.

    A file is a checkpoint that `from_adm` reads.

    Raises:
        ValueError: the folder is not a prior, is damaged, or comes from a newer format.
        UnsupportedError: it is a diffusers model that cannot be a prior, see `from_diffusers`.
    """
    folder = Path(folder)
    if folder.is_file():
        return adm.from_adm(folder)
    if is_diffusers(folder):
        return from_diffusers(folder)
    config = read_config(folder)
    try:
        family = lookup("prior family", config.get("family"), FAMILIES)
        # A new network draws initial weights, only to be overwritten: leave the global random state as it was.
        with torch.random.fork_rng(devices=[]):
            prior = family.blank(**config["arguments"])
        files = ["model.safetensors"] + ["covariance.safetensors"] * bool(config["arguments"].get("residuals"))
        fill(prior, (found for file in files for found in tensors_in(folder / file)))
        if (folder / "card.json").exists():
            prior.class_names = check_names(read_card(folder).get("classes", ()), prior.classes)
    except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, OSError, SafetensorError) as error:
        raise ValueError(f"The prior in {folder} is damaged or incomplete: {error}") from error
    return prior.eval().requires_grad_(False)


def read_card(folder: str | Path) -> dict[str, Any]:
    """Read the card of the prior in `folder`, or of a file of weights."""
    folder = Path(folder)
    if folder.is_file():
        return adm.card_of(folder)
    return card_of(folder) if is_diffusers(folder) else _read_json(folder / "card.json")


def read_config(folder: Path) -> dict[str, Any]:
    """Read the family, shape and arguments of the prior in `folder`.

    Raises:
        ValueError: the folder is not a prior, or has a newer format.
    """
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
