"""Images of a data set whose rows have no names."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from PIL import Image

from genprior.files import sha256
from genprior.training.data.pixels import Images, UnusableError, decoded


class Numbered(Protocol):
    """What has rows by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Any: ...


class Rows(Images):
    """Images of rows, named by their numbers.

    Arguments:
        rows: read one at a time.
        content: from a row to its image: a file's bytes, or PIL's.
        title: of the data set, for messages.
        origin: what tells these rows from others of that title, such as sizes of files.
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
            if error.errno is not None:  # the disk's complaint, not the decoder's
                raise
            raise UnusableError(f"cannot be decoded ({error})") from error
        return decoded(content, mode)
