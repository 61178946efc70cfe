"""Networks inside their wrappers: of torch.compile, of several devices, of a moving average of weights."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

COMPILED = "_orig_mod"  # where torch.compile keeps the network; its class is not asked for, to import it takes seconds
# Averages of other packages, which are not imported here to ask: package -> where the averaged network is.
AVERAGES = {"ema_pytorch": "ema_model", "timm": "module"}


def unwrapped(network: Any) -> Any:
    """The network in all its wrappers; what has none, and what is no network, comes back as it is."""
    while slot := _slot(network):
        network = getattr(network, slot)
    return network


def on_one_device(network: Any) -> Any:
    """The network without its wrappers but for that of torch.compile, which computes the same, only faster."""
    while (slot := _slot(network)) and not (slot == COMPILED and not _slot(getattr(network, slot))):
        network = getattr(network, slot)
    return network


def plain_state(module: nn.Module) -> dict[str, Tensor]:
    """Its state dictionary by the names that it has without wrappers."""
    wrappers = {
        f"{name}.": f"{name}.{slot}." for name, part in module.named_modules() if name and (slot := _slot(part))
    }
    state = dict(module.state_dict())
    # the innermost first, whose names begin with those of the wrappers around them
    for plain, wrapped in reversed(wrappers.items()):
        state = {plain + key.removeprefix(wrapped) if key.startswith(wrapped) else key: t for key, t in state.items()}
    return state


def _slot(network: Any) -> str | None:
    """The name under which a wrapper keeps its network; None for what is no wrapper."""
    if not isinstance(network, nn.Module):
        return None
    if COMPILED in network._modules:
        return COMPILED
    if isinstance(network, DataParallel | DistributedDataParallel | AveragedModel):
        return "module"
    packages = {kind.__module__.split(".")[0] for kind in type(network).__mro__}
    return next((slot for package, slot in AVERAGES.items() if package in packages and slot in network._modules), None)
