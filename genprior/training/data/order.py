"""The image of each item, and the items of each process."""

import functools
import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

GOLDEN = (math.sqrt(5) - 1) / 2


def spread(items: torch.Tensor) -> torch.Tensor:
    """Return numbers in (0, 1), one per item, spread evenly over consecutive items (Kronecker sequence)."""
    return ((items.double() + 0.5) * GOLDEN) % 1


class Data(Dataset[dict[str, Any]]):
    """Training data: maps an item number, however large, to a dict of its image, "x", and that number, "item"."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""


def first(data: Data, n: int) -> torch.Tensor:
    """The first n images of a data set, or all if there are fewer, (n, C, H, W)."""
    return torch.stack([data[i]["x"] for i in range(min(n, len(data)))])


def evenly(data: Data, n: int) -> torch.Tensor:
    """n images spread evenly over a data set, or all of a smaller one, (n, C, H, W): in one sorted by class, of each.

    Whatever n is, the first k are the same, and spread evenly too.
    """
    numbers = spread(torch.arange(len(data))).argsort().argsort()[:n]
    return torch.stack([data[i]["x"] for i in numbers.tolist()])


@functools.lru_cache(maxsize=4)
def shuffled(seed: int, epoch: int, length: int) -> list[int]:
    """The order of the images in an epoch."""
    return np.random.default_rng((seed, 0, epoch)).permutation(length).tolist()


def item_numbers(start: int, stop: int, batch: int, rank: int, ranks: int) -> Iterator[list[int]]:
    """Yield the items of each batch that this rank trains on, from step `start` up to step `stop`.

    Step k trains on items k batch … (k + 1) batch - 1, however many ranks share them.
    """
    share = batch // ranks
    for step in range(start, stop):
        first = step * batch + rank * share
        yield list(range(first, first + share))
