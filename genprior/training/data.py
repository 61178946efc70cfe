"""Training data: every item is a function of (seed, item number), so a run resumes by its step alone.

Items are numbered through the whole run: item i belongs to epoch i // N of a data set of N images, in an order
shuffled by (seed, epoch), and its augmentation is drawn from (seed, i).
"""

import functools
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from genprior.images import list_images

DECODED_BYTES = 2**30  # of decoded photographs that a data set keeps, in each process that loads it


class Photos(Dataset):
    """Square crops of the photographs of a folder: scaled down by up to 2, flipped and turned, sometimes made grey.

    Arguments:
        folder: searched recursively; images smaller than `size` are refused.
        size: side of a crop in pixels.
        channels: 3 for RGB, 1 for grey.
        seed: keys order and augmentation.
        shrink: fraction of crops that are scaled down by a factor drawn uniformly from [1, 2]; scaling removes the
            traces of compression and adds detail.
        grey: fraction of RGB crops that are made grey, so that the prior knows grey photographs too.
        augment: False for centred crops, as they are, in order: for validation.
    """

    def __init__(
        self,
        folder: str | Path,
        size: int = 64,
        *,
        channels: int = 3,
        seed: int = 0,
        shrink: float = 0.5,
        grey: float = 0.1,
        augment: bool = True,
    ):
        self.paths = list_images(folder)
        if not self.paths:
            raise ValueError(f"No images found in {str(folder)!r}; give a folder that holds some.")
        if channels not in (1, 3):
            raise ValueError(f"channels is {channels}: give 3 for RGB or 1 for grey.")
        self.mode = "L" if channels == 1 else "RGB"
        self.size, self.seed, self.shrink, self.grey, self.augment = size, seed, shrink, grey, augment
        for path in self.paths:
            _check_photo(path, size)
        self._decoded: dict[Path, Image.Image] = {}
        self._room = DECODED_BYTES

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: int) -> dict[str, torch.Tensor | int]:
        epoch, index = divmod(item, len(self.paths))
        if self.augment:
            path = self.paths[shuffled(self.seed, epoch, len(self.paths))[index]]
            x = self._random_crop(self._photo(path), item)
        else:
            x = self._centre_crop(self._photo(self.paths[index]))
        x = np.atleast_3d(np.asarray(x))
        return {"x": torch.from_numpy(x.transpose(2, 0, 1).astype(np.float32) / 255), "item": item}

    def _photo(self, path: Path) -> Image.Image:
        """Decoded once if there is room: every epoch visits each photograph once, so the first to come may stay."""
        if path in self._decoded:
            return self._decoded[path]
        photo = _decode(path, self.mode)
        size = photo.width * photo.height * (1 if self.mode == "L" else 4)  # PIL holds RGB in four bytes
        if size <= self._room:
            self._decoded[path] = photo
            self._room -= size
        return photo

    def _random_crop(self, image: Image.Image, item: int) -> Image.Image:
        rng = np.random.default_rng((self.seed, 1, item))
        factor = rng.uniform(1, 2) if rng.random() < self.shrink else 1.0
        side = min(self.size * factor, *image.size)
        left, top = (rng.integers(0, int(extent - side) + 1) for extent in image.size)
        if factor > 1:
            image = image.resize((self.size,) * 2, Image.Resampling.BICUBIC, (left, top, left + side, top + side))
        else:
            image = image.crop((left, top, left + self.size, top + self.size))
        turn = rng.integers(0, 8)
        if turn >= 4:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        image = image.rotate(90 * (turn % 4))
        return image.convert("L").convert(self.mode) if rng.random() < self.grey else image

    def _centre_crop(self, image: Image.Image) -> Image.Image:
        left, top = ((extent - self.size) // 2 for extent in image.size)
        return image.crop((left, top, left + self.size, top + self.size))


class Arrays(Dataset):
    """Images of an `.npz` file, such as MNIST, as they are.

    Arguments:
        path: the file.
        images: name of a uint8 array (N, H, W) or (N, H, W, C) in it.
        labels: name of an integer array (N,) in it, or None.
        keep: the slice of the images to use, for a split into training and validation.
        seed: keys the order; None keeps the order of the file.
    """

    def __init__(
        self,
        path: str | Path,
        images: str,
        labels: str | None = None,
        *,
        keep: slice = slice(None),
        seed: int | None = 0,
    ):
        arrays = _npz(path, [images] if labels is None else [images, labels])
        self.images = arrays[images][keep]
        self.labels = None
        if self.images.dtype != np.uint8 or self.images.ndim not in (3, 4):
            raise ValueError(
                f"{images!r} must be uint8 of shape (N, H, W) or (N, H, W, C), "
                f"not {self.images.dtype} {self.images.shape}."
            )
        if not self.images.size:
            raise ValueError(
                f"{images!r} has no images in {keep}, of shape {arrays[images].shape}; give a wider slice."
            )
        if self.images.ndim == 3:
            self.images = self.images[..., None]
        if labels is not None:
            given = arrays[labels]
            if not np.issubdtype(given.dtype, np.integer) or given.shape != arrays[images].shape[:1]:
                raise ValueError(
                    f"{labels!r} must be one integer per image, of shape {arrays[images].shape[:1]}, "
                    f"not {given.dtype} {given.shape}."
                )
            self.labels = given[keep].astype(np.int64)
        self.seed = seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: int) -> dict[str, torch.Tensor | int]:
        epoch, index = divmod(item, len(self.images))
        if self.seed is not None:
            index = shuffled(self.seed, epoch, len(self.images))[index]
        x = torch.from_numpy(self.images[index].transpose(2, 0, 1).astype(np.float32) / 255)
        example = {"x": x, "item": item}
        return example if self.labels is None else {**example, "label": self.labels[index]}


def _check_photo(path: Path, size: int) -> None:
    """Read the header only, so that a run of hours does not end at the one image that is too small."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            mode = image.mode
    except OSError as error:
        raise ValueError(f"{path} is not an image that can be read ({error}); remove it.") from error
    if min(width, height) < size:
        raise ValueError(f"{path} is {width} x {height}, smaller than crops of {size} x {size}; remove it.")
    if mode.startswith(("I", "F")):
        raise ValueError(f"{path} has the mode {mode}, of more than 8 bits a value; convert it to 8 bits.")


def _decode(path: Path, mode: str) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert(mode)
    except OSError as error:
        raise ValueError(f"{path} is damaged ({error}); remove it.") from error


def _npz(path: str | Path, names: list[str]) -> dict[str, np.ndarray]:
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


def first(data: Dataset, n: int) -> torch.Tensor:
    """The first n images of a data set, or all if there are fewer, (n, C, H, W)."""
    return torch.stack([data[i]["x"] for i in range(min(n, len(data)))])


@functools.lru_cache(maxsize=4)
def shuffled(seed: int, epoch: int, length: int) -> list[int]:
    """The order of the images in an epoch."""
    return np.random.default_rng((seed, 0, epoch)).permutation(length).tolist()


def item_numbers(start: int, stop: int, batch: int, micro_batches: int, rank: int, ranks: int) -> Iterator[list[int]]:
    """The items of each micro-batch that this rank trains on, from step `start` to step `stop`.

    Step k trains on items k batch … (k + 1) batch - 1, however many ranks and micro-batches share them.
    """
    share = batch // (micro_batches * ranks)
    for step in range(start, stop):
        for micro_batch in range(micro_batches):
            first = step * batch + (micro_batch * ranks + rank) * share
            yield list(range(first, first + share))
