"""Crops of images of any size, each read and decoded when it is needed."""

import functools
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch.utils.data import get_worker_info

from genprior.checks import COUNT, check_arguments
from genprior.files import sha256
from genprior.training.data.folder import Folder
from genprior.training.data.order import Data, shuffled
from genprior.training.data.orientation import check_orientations, turned
from genprior.training.data.pixels import Images, UnusableError

DECODED_BYTES = 2**30  # of the decoded photographs that a data set keeps, shared among the workers of a process
NAMED = 3  # unusable images that a message names; the others are counted
TRIES = 100  # images in a row that may turn out unusable before training stops


class Photos(Data):
    """Square crops of photographs: scaled down by up to 2, flipped and turned, sometimes made grey.

    Images that are broken or smaller than `size` are left out, with one warning that counts them. A truncated file is
    detected only when it is decoded; a warning then names it, and the next image of the epoch replaces it. An item is
    thus still a function of (seed, item number) and of the files, in every process.

    Decoded images are kept while there is room (`DECODED_BYTES`); the others are read each time they are needed, so the
    data may be larger than memory.

    Arguments:
        images: a folder, searched recursively, or other `Images`.
        size: side of a crop in pixels.
        channels: 3 for RGB, 1 for grey.
        seed: keys order and augmentation.
        shrink: fraction of crops that are scaled down by a factor drawn uniformly from [1, 2]; scaling removes
            compression artefacts and adds detail.
        grey: fraction of RGB crops that are made grey, so that the prior learns grey photographs too.
        orientations: 8 for flips and quarter turns, 2 for left-right flips, 1 for images as they are.
        augment: False for centre crops, unchanged and in order, for validation.
        keep: predicate on an image's name that selects the images to use; None for all.

    Raises:
        ValueError: no usable images, or arguments that are not as described.
    """

    def __init__(
        self,
        images: str | Path | Images,
        size: int = 64,
        *,
        channels: int = 3,
        seed: int = 0,
        shrink: float = 0.5,
        grey: float = 0.1,
        orientations: int = 8,
        augment: bool = True,
        keep: Callable[[str], bool] | None = None,
    ):
        if channels not in (1, 3):
            raise ValueError(f"channels is {channels}: give 3 for RGB or 1 for grey.")
        check_arguments(locals(), size=COUNT)
        check_orientations(orientations)
        self.images = images if isinstance(images, Images) else Folder(images)
        self.mode = "L" if channels == 1 else "RGB"
        self.size, self.seed, self.shrink, self.grey, self.augment = size, seed, shrink, grey, augment
        self.orientations = orientations
        wanted = [number for number in range(len(self.images)) if keep is None or keep(self.images.name(number))]
        self._unusable = self.images.faults(wanted, size)
        self.numbers = [number for number in wanted if number not in self._unusable]
        self.labels = None if self.images.labels is None else self.images.labels[self.numbers]
        if not wanted:
            raise ValueError(
                f"None of the {len(self.images)} images of {self.images} falls into this part: give more images, or "
                "another share."
            )
        if not self.numbers:
            raise ValueError(f"There is no usable image among {self._counted(len(wanted))}.")
        if self._unusable:
            warnings.warn(f"Left out are {self._counted(len(wanted))}.", stacklevel=2)
        self._decoded: dict[int, Image.Image] = {}
        self._held = 0

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, item: int) -> dict[str, Any]:
        epoch, index = divmod(item, len(self))
        order = shuffled(self.seed, epoch, len(self)) if self.augment else range(len(self))
        number, photo = self._next_usable(order, index)
        x = self._random_crop(photo, item) if self.augment else self._centre_crop(photo)
        example = {
            "x": torch.from_numpy(rearrange(np.atleast_3d(x), "h w c -> c h w").astype(np.float32) / 255),
            "item": item,
        }
        return example if self.images.labels is None else {**example, "label": self.images.labels[number]}

    @functools.cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What a checkpoint stores to detect changed data: file names and sizes, not content, and crop options."""
        marks = sorted(unicodedata.normalize("NFC", self.images.mark(number)) for number in self.numbers)
        names = ("size", "mode", "seed", "shrink", "grey", "orientations", "augment")
        return {
            "images": len(self),
            "sha256": sha256("\n".join(marks))[:16],
            **{name: getattr(self, name) for name in names},
        }

    def _next_usable(self, order, index: int) -> tuple[int, Image.Image]:
        """Return the image at `index` in the order, or the first usable one after it."""
        tries = min(TRIES, len(self))
        for k in range(tries):
            number = self.numbers[order[(index + k) % len(self)]]
            if number in self._unusable:
                continue
            try:
                return number, self._photo(number)
            except UnusableError as error:
                self._unusable[number] = str(error)
                warnings.warn(
                    f"{self.images.name(number)} of {self.images} {error}; the image after it takes its place.",
                    stacklevel=3,
                )
        raise ValueError(f"{tries} images in a row cannot be used: {self._counted(tries)}.")

    def _photo(self, number: int) -> Image.Image:
        """Return a photograph, kept decoded while there is room; each is used once per epoch, so the first may stay."""
        if number in self._decoded:
            return self._decoded[number]
        photo = self.images.read(number, self.mode)
        if min(photo.size) < self.size:
            raise UnusableError(f"is {photo.width} x {photo.height}, smaller than crops of {self.size} x {self.size}")
        size = photo.width * photo.height * (1 if self.mode == "L" else 4)  # PIL holds RGB in four bytes
        worker = get_worker_info()
        if self._held + size <= DECODED_BYTES // (worker.num_workers if worker else 1):
            self._decoded[number] = photo
            self._held += size
        return photo

    def _random_crop(self, image: Image.Image, item: int) -> np.ndarray:
        rng = np.random.default_rng((self.seed, 1, item))
        factor = rng.uniform(1, 2) if rng.random() < self.shrink else 1.0
        side = min(self.size * factor, *image.size)
        left, top = (int(rng.integers(0, int(extent - side) + 1)) for extent in image.size)
        if factor > 1:
            image = image.resize((self.size, self.size), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
        else:
            image = image.crop((left, top, left + self.size, top + self.size))
        x = turned(np.asarray(image), self.orientations, rng)
        return np.asarray(Image.fromarray(x).convert("L").convert(self.mode)) if rng.random() < self.grey else x

    def _centre_crop(self, image: Image.Image) -> np.ndarray:
        left, top = ((extent - self.size) // 2 for extent in image.size)
        return np.asarray(image.crop((left, top, left + self.size, top + self.size)))

    def _counted(self, of: int) -> str:
        """Count the unusable images, and give name and reason for the first few."""
        found = [f"{self.images.name(number)} {reason}" for number, reason in self._unusable.items()]
        more = f"; and {len(found) - NAMED} more" if len(found) > NAMED else ""
        return f"{len(found)} of {of} images of {self.images}: {'; '.join(found[:NAMED])}{more}"
