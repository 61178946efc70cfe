"""How layers begin."""

from typing import TypeVar

from torch import nn

L = TypeVar("L", bound=nn.Module)


def zeroed(layer: L) -> L:
    """The layer, with all of its weights 0: what it adds to is at first left as it is."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
