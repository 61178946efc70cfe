"""Initialisation of layers."""

from typing import TypeVar

from torch import nn

L = TypeVar("L", bound=nn.Module)


def zeroed(layer: L) -> L:
    """Set all weights of the layer to 0, so that at first it adds nothing, and return it."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
