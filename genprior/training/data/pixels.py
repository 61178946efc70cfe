"""Images that are read one at a time: what a source of them offers, and how a file becomes 8-bit pixels."""

import abc
import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError


class UnusableError(Exception):
    """Why the content of an image cannot be trained on, now or ever: it is broken, too small, or not of 8 or 16 bits.

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
        """The name, and what tells at little cost that there is another image under it."""

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

    Alpha is dropped, and the colours below it kept; 16-bit grey is rounded to 8 bits, v / 257; of several frames the
    first is taken.

    Raises:
        UnusableError: it cannot be decoded, or has values other than of 8 or 16 bits.
    """
    try:
        image = content if isinstance(content, Image.Image) else Image.open(io.BytesIO(content))
        ImageOps.exif_transpose(image, in_place=True)
        image = _eight_bits(image)
        image.load()
        return image if image.mode == mode else image.convert(mode)  # which would copy it
    except (UnusableError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise UnusableError("is not an image of a known format") from error
    except Exception as error:  # decoders of broken files raise almost anything
        raise UnusableError(f"cannot be decoded ({error})") from error


def fault(image: Image.Image, size: int) -> str | None:
    """What is wrong with an image whose header alone was read, for crops of `size`; None if nothing is."""
    if min(image.size) < size:
        return f"is {image.width} x {image.height}, smaller than crops of {size} x {size}"
    if image.mode == "F":
        return "has floating-point values, whose range is not known"
    return None


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise UnusableError("has floating-point values, whose range is not known")
    if image.mode.startswith("I"):  # not by convert, which clips 16-bit values to 255
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise UnusableError(f"has values from {values.min()} to {values.max()}, which are not of 16 bits")
        return Image.fromarray(np.rint(values / 257).astype(np.uint8))
    # Of palettes and of the other modes with transparency PIL keeps the colours on this way only.
    return image.convert("RGBA") if image.has_transparency_data else image
