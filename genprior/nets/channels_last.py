"""Weights in the order of memory in which convolutions are fastest, channels last, without a second place for them."""

import torch
from einops import rearrange
from torch import nn


@torch.no_grad()
def reorder(module: nn.Module) -> None:
    """Order the weights of convolutions channels last, each where it lies.

    `module.to(memory_format=torch.channels_last)` makes new ones, and may leave holes in memory half as large as all.
    """
    for t in (*module.parameters(), *module.buffers()):
        if t.ndim == 4 and t.is_contiguous():
            rows = rearrange(t, "o i h w -> o h w i").clone(memory_format=torch.contiguous_format)
            place = t.data.view(rows.shape)
            place.copy_(rows)
            t.data = rearrange(place, "o h w i -> o i h w")
