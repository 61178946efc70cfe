"""The precision in which a run's networks compute, chosen for the device at each start or resume."""

import torch

from genprior.devices import has_bfloat16


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The autocast dtype for a `Settings.precision` on that device; None for float32, which needs none.

    "auto" is bfloat16 where the device has instructions for it. A processor without them emulates bfloat16: a step took
    13 times as long as in float32.
    """
    fast = precision == "bf16" or (precision == "auto" and has_bfloat16(device))
    return torch.bfloat16 if fast else None


def precision_name(dtype: torch.dtype | None) -> str:
    """Return the name of the precision for banner and card."""
    return "float32" if dtype is None else "bfloat16 autocast"
