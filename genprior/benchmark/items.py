"""Storage of results as they arrive: a folder of small JSON files, one per image and method, complete or absent."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genprior.files import sha256, write_text
from genprior.operators.base import Operator

Record = dict[str, Any]


def stem(number: int, method: str) -> str:
    """The file name for an image and a method: unique, and valid on every file system."""
    plain = re.sub(r"[^a-z0-9-]+", "-", method.lower()).strip("-")
    if plain != method:
        plain = f"{plain[:40]}-{sha256(method)[:8]}"
    return f"{number:06d}-{plain}"


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
    """The differences between two JSON values, in words."""
    if isinstance(stored, dict) and isinstance(given, dict):
        keys = list(dict.fromkeys([*stored, *given]))
        return [d for key in keys for d in differences(stored.get(key), given.get(key), f"{name} {key}".strip())]
    return [] if stored == given else [f"{name} was {stored!r} and is {given!r}"]


def digest(thing: Any) -> str:
    """sha256 of the contents of a prior or an operator: type, numbers, strings, tensors and functions, at any depth.

    A function is its code and the values that it uses; a class, and what its methods do, its name alone.
    """
    return sha256(*_parts(thing, ()))


def _parts(thing: Any, within: tuple[int, ...]) -> Iterator[str | Tensor]:
    """Yield what makes the thing up; `within` are the ids of the things that it is a part of, which may refer back."""
    yield type(thing).__qualname__
    if id(thing) in within:
        return
    within = (*within, id(thing))
    if isinstance(thing, Tensor):
        yield from (f"{thing.dtype} {tuple(thing.shape)}", thing)
    elif isinstance(thing, np.ndarray):
        yield from _parts(torch.from_numpy(np.ascontiguousarray(thing)), within)
    elif isinstance(thing, bool | int | float | complex | str | bytes | np.generic | None):
        yield repr(thing)
    elif isinstance(thing, list | tuple):
        for item in thing:
            yield from _parts(item, within)
    elif isinstance(thing, dict):
        for key, value in thing.items():
            yield from (*_parts(key, within), *_parts(value, within))
    elif isinstance(thing, nn.Module):
        yield from _parts(dict(thing.state_dict()), within)
        for part in thing.modules():
            yield from _parts(_public(part), within)
    elif isinstance(thing, Operator):
        yield from _parts(_public(thing), within)
    elif isinstance(thing, FunctionType):
        yield from _parts((thing.__code__, thing.__defaults__, thing.__kwdefaults__, _used(thing)), within)
    elif isinstance(thing, CodeType):
        yield from _parts((thing.co_code, thing.co_names, thing.co_consts), within)
    elif isinstance(thing, frozenset):
        yield from sorted(map(repr, thing))
    elif isinstance(thing, MethodType):
        yield from _parts((thing.__func__, thing.__self__, _public(thing.__self__)), within)
    elif isinstance(thing, partial):
        yield from _parts((thing.func, thing.args, thing.keywords), within)


def _used(function: FunctionType) -> dict[str, Any]:
    """Return the values that a function refers to; of the global ones, neither functions, classes nor modules."""
    try:
        found = inspect.getclosurevars(function)
    except ValueError:  # of a function that is not complete yet
        return {}
    named = (FunctionType, BuiltinFunctionType, ModuleType, type)
    plain = {name: value for name, value in found.globals.items() if not isinstance(value, named)}
    return {**plain, **found.nonlocals}


def _public(thing: Any) -> dict[str, Any]:
    """Return public attributes without `training`, which does not change any draw."""
    return {
        key: value
        for key, value in getattr(thing, "__dict__", {}).items()
        if not key.startswith("_") and key != "training"
    }
