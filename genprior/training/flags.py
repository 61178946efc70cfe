"""Every field of `Settings` as a flag of a command line, for `genprior train` and the recipes; without torch."""

import argparse
from typing import Any

from genprior.training.settings import PRECISIONS, Settings


def count(text: str) -> int | None:
    return None if text == "none" else int(text)


def minutes(text: str) -> float | None:
    return None if text == "none" else float(text)


# Of every field: its type, other names of its flag, and what it says.
FLAGS: dict[str, tuple[Any, tuple[str, ...], str]] = {
    "steps": (int, ("--max-train-steps",), "optimiser steps in all"),
    "minutes": (minutes, (), "of the clock in which to end: as many of the steps as fit"),
    "batch": (int, ("--train-batch-size",), "images per step, over all devices and micro-batches"),
    "accumulate": (int, ("--gradient-accumulation-steps",), "micro-batches per step: less memory, the same step"),
    "auto_batch": (bool, (), "make more micro-batches where memory does not suffice (on one process)"),
    "lr": (float, ("--learning-rate",), "learning rate at its height"),
    "warmup": (int, ("--lr-warmup-steps",), "steps over which it rises"),
    "decay": (float, (), "last fraction of the steps, over which it falls to zero"),
    "weight_decay": (float, ("--adam-weight-decay",), "AdamW's"),
    "betas": (float, (), "AdamW's"),
    "clip": (float, ("--max-grad-norm",), "largest norm of a gradient"),
    "ema": (float, ("--ema-decay",), "decay of the moving average of the weights, which is what is kept"),
    "precision": (str, ("--mixed-precision",), "no (float32), bf16, or auto: bf16 where the device is fast in it"),
    "compile": (bool, (), "compile the networks: slow to begin, then faster on a GPU"),
    "seed": (int, (), "of weights, data and noise"),
    "log_every": (int, ("--logging-steps",), "steps from one line of log.jsonl to the next"),
    "validate_every": (int, ("--validation-steps",), "steps from one validation and sheet of samples to the next"),
    "save_every": (int, ("--checkpointing-steps",), "steps from one checkpoint to the next"),
    "keep": (int, ("--checkpoints-total-limit",), "newest checkpoints kept, besides the best"),
    "patience": (count, (), "validations without improvement after which to stop, with the best weights; or none"),
    "workers": (int, ("--dataloader-num-workers",), "processes that load data"),
}


def add_flags(parser: Any, defaults: Settings | None = None) -> None:
    """Give a parser, or a group of one, a flag for every setting; those that are not given stay out of its options.

    Arguments:
        parser: of argparse.
        defaults: what the help says of a setting that is not given.
    """
    for name, (kind, others, text) in FLAGS.items():
        options: dict[str, Any] = {"action": argparse.BooleanOptionalAction} if kind is bool else {"type": kind}
        options |= {"betas": {"nargs": 2}, "precision": {"choices": list(PRECISIONS)}}.get(name, {})
        said = "" if defaults is None else f" (default: {getattr(defaults, name)})"
        parser.add_argument(
            f"--{name.replace('_', '-')}", *others, dest=name, default=argparse.SUPPRESS, help=text + said, **options
        )


def stated(options: argparse.Namespace) -> dict[str, Any]:
    """The settings among the options of a parser with `add_flags` that were given."""
    found = {name: getattr(options, name) for name in FLAGS if hasattr(options, name)}
    if "betas" in found:
        found["betas"] = tuple(found["betas"])
    return found
