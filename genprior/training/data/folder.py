"""The images of a folder."""

import warnings
from pathlib import Path

from PIL import Image

from genprior.images import list_images
from genprior.images.deep import header
from genprior.training.data.pixels import Images, decoded, fault


class Folder(Images):
    """The image files (by suffix) of a folder and its subfolders, sorted; links to folders are not followed.

    An image's name is its path relative to the folder, with "/" on every system.

    Raises:
        NotADirectoryError: there is no such folder.
        ValueError: it holds no images.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.paths = list_images(folder)
        if not self.paths:
            raise ValueError(f"No images found in {str(folder)!r}; give a folder that holds some.")

    def __str__(self) -> str:
        return str(self.folder)

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, number: int) -> str:
        return self.paths[number].relative_to(self.folder).as_posix()

    def mark(self, number: int) -> str:
        return f"{self.name(number)}, {self.paths[number].stat().st_size} bytes"

    def read(self, number: int, mode: str) -> Image.Image:
        # Reading is separate from decoding: a file that the disk fails to deliver may be readable when training
        # resumes, and must not be taken for a broken image, which is never tried again.
        return decoded(self.paths[number].read_bytes(), mode)

    def faults(self, numbers: list[int], size: int) -> dict[int, str]:
        found = {}
        with warnings.catch_warnings():
            # PIL refuses some images that claim too many pixels and only warns of others; both are faults here.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            for number in numbers:
                try:
                    with self.paths[number].open("rb") as file:
                        reason = fault(*header(file), size)
                except Exception as error:
                    reason = f"cannot be read as an image ({type(error).__name__})"
                if reason:
                    found[number] = reason
        return found
