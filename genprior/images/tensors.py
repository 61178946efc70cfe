"""Torch tensors: C x H x W or B x C x H x W, floating point."""

from functools import partial

import torch
from torch import Tensor

from genprior.ambient import own
from genprior.images.checks import check_not_empty
from genprior.images.picture import Picture


def from_torch(tensor: Tensor) -> Picture:
    if tensor.dtype == torch.uint8:
        raise TypeError("the tensor is uint8, wanted floating point in [0, 1]; divide it by 255.")
    if not tensor.is_floating_point():
        raise TypeError(f"the tensor is {tensor.dtype}, wanted floating point; convert it by .float().")
    check_not_empty(tensor.shape, "the tensor")
    if tensor.ndim not in (3, 4):
        hint = "; add the channel by x[None]" if tensor.ndim == 2 else ""
        raise ValueError(f"the tensor has shape {tuple(tensor.shape)}, wanted C x H x W or B x C x H x W{hint}.")
    batched = tensor.ndim == 4
    x = own(tensor).to(torch.float32)
    give = partial(_give, dtype=tensor.dtype, device=tensor.device, batched=batched)
    return Picture(x if batched else x[None], None, give)  # pyright: ignore[reportArgumentType]


def _give(x: Tensor, alpha: None, *, dtype: torch.dtype, device: torch.device, batched: bool) -> Tensor:
    x = x.to(device, dtype)
    return x if batched else x[0]
