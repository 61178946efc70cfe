"""Data sets from any source: a folder, an `.npz` file, a table, torchvision or Hugging Face."""

import difflib
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from genprior.images.files import part_files, readable_suffixes
from genprior.training.data.arrays import Arrays, read_npz
from genprior.training.data.folder import Folder
from genprior.training.data.photos import Photos
from genprior.training.data.pixels import Images
from genprior.training.data.split import held_out
from genprior.training.data.tables import open_table
from genprior.training.data.torchvision import open_torchvision

KINDS = ("torchvision", "hf")
GIVEN = (
    "a folder of images, an .npz file, a .parquet file or a folder of them, torchvision:NAME[:SPLIT] or "
    "hf:OWNER/NAME[:SPLIT]"
)

# Makes a data set from the source, given which images to keep (by name or content, None for all) and `augment`.
Make = Callable[[Callable[[str | bytes], bool] | None, bool], Photos | Arrays]


def open_data(source: str | Path, size: int = 64, *, augment: bool = True, **options) -> Photos | Arrays:
    """Open the images of a source as `Photos` (read one at a time, cropped) or `Arrays` (of one size, in memory).

    | source | gives |
    |---|---|
    | a folder of images | `Photos` |
    | an `.npz` file | `Arrays` |
    | a `.parquet` file, a folder of them, `hf:OWNER/NAME[:SPLIT]` | `Photos`; needs the package `datasets` |
    | `torchvision:NAME[:SPLIT]` | `Arrays` where torchvision holds arrays (MNIST, CIFAR10), else `Photos` |

    SPLIT is "train" by default. `hf:` data are downloaded from the Hugging Face Hub into its cache on disk.

    Arguments:
        source: as above.
        size: side of the crops of `Photos`.
        augment: False for images as they are, in order, for validation.
        seed: keys order and augmentation; 0 by default.
        channels: of `Photos`.
        orientations: number of orientations of an image, see `Photos`; None for 8 in `Photos` and 1 in `Arrays`.
        images: the array of the `.npz` file ("train_images" if None), or the column of the table (if None, the one that
            holds images).
        labels: the array or column of integer labels; for torchvision, "targets"; None for no labels.
        root: folder of torchvision's data sets, "data" by default.
        download: whether torchvision may download missing data.

    Raises:
        ValueError: there is no such source, it lacks the split, array or column or has no usable images, or the
            package that reads it is missing.
        FileNotFoundError: torchvision's data set is not in `root`.
    """
    return _found(source, size, **options)(None, augment)


def open_parts(source: str | Path, share: float, size: int = 64, **options) -> tuple[Photos | Arrays, Photos | Arrays]:
    """Split the images of a source into those to train on and about the fraction `share`, held out for validation.

    A hash decides (see `held_out`): in a folder, of the image's name; in `Arrays`, of its content; in tables and other
    data sets of torchvision, whose rows have no names, of its row number, so add rows only at the end. The images to
    train on are augmented; those held out are not.

    Arguments:
        source, size, options: as for `open_data`.
        share: in (0, 1).

    Raises:
        ValueError: as for `open_data`, or `share` is out of range, or a part has no images.
    """
    if not 0 < share < 1:
        raise ValueError(f"The share to be held out is {share}: give a fraction between 0 and 1, such as 0.05.")
    make = _found(source, size, **options)
    return make(lambda identity: not held_out(identity, share), True), make(partial(held_out, share=share), False)


def _found(
    source: str | Path,
    size: int,
    *,
    seed: int = 0,
    channels: int = 3,
    orientations: int | None = None,
    images: str | None = None,
    labels: str | None = None,
    root: str | Path = "data",
    download: bool = False,
) -> Make:
    def photos(found: Images) -> Make:
        shown = 8 if orientations is None else orientations
        return lambda keep, augment: Photos(
            found, size, channels=channels, seed=seed, orientations=shown, augment=augment, keep=keep
        )

    def arrays(found, name: str) -> Make:
        shown = 1 if orientations is None else orientations
        return lambda keep, augment: Arrays(
            found,
            name,
            labels,
            keep=keep or slice(None),
            seed=seed if augment else None,
            orientations=shown if augment else 1,
        )

    path = Path(source)
    if path.is_dir():
        if part_files(path, frozenset({".parquet"}))[0] and not part_files(path, readable_suffixes())[0]:
            return photos(open_table(str(path), "train", images, labels))
        if labels is not None:
            raise ValueError(f"labels is {labels!r}, but the images of a folder have none: leave labels out.")
        return photos(Folder(path))
    if path.suffix.lower() == ".npz":
        name = images or "train_images"
        return arrays(read_npz(path, name, labels), name)
    if path.suffix.lower() == ".parquet" and path.is_file():
        return photos(open_table(str(path), "train", images, labels))
    kind, name, split = _parsed(str(source))
    if kind == "hf":
        return photos(open_table(name, split, images, labels))
    if labels not in (None, "targets"):
        raise ValueError(f'labels is {labels!r}, but the labels of data sets of torchvision are called "targets".')
    found = open_torchvision(name, split, Path(root), download, labels is not None)
    return photos(found) if isinstance(found, Images) else arrays(found, "images")


def _parsed(source: str) -> tuple[str, str, str]:
    """Return the kind, name and split of a source that is not a file."""
    match = re.fullmatch(r"([A-Za-z]\w+):([^:]+)(?::([^:]+))?", source)
    if match and match[1] in KINDS:
        return match[1], match[2], match[3] or "train"
    path = Path(source)
    beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    close = [str(path.parent / name) for name in difflib.get_close_matches(path.name, beside, n=1)]
    if match:
        close = [source.replace(match[1], kind, 1) for kind in difflib.get_close_matches(match[1], KINDS, n=1)]
    guess = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"There are no data {source!r}; give {GIVEN}.{guess}")
