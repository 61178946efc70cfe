"""Priors by name: bundled with the package, in folders, and on the Hugging Face Hub."""

from pathlib import Path

import torch

from genprior.ambient import settled
from genprior.checks import OpenShape, Shape
from genprior.devices import has_bfloat16
from genprior.nets.channels_last import reorder
from genprior.priors.amortized import LearnedPosterior
from genprior.priors.base import Prior, supports
from genprior.priors.folder import read_card, read_config, read_prior
from genprior.priors.foreign.weights import is_weights, refuse_weights, refuse_weights_of_folder
from genprior.priors.hub import fetch, is_hub_file, is_hub_name, revision_of
from genprior.registry import lookup

BUNDLED = Path(__file__).parent / "bundled"
ELSE = "or a folder that holds a trained prior, a checkpoint of ADM's network, or owner/name on the Hugging Face Hub"


def bundled() -> list[str]:
    """Return the names of the priors bundled with the package."""
    return sorted(p.name for p in BUNDLED.glob("*") if (p / "config.json").exists())


@settled
def load_prior(
    name: str | Path,
    device: str | torch.device = "cpu",
    image_shape: Shape | None = None,
) -> Prior:
    """Load a prior by name, family, folder or file; denoisers compute in bfloat16 where the device is fast in it.

    Arguments:
        name: a bundled prior such as "ddpm-photo"; a family such as "ddpm"; a folder written by `genprior train`
            (a run's, for its average after most steps, or one of its priors), by `save_prior` or by diffusers (see
            `from_diffusers`); a file such as "ffhq_10m.pt" (see `from_adm`); or "owner/name" or "owner/name@revision"
            on the Hugging Face Hub, followed by "/file.pt" if it holds several; `owner` must not be a folder. Only Hub
            names download anything, and only once. A family means its bundled prior for images of exactly this shape
            ("-mnist" for a grey 28 x 28 digit), else the one for images of any size ("-photo"), which takes grey images
            as colour; priors of one kind of images ("-flowers") are found by their full names only.
        device: where to put it.
        image_shape: (C, H, W) of the images, for a family; None for its prior of images of any size or, if it has none,
            the first by name.

    Raises:
        ValueError: there is no such prior, none of the family fits the images, or the Hub cannot be reached.
    """
    device = torch.device(device)
    folder = find_prior(name, image_shape)
    prior = read_prior(folder).to(device)
    reorder(prior)
    # A denoiser's own error hides the rounding; but Markov chains need consistent energies of decoders and densities.
    denoises = supports(prior, "denoise") or isinstance(prior, LearnedPosterior)
    prior.autocast = torch.bfloat16 if denoises and has_bfloat16(device) else None
    prior.revision = revision_of(folder)
    return prior


def find_prior(name: str | Path, image_shape: Shape | None = None) -> Path:
    """Return the folder or file of a prior by name, family, path or repository; see `load_prior`."""
    names = bundled()
    if isinstance(name, str):
        family = [other for other in names if other.startswith(f"{name}-")]
        # except those for one kind of images, such as flowers, which the shape alone does not identify
        family = [other for other in family if not read_config(BUNDLED / other).get("by_name_only")]
        if name in names or family:
            return BUNDLED / (name if name in names else _fitting(name, family, image_shape))
    path = Path(name)
    if path.is_dir():
        return _newest(path)
    if is_weights(path) and path.is_file():
        refuse_weights_of_folder(path)
        return path
    if isinstance(name, str) and is_hub_file(name) and not Path(path.parts[0]).is_dir():
        return fetch(name)
    refuse_weights(path)
    if isinstance(name, str) and is_hub_name(name) and not path.parent.is_dir():
        return fetch(name)
    return lookup("prior", str(name), {other: BUNDLED / other for other in names}, hint=ELSE)


def resolved_name(name: str | Path, image_shape: Shape | None = None) -> str:
    """Return the unambiguous name of what `find_prior` finds: a name, a path, or owner/name on the Hub."""
    if not Path(name).exists() and (is_hub_name(str(name)) or is_hub_file(str(name))):
        return str(name)
    folder = find_prior(name, image_shape)
    return folder.name if folder.parent == BUNDLED else str(folder)


def _fitting(family: str, names: list[str], image_shape: Shape | None) -> str:
    """Return the bundled prior that fits the images best."""
    shapes = {name: tuple(read_config(BUNDLED / name)["image_shape"]) for name in names}
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


def _newest(folder: Path) -> Path:
    """Return the prior's folder: the folder itself or, of a training run, the result or checkpoint of most steps."""
    saved = [path.parent for path in folder.glob("step-*/complete.json")]
    found = [path for path in (*saved, folder / "prior") if (path / "config.json").exists()]
    if (folder / "config.json").exists() or not found:
        return folder
    # At equal steps the result wins over the checkpoint, because it is finished.
    return max(found, key=lambda path: (read_card(path).get("steps", 0), path.name == "prior"))


def _takes(own: OpenShape, wanted: Shape) -> bool:
    """Whether a prior of images of shape `own` restores images of shape `wanted`; a colour prior also restores grey."""
    return (own[0] == wanted[0] or (own[0], wanted[0]) == (3, 1)) and all(
        a in (None, b) for a, b in zip(own[1:], wanted[1:])
    )
