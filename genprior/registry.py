"""Look up a name in a table."""

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def lookup(kind: str, name: Any, table: Mapping[str, T], *, hint: str = "") -> T:
    """Look up the value of `name` in `table`.

    The message of an error uses `kind` ("operator", "sampler", ...), and `hint`: what may be given besides a name.

    Raises:
        ValueError: `name` is not in the table; the message lists the names and the closest one.
    """
    if isinstance(name, str) and name in table:
        return table[name]
    close = difflib.get_close_matches(str(name).lower(), table, n=1)
    choices = " ".join(filter(None, (", ".join(sorted(table)), hint)))
    guess = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"Unknown {kind} {name!r}; choose among {choices}.{guess}")
