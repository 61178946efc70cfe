"""Networks inside wrappers: of torch.compile, of several devices, of a moving average of weights."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

COMPILED = "_orig_mod"  # attribute where torch.compile keeps the network; importing its class would take seconds
# Averages of other packages, recognised without importing them: package -> attribute of the averaged network.
AVERAGES = {"ema_pytorch": "ema_model", "timm": "module"}


def unwrapped(network: Any) -> Any:
    """Return the network inside all its wrappers; anything without wrappers is returned unchanged."""
    while slot := _slot(network):
        network = getattr(network, slot)
    return network


def on_one_device(network: Any) -> Any:
    """Return the network without its wrappers except that of torch.compile, which computes the same, only faster."""
    while (slot := _slot(network)) and not (slot == COMPILED and not _slot(getattr(network, slot))):
        network = getattr(network, slot)
    return network


def plain_state(module: nn.Module) -> dict[str, Tensor]:
    """Return the state dict with the names it would have without wrappers."""
    wrappers = {
        f"{name}.": f"{name}.{slot}." for name, part in module.named_modules() if name and (slot := _slot(part))
    }
    state = dict(module.state_dict())
    # innermost first, because their names begin with those of the wrappers around them
    for plain, wrapped in reversed(wrappers.items()):
        state = {plain + key.removeprefix(wrapped) if key.startswith(wrapped) else key: t for key, t in state.items()}
    return state


def _slot(network: Any) -> str | None:
    """Return the attribute in which a wrapper keeps its network; None for anything that is not a wrapper."""
    if not isinstance(network, nn.Module):
        return None
    if COMPILED in network._modules:
        return COMPILED
    if isinstance(network, DataParallel | DistributedDataParallel | AveragedModel):
        return "module"
    packages = {kind.__module__.split(".")[0] for kind in type(network).__mro__}
    return next((slot for package, slot in AVERAGES.items() if package in packages and slot in network._modules), None)
