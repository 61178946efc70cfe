"""Exponential moving average of weights: w_ema <- w_ema + (1 - decay) (w - w_ema)."""

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


class EMA(Generic[M]):
    """A copy of a module whose parameters average the original's; buffers are copied.

    The decay warms up as min(decay, (1 + step) / (10 + step)), so that early averages forget the initial weights.
    """

    def __init__(self, module: M, decay: float):
        self.module: M = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay
        # Listed once: walking the modules at every step would cost as much as the averaging.
        self._averages: list[torch.Tensor] = list(self.module.parameters())
        self._weights: list[torch.Tensor] = list(module.parameters())
        self._copies, self._buffers = list(self.module.buffers()), list(module.buffers())

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._averages, self._weights, 1 - decay)
        if self._buffers:
            torch._foreach_copy_(self._copies, self._buffers)
