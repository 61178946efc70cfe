"""Images read one at a time: the interface of their sources, and the decoding of files to 8-bit pixels."""

import abc
import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from genprior.images.checks import OtherKindError
from genprior.images.deep import open_image
from genprior.images.picture import nearest_seen
from genprior.images.pil import upright
from genprior.images.pixels import Deep

FLOATS = "has floating-point values, whose range is not known"


class UnusableError(Exception):
    """An image can never be trained on: it is broken, too small, or not of 8 or 16 bits.

    A failure to reach the content, such as a disconnected disk, is not of this kind: it may pass.
    """


class Images(abc.ABC):
    """Images by number, none of them held in memory.

    Attributes:
        labels: an integer per image, (N,), or None.
    """

    labels: np.ndarray | None = None

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def name(self, number: int) -> str:
        """Return the image's name, the same on every machine."""

    @abc.abstractmethod
    def mark(self, number: int) -> str:
        """Return the name, with a cheap mark that changes if another image takes that name."""

    @abc.abstractmethod
    def read(self, number: int, mode: str) -> Image.Image:
        """The image, decoded, in mode "L" or "RGB".

        Raises:
            UnusableError: the content cannot be decoded as an image.
            OSError: the content cannot be reached.
        """

    def faults(self, numbers: list[int], size: int) -> dict[int, str]:
        """Return what, as far as visible without decoding, rules out crops of `size`: number -> reason."""
        return {}


def decoded(content: bytes | Image.Image, mode: str) -> Image.Image:
    """Decode a file's content, upright, in mode "L" or "RGB".

    Alpha is dropped, and fully transparent pixels take the colour of the nearest other pixel; 16 bits are rounded to
    8, v / 257; of several frames the first is used.

    Raises:
        UnusableError: it cannot be decoded, or its values are not of 8 or 16 bits.
    """
    try:
        image = content if isinstance(content, Image.Image) else open_image(io.BytesIO(content))
        image = _eight_bits(image)
        image.load()
        return image if image.mode == mode else image.convert(mode)  # `convert` always copies
    except (UnusableError, MemoryError):
        raise
    except OtherKindError as error:
        raise UnusableError(f"is not read: {error}") from error
    except UnidentifiedImageError as error:
        raise UnusableError("is not an image of a known format") from error
    except Exception as error:  # decoders of broken files raise almost anything
        raise UnusableError(f"cannot be decoded ({error})") from error


def fault(size: tuple[int, int], floats: bool, least: int) -> str | None:
    """Why an image of that header, `size` (width, height) and `floats`, has no crops of side `least`; else None."""
    if min(size) < least:
        return f"is {size[0]} x {size[1]}, smaller than crops of {least} x {least}"
    return FLOATS if floats else None


def _eight_bits(image: Image.Image | Deep) -> Image.Image:
    if isinstance(image, Image.Image) and image.mode in ("L", "RGB") and not image.has_transparency_data:
        return ImageOps.exif_transpose(image)
    if isinstance(image, Deep) and image.dtype.kind == "f":
        raise UnusableError(FLOATS)
    values = np.asarray(image if isinstance(image, Deep) else upright(image))
    if values.dtype.kind == "f":
        raise UnusableError(FLOATS)
    if values.dtype == np.uint16:
        values = np.rint(values / 257).astype(np.uint8)
    if values.ndim == 3 and values.shape[2] in (2, 4):
        hidden = values[..., -1] == 0
        values = values[..., :-1]
        if hidden.any() and not hidden.all():
            values = values[tuple(nearest_seen(hidden))]
    return Image.fromarray(values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values)
