"""Data sets of torchvision, by name."""

import inspect
from operator import itemgetter
from pathlib import Path

import numpy as np
from einops import rearrange

from genprior.registry import lookup
from genprior.training.data.rows import Rows


def open_torchvision(name: str, split: str, root: Path, download: bool, labelled: bool) -> Rows | dict[str, np.ndarray]:
    """Open a data set: the arrays "images" and, if labelled, "targets" if torchvision holds them in memory, else rows.

    Raises:
        ValueError: no data set of that name (in any case) or split, no labels although `labelled`, torchvision cannot
            download it, or torchvision is missing.
        FileNotFoundError: the data set cannot be read from `root`.
    """
    try:
        from torchvision import datasets
    except ImportError as error:
        raise ValueError(f"torchvision:{name} needs the package torchvision: pip install torchvision.") from error
    given = {"root": str(root), "train": split == "train", "split": split, "image_set": split, "download": download}
    found = [getattr(datasets, one) for one in datasets.__all__]
    kinds = {kind.__name__.lower(): kind for kind in found if isinstance(kind, type) and _needs(kind) <= set(given)}
    kind = lookup("data set of torchvision", name.lower(), kinds)
    title = f"torchvision:{kind.__name__}:{split}"
    takes = set(inspect.signature(kind).parameters)
    if "train" in takes and split not in ("train", "test"):
        raise ValueError(f'torchvision:{name} has no split {split!r}; choose "train" or "test".')
    if download and "download" not in takes:
        raise ValueError(f"torchvision cannot download {name}: put its files into {root} by hand.")
    try:
        rows = kind(**{key: value for key, value in given.items() if key in takes})
    except (RuntimeError, FileNotFoundError) as error:
        hint = "give the folder it is in as root" + ", or have it fetched by download" * ("download" in takes)
        raise FileNotFoundError(f"{title} cannot be read from {str(root)!r} ({error}): {hint}.") from error
    labels = _labels(rows, title) if labelled else None
    held = _held(rows)
    if held is None:
        return Rows(rows, itemgetter(0), title, str(len(rows)), labels)
    return {"images": held} if labels is None else {"images": held, "targets": labels}


def _needs(kind: type) -> set[str]:
    """Return the arguments that the data set's constructor requires."""
    parameters = inspect.signature(kind).parameters.values()
    return {p.name for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def _held(rows) -> np.ndarray | None:
    """Return the images, uint8 (N, H, W) or (N, H, W, C), if the data set holds them all in memory, else None."""
    held = getattr(rows, "data", ())
    if not hasattr(held, "dtype") or len(held) != len(rows):
        return None
    held = np.asarray(held)
    if held.ndim == 4 and held.shape[1] in (1, 3):
        held = rearrange(held, "n c h w -> n h w c")
    return held if held.dtype == np.uint8 and held.ndim in (3, 4) else None


def _labels(rows, title: str) -> np.ndarray:
    for name in ("targets", "labels", "_labels"):
        found = np.asarray(getattr(rows, name, ()))
        if found.shape == (len(rows),) and np.issubdtype(found.dtype, np.integer):
            return found.astype(np.int64)
    raise ValueError(f"{title} has no labels, one whole number per image: leave labels out.")
