"""Images of a data set whose rows have no names."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from PIL import Image

from genprior.files import sha256
from genprior.training.data.pixels import Images, UnusableError, decoded


class Numbered(Protocol):
    """Rows by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Any: ...


class Rows(Images):
    """The images of rows, named by row number.

    Arguments:
        rows: read one at a time.
        content: maps a row to its image, as a file's bytes or a PIL image.
        title: of the data set, for messages.
        origin: distinguishes these rows from others of the same title, for example by file sizes.
        labels: an integer per row, (N,), or None.
    """

    def __init__(
        self,
        rows: Numbered,
        content: Callable[[Any], bytes | Image.Image],
        title: str,
        origin: str = "",
        labels: np.ndarray | None = None,
    ):
        self.rows, self.content, self.title, self.labels = rows, content, title, labels
        self._origin = sha256(f"{title}\n{origin}")[:16]

    def __str__(self) -> str:
        return self.title

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, number: int) -> str:
        return str(number)

    def mark(self, number: int) -> str:
        return f"{self._origin}, {number}"

    def read(self, number: int, mode: str) -> Image.Image:
        try:
            content = self.content(self.rows[number])
        except OSError as error:
            if error.errno is not None:  # raised by the disk, not the decoder
                raise
            raise UnusableError(f"cannot be decoded ({error})") from error
        return decoded(content, mode)
