"""Exponential moving average of weights: w_ema <- w_ema + (1 - decay) (w - w_ema)."""

import copy

import torch
from torch import nn


class EMA:
    """A float32 copy of a module whose parameters average those of the original; buffers are copied.

    The decay warms up as min(decay, (1 + step) / (10 + step)), so that early averages forget the initial weights.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        ours, theirs = list(self.module.parameters()), [p.detach() for p in module.parameters()]
        torch._foreach_lerp_(ours, theirs, 1 - decay)
        for mine, other in zip(self.module.buffers(), module.buffers()):
            mine.copy_(other)
