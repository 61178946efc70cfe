"""Priors on the Hugging Face Hub: a repository contains the folder of a prior; see `genprior.priors.folder`."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genprior.priors.card import PICTURE, card_text, picture_of
from genprior.priors.folder import read_card, read_prior
from genprior.priors.foreign import diffusers_folder as diffusers
from genprior.priors.foreign.weights import READ, is_weights

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

FILES = ("config.json", "model.safetensors", "card.json", "covariance.safetensors")
# The files of a genprior prior and of a diffusers model.
PARTS = (*FILES, PICTURE, *diffusers.DESCRIPTION, *(file for files in diffusers.DATA for file in files))
NAME = re.compile(r"[\w.-]+/[\w.-]+")
COMMIT = re.compile(r"[0-9a-f]{40}")


def push_to_hub(folder: str | Path, name: str, *, private: bool = False) -> str:
    """Publish the prior in `folder`, as written by `genprior train`, `save_prior` or diffusers; return its address.

    The token is huggingface_hub's: `hf auth login`, or the variable HF_TOKEN. Others load the prior with
    `load_prior(name)`.

    Arguments:
        folder: of the prior.
        name: of the repository, "owner/name"; a new one is created, the files of an existing one are replaced.
        private: whether only its owner sees a new repository.

    Raises:
        ValueError: the folder holds no intact prior, or the name does not have that form.
        OSError: the Hub cannot be reached, or denies access.
    """
    from huggingface_hub import HfApi

    folder = Path(folder)
    check_hub_name(name)
    read_prior(folder)
    with tempfile.TemporaryDirectory() as temporary:
        for file in {path for pattern in PARTS for path in folder.glob(pattern)}:
            target = Path(temporary) / file.relative_to(folder)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, target)
        _model_card(name, read_card(folder), picture_of(folder)).save(Path(temporary) / "README.md")
        api = HfApi()
        api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=temporary, commit_message="A prior of genprior")
    return f"https://huggingface.co/{name}"


def fetch(name: str) -> Path:
    """Return the folder of a genprior or diffusers prior on the Hub, downloaded unless huggingface_hub already has it.

    For "owner/name/file", and for a repository that has weights but does not describe them, return the file. Without a
    network, or with HF_HUB_OFFLINE=1, return what was downloaded before.

    Arguments:
        name: "owner/name", or "owner/name@revision" with a branch, a tag or a commit; optionally followed by "/file".

    Raises:
        ValueError: there is no such repository, or it cannot be reached and was never downloaded.
        UnsupportedError: it is a diffusers model that cannot be a prior; its weights are then not downloaded.
    """
    repository, file = _split(name)
    if file:
        return _file(repository, file)
    folder = _download(name, (*FILES, *diffusers.DESCRIPTION))
    if not (folder / "config.json").exists() and not diffusers.is_diffusers(folder):
        return _file(name, _only_weights(name, folder))
    if not diffusers.is_diffusers(folder):
        return folder
    diffusers.check_folder(folder)
    for files in diffusers.DATA:  # the first that exist
        if diffusers.is_whole(folder := _download(name, (*diffusers.DESCRIPTION, *files))):
            break
    return folder


def revision_of(path: Path) -> str | None:
    """Return the commit of a folder or file in the Hub's cache; None for all others."""
    places = (place for place in (path, *path.parents) if place.parent.name == "snapshots")
    return next((place.name for place in places if COMMIT.fullmatch(place.name)), None)


def _download(name: str, files: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(files)))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"There is no folder {name}, and no prior of that name could be had from the Hugging Face Hub: {reason}"
        ) from error


def is_hub_name(name: str) -> bool:
    """Whether `name` has the form of a repository, "owner/name", optionally with "@revision"."""
    repository, at, revision = name.partition("@")
    named = NAME.fullmatch(repository) is not None and not any(p.strip(".") == "" for p in repository.split("/"))
    return named and bool(at) == bool(revision)


def is_hub_file(name: str) -> bool:
    """Whether `name` has the form of a file of weights in a repository, "owner/name/file.pt"."""
    repository, file = _split(name)
    plain = all(part.strip(".") for part in file.split("/"))
    return is_hub_name(repository) and plain and is_weights(Path(file))


def _split(name: str) -> tuple[str, str]:
    """Split "owner/name/some/file" into owner/name and some/file, which is empty if there is no file."""
    owner, _, rest = name.partition("/")
    repository, _, file = rest.partition("/")
    return f"{owner}/{repository}", file


def _file(repository: str, file: str) -> Path:
    path = _download(repository, (file,)) / file
    if not path.exists():
        raise ValueError(f"The repository {repository} on the Hugging Face Hub has no {file}.")
    return path


def _only_weights(repository: str, folder: Path) -> str:
    """Return the one .safetensors file of a repository without a description or, if it has none, its one pickle."""
    from huggingface_hub import HfApi

    name, _, revision = repository.partition("@")
    try:
        files = HfApi().list_repo_files(name, revision=revision or None)
    except (OSError, ValueError):  # offline: choose among the files downloaded before
        files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    weights = [file for file in sorted(files) if Path(file).suffix.lower() in READ]
    found = [file for file in weights if file.endswith(".safetensors")] or weights
    if len(found) != 1:
        has = f"several, {', '.join(found)}: give one, {repository}/{found[0]}" if found else "none"
        raise ValueError(f"The repository {repository} holds no prior of ours or of diffusers, and of weights {has}.")
    return found[0]


def check_hub_name(name: str) -> None:
    """Refuse a name that is not that of a repository to publish to."""
    if not is_hub_name(name) or "@" in name:
        raise ValueError(f"The name of a repository is {name!r}: give owner/name.")


def _model_card(name: str, card: dict[str, Any], picture: Path | None) -> ModelCard:
    from huggingface_hub import ModelCard, ModelCardData

    data = ModelCardData(
        library_name="genprior",
        license="other",
        license_name=str(card.get("licence", "unknown")),
        tags=["image-restoration", "inverse-problems", "generative-prior"],
    )
    about = f'''A generative prior for imaging inverse problems; `card.json` has all that is known of it.

    import genprior
    restored = genprior.restore("photo.png", "denoise", noise=0.1, prior="{name}")
'''
    text = card_text(name, card, picture.name if picture else None)
    return ModelCard("\n".join(["---", data.to_yaml(), "---", about, text, ""]))
