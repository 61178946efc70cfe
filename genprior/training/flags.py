"""Every field of `Settings` as a command-line flag, for `genprior train` and the recipes; without torch."""

import argparse
from dataclasses import fields
from typing import Any

from genprior.training.settings import OPTIMIZERS, PRECISIONS, Settings

SPECIAL: dict[str, dict[str, Any]] = {
    "betas": {"nargs": 2},
    "precision": {"choices": PRECISIONS},
    "optimizer": {"choices": OPTIMIZERS},
}


def add_flags(parser: Any, defaults: Settings | None = None) -> None:
    """Add a flag for every setting to a parser or argument group; flags not given stay out of its options.

    Arguments:
        parser: argparse's, or one of its groups.
        defaults: settings whose values the help shows as defaults; None to show none.
    """
    for each in fields(Settings):
        name, kind = each.name, each.metadata["kind"].type
        options: dict[str, Any] = {"action": argparse.BooleanOptionalAction} if kind is bool else {"type": kind}
        options |= SPECIAL.get(name, {})
        said = each.metadata["text"] + ("" if defaults is None else f" (default: {getattr(defaults, name)})")
        flags = (f"--{name.replace('_', '-')}", *each.metadata["flags"])
        parser.add_argument(*flags, dest=name, default=argparse.SUPPRESS, help=said, **options)


def stated(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that were given among the options of a parser with `add_flags`."""
    found = {each.name: getattr(options, each.name) for each in fields(Settings) if hasattr(options, each.name)}
    if "betas" in found:
        found["betas"] = tuple(found["betas"])
    return found
