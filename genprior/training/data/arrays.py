"""Images of one size, held in memory."""

import functools
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange

from genprior.files import sha256
from genprior.training.data.order import Data, shuffled
from genprior.training.data.orientation import check_orientations, turned


class Arrays(Data):
    """Whole images of an `.npz` file, such as MNIST, all held in memory.

    Arguments:
        source: the file, or a mapping from names to arrays.
        images: name of a uint8 array (N, H, W) or (N, H, W, C) in it.
        labels: name of an integer array (N,) in it, or None.
        keep: the images to use: a slice, or a predicate on an image's bytes.
        seed: keys the order, and how an item is flipped and turned; None keeps the order of the file.
        orientations: 8 for flips and quarter turns (of square images), 2 for left-right flips, 1 for images as they
            are; values above 1 need a seed.

    Raises:
        ValueError: the file, an array or `orientations` is not as described, or no image is kept.
    """

    def __init__(
        self,
        source: str | Path | Mapping[str, np.ndarray],
        images: str,
        labels: str | None = None,
        *,
        keep: slice | Callable[[bytes], bool] = slice(None),
        seed: int | None = 0,
        orientations: int = 1,
    ):
        arrays = source if isinstance(source, Mapping) else read_npz(source, images, labels)
        given = arrays[images]
        if np.ma.is_masked(given) or (labels is not None and np.ma.is_masked(arrays[labels])):
            raise ValueError(f"{images!r} or their labels are a masked array; leave out what is masked.")
        if given.dtype != np.uint8 or given.ndim not in (3, 4):
            raise ValueError(
                f"{images!r} must be uint8 of shape (N, H, W) or (N, H, W, C), not {given.dtype} {given.shape}."
            )
        kept = np.flatnonzero([keep(image.tobytes()) for image in given]) if callable(keep) else keep
        self.images = given[kept] if given.ndim == 4 else given[kept][..., None]
        if not self.images.size:
            raise ValueError(
                f"{images!r} of shape {given.shape} has no images in this part: give more images, or another share."
            )
        check_orientations(orientations)
        height, width = self.images.shape[1:3]
        if orientations == 8 and height != width:
            raise ValueError(
                f"orientations is 8, but images of {height} x {width} are not square: give 2 (mirrored) or 1 (as is)."
            )
        if orientations > 1 and seed is None:
            raise ValueError(f"orientations is {orientations}, which a seed decides: give one, or orientations 1.")
        self.orientations = orientations
        self.labels = None
        if labels is not None:
            numbers = arrays[labels]
            if not np.issubdtype(numbers.dtype, np.integer) or numbers.shape != given.shape[:1]:
                raise ValueError(
                    f"{labels!r} must be one integer per image, of shape {given.shape[:1]}, "
                    f"not {numbers.dtype} {numbers.shape}."
                )
            self.labels = numbers[kept].astype(np.int64)
        self.seed = seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: int) -> dict[str, Any]:
        epoch, index = divmod(item, len(self.images))
        if self.seed is None:
            image = self.images[index]
        else:
            index = shuffled(self.seed, epoch, len(self.images))[index]
            image = turned(self.images[index], self.orientations, np.random.default_rng((self.seed, 1, item)))
        x = torch.from_numpy(rearrange(image, "h w c -> c h w").astype(np.float32) / 255)
        example = {"x": x, "item": item}
        return example if self.labels is None else {**example, "label": self.labels[index]}

    @functools.cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What a checkpoint stores to detect changed data: a hash of images and labels, seed and orientations."""
        hashed = [np.ascontiguousarray(part) for part in (self.images, self.labels) if part is not None]
        return {
            "images": len(self),
            "size": list(self.images.shape[1:]),
            "sha256": sha256(*hashed)[:16],
            "seed": self.seed,
            "orientations": self.orientations,
        }


def read_npz(path: str | Path, images: str, labels: str | None = None) -> dict[str, np.ndarray]:
    """Read the named arrays of an `.npz` file.

    Raises:
        ValueError: it is not an `.npz` file, is damaged, or lacks an array.
    """
    names = [images] if labels is None else [images, labels]
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError("it holds one array without a name")
        with file:
            missing = sorted(set(names) - set(file.files))
            if missing:
                raise ValueError(f"it has no array {', '.join(missing)}, only {', '.join(file.files)}")
            return {name: file[name] for name in names}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{str(path)!r} is not an .npz file with arrays {', '.join(names)}: {error}.") from error


def read_names(path: str | Path, array: str) -> tuple[str, ...]:
    """Read the names of classes, in the order of their labels, from an array of strings (K,) in an `.npz` file.

    Raises:
        ValueError: it is not an `.npz` file, is damaged, or has no such array of strings.
    """
    names = read_npz(path, array)[array]
    if names.dtype.kind != "U" or names.ndim != 1:
        raise ValueError(f"{array!r} must be texts of shape (K,), not {names.dtype} {names.shape}.")
    return tuple(names.tolist())
