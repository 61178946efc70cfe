"""Images that are read one at a time: what a source of them offers, and how a file becomes 8-bit pixels."""

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
    """Why an image cannot be trained on, now or ever: it is broken, too small, or not of 8 or 16 bits.

    Failures to get at the content, such as a disk that is away, are not of this kind: they may pass.
    """


class Images(abc.ABC):
    """Images by number, of which none is held in memory.

    Attributes:
        labels: an integer per image, (N,), or None.
    """

    labels: np.ndarray | None = None

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def name(self, number: int) -> str:
        """What the image is called, on every machine."""

    @abc.abstractmethod
    def mark(self, number: int) -> str:
        """The name, and a cheap mark that changes if another image takes that name."""

    @abc.abstractmethod
    def read(self, number: int, mode: str) -> Image.Image:
        """The image, decoded, in mode "L" or "RGB".

        Raises:
            UnusableError: the content is no image that can be decoded.
            OSError: the content cannot be got at.
        """

    def faults(self, numbers: list[int], size: int) -> dict[int, str]:
        """What is wrong with those images that can be seen without decoding them to have no crops of `size`."""
        return {}


def decoded(content: bytes | Image.Image, mode: str) -> Image.Image:
    """A file's content, upright, in mode "L" or "RGB".

    Alpha is dropped, and what it hides takes the colour of the nearest pixel that it does not; 16 bits are rounded to
    8, v / 257; of several frames the first is taken.

    Raises:
        UnusableError: it cannot be decoded, or has values other than of 8 or 16 bits.
    """
    try:
        image = content if isinstance(content, Image.Image) else open_image(io.BytesIO(content))
        image = _eight_bits(image)
        image.load()
        return image if image.mode == mode else image.convert(mode)  # which would copy it
    except (UnusableError, MemoryError):
        raise
    except OtherKindError as error:
        raise UnusableError(f"is not read: {error}") from error
    except UnidentifiedImageError as error:
        raise UnusableError("is not an image of a known format") from error
    except Exception as error:  # decoders of broken files raise almost anything
        raise UnusableError(f"cannot be decoded ({error})") from error


def fault(size: tuple[int, int], floats: bool, least: int) -> str | None:
    """What the header of an image (width, height) reveals to be wrong for crops of that side; None if nothing is."""
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
