"""Files and folders that are complete or absent, even if writing is interrupted; and hashes of their contents.

Both are written under a hidden name beside their target, flushed to disk and renamed: a reader never sees half of one,
and if writing fails, what was there stays.
"""

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write, which replaces `path` once it is complete; make its folder if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, so that the replacement is one rename within one file system.
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write text in UTF-8; bytes of file names that are not UTF-8 are escaped, in JSON just as JSON does it."""
    with replacing(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Fill `folder` with `write(temporary)` and put it in place at once, replacing the old one."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        write(temporary)
        for path in [*temporary.rglob("*"), temporary]:
            _flush(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old.tmp") if folder.exists() else None
    if old is not None:
        os.replace(folder, old)
    os.replace(temporary, folder)
    _flush(folder.parent)  # the new name must be on disk before anything older is removed
    if old is not None:
        shutil.rmtree(old)


def refuse_existing(
    paths: Sequence[Path], overwrite: bool, advice: str = "choose another path or pass overwrite=True"
) -> None:
    """Raise an error if a file or folder exists, unless `overwrite` is set.

    Raises:
        FileExistsError: a path exists; the message names it and ends with the advice.
    """
    there = [str(path) for path in paths if path.exists()]
    if there and not overwrite:
        raise FileExistsError(f"{', '.join(there)} exists; {advice}.")


def sha256(*parts: Any) -> str:
    """The hash of all parts, one after the other: text, bytes, values of tensors in C order, contents of files.

    Tensors count by their values alone, whatever their device and memory format. File names may hold bytes that are
    not UTF-8, which count as they are.

    Arguments:
        parts: each a str, a Tensor, the Path of a file, or bytes-like, such as a numpy array.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            with open(part, "rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
        elif isinstance(part, Tensor):
            part = part.detach().resolve_conj().resolve_neg()
            digest.update(part.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:
            digest.update(part.encode(errors="surrogateescape") if isinstance(part, str) else part)
    return digest.hexdigest()


def _flush(path: Path) -> None:
    """Flush a file or folder to disk; where folders cannot be opened (Windows), their names flush by themselves."""
    with contextlib.suppress(PermissionError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
