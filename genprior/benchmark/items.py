"""Results as they come: a folder of small JSON files, one for each image and method, each whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genprior.operators.base import LinearOperator

Record = dict[str, Any]


def stem(number: int, method: str) -> str:
    """The name of the files of an image and a method: its own for each, and one that every file system takes."""
    plain = re.sub(r"[^a-z0-9-]+", "-", method.lower()).strip("-")
    if plain != method:
        plain = f"{plain[:40]}-{hashlib.sha256(method.encode()).hexdigest()[:8]}"
    return f"{number:06d}-{plain}"


def write_text(path: Path, text: str) -> None:
    """Write a file, all or nothing; an old one is replaced.

    Bytes of a file's name that are no UTF-8 are escaped, in JSON just as JSON does.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "x", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def to_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def write_record(folder: Path, number: int, method: str, record: Record) -> None:
    write_text(folder / f"{stem(number, method)}.json", to_json(record))


def read_record(folder: Path, number: int, method: str) -> Record | None:
    path = folder / f"{stem(number, method)}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); remove it, and it is computed again.") from error


def differences(stored: Any, given: Any, name: str = "") -> list[str]:
    """In words, where two JSON values differ."""
    if isinstance(stored, dict) and isinstance(given, dict):
        keys = list(dict.fromkeys([*stored, *given]))
        return [d for key in keys for d in differences(stored.get(key), given.get(key), f"{name} {key}".strip())]
    return [] if stored == given else [f"{name} was {stored!r} and is {given!r}"]


def digest(thing: Any) -> str:
    """sha256 of what a prior or an operator is made of: type, numbers, words and tensors, wherever they lie."""
    hasher = hashlib.sha256()
    _feed(hasher, thing)
    return hasher.hexdigest()


def _feed(hasher: Any, thing: Any) -> None:
    hasher.update(type(thing).__qualname__.encode())
    if isinstance(thing, Tensor):
        values = thing.detach().cpu().contiguous()
        hasher.update(f"{values.dtype} {tuple(values.shape)}".encode())
        hasher.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(thing, np.ndarray):
        _feed(hasher, torch.from_numpy(np.ascontiguousarray(thing)))
    elif isinstance(thing, bool | int | float | complex | str | bytes | None):
        hasher.update(repr(thing).encode())
    elif isinstance(thing, list | tuple):
        for item in thing:
            _feed(hasher, item)
    elif isinstance(thing, dict):
        for key, value in thing.items():
            _feed(hasher, key)
            _feed(hasher, value)
    elif isinstance(thing, nn.Module):
        _feed(hasher, dict(thing.state_dict()))
        for part in thing.modules():
            _feed(hasher, _public(part))
    elif isinstance(thing, LinearOperator):
        _feed(hasher, _public(thing))


def _public(thing: Any) -> dict[str, Any]:
    """Attributes of its own; `training` changes nothing that is drawn."""
    return {key: value for key, value in vars(thing).items() if not key.startswith("_") and key != "training"}
