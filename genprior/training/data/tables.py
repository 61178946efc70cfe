"""Images in tables: parquet files and data sets of the Hugging Face Hub, read by the package `datasets`."""

from functools import partial
from pathlib import Path

import numpy as np

from genprior.training.data.pixels import UnusableError
from genprior.training.data.rows import Rows


def open_table(source: str, split: str, column: str | None, labels: str | None) -> Rows:
    """Open the images of a parquet file, a folder of them, or a data set of the Hub; rows are memory-mapped.

    Raises:
        ValueError: no such data set, split or column, several columns of images, or the package `datasets` is missing.
    """
    try:
        import datasets
    except ImportError as error:
        raise ValueError(
            f'{source} is read by the package datasets: pip install datasets, or pip install "genprior[hf]".'
        ) from error
    path = Path(source)
    try:
        if path.is_file():
            rows = datasets.load_dataset("parquet", data_files=source, split=split)
        else:
            rows = datasets.load_dataset(source, split=split)
    except Exception as error:  # from the network, the Hub or the format
        raise ValueError(f"{source}, split {split!r}, cannot be read: {error}") from error
    column = column or _image_column(source, rows.features, datasets.Image)
    for name in filter(None, (column, labels)):
        if name not in rows.features:
            raise ValueError(f"{source} has no column {name!r}, only {', '.join(rows.features)}.")
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path] if path.is_file() else []
    return Rows(
        # Decoded here, not by `datasets`, to tell images that cannot be decoded from files that cannot be read.
        rows.select_columns([column]).cast_column(column, datasets.Image(decode=False)),
        partial(_content, column),
        f"{path.name if files else source}:{split}",
        "\n".join([str(len(rows)), *(f"{file.name} {file.stat().st_size}" for file in files)]),
        _integers(source, labels, rows[labels][:]) if labels else None,
    )


def _content(column: str, row: dict) -> bytes:
    """Return the bytes of the file that a row's cell holds, or whose path it holds."""
    cell = row[column]
    if not cell or (cell["bytes"] is None and cell["path"] is None):
        raise UnusableError("is empty")
    return Path(cell["path"]).read_bytes() if cell["bytes"] is None else cell["bytes"]


def _image_column(source: str, features, image: type) -> str:
    """Return the column that holds images, found by type, or by name where the file declares no types."""
    found = [name for name, feature in features.items() if isinstance(feature, image)]
    found = found or [name for name in ("image", "img", "images") if name in features]
    if len(found) != 1:
        raise ValueError(
            f"{source} has {len(found)} columns of images among {', '.join(features)}; name the one to use by images."
        )
    return found[0]


def _integers(source: str, column: str, values: list) -> np.ndarray:
    found = np.asarray(values)
    if found.ndim != 1 or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(f"{column!r} of {source} must be one whole number per image, not {found.dtype}.")
    return found.astype(np.int64)
