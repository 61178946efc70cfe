"""An operator on grey images applied to each channel of a colour image."""

from __future__ import annotations

import torch
from torch import Tensor

from genprior.operators.base import LinearOperator


class Channelwise(LinearOperator):
    """(A x_1, …, A x_K) for the channels x_k of an image and an operator A on images of one channel.

    Arguments:
        operator: A, with image_shape (1, H, W).
        channels: K.

    Raises:
        ValueError: A is not on images of one channel.
    """

    def __init__(self, operator: LinearOperator, channels: int):
        if operator.image_shape[0] != 1:
            raise ValueError(f"Channelwise takes an operator on images of one channel, not {operator.image_shape}.")
        self.operator, self.channels = operator, channels
        self.image_shape = (channels, *operator.image_shape[1:])
        measured, *size = operator.measurement_shape
        self.measurement_shape = (channels * measured, *size)
        self.batch, self.precision = operator.batch, operator.precision
        # With masks or kernels of their own, image i becomes the rows i K … (i + 1) K - 1.
        rows = torch.arange(operator.batch).repeat_interleave(channels)
        self._each = operator.select(rows)

    def frame(self, x: Tensor) -> Tensor:
        return self.operator.frame(x)

    def _forward(self, x: Tensor) -> Tensor:
        return self._merge(self._each(self._split(x)))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._merge(self._each.adjoint(self._split(y)))

    def _pinv(self, y: Tensor) -> Tensor:
        return self._merge(self._each.pinv(self._split(y)))

    def _solve(self, v: Tensor, c: float | Tensor) -> Tensor:
        if isinstance(c, Tensor) and c.ndim and len(c) > 1:
            c = c.repeat_interleave(self.channels, dim=0)
        return self._merge(self._each.solve(self._split(v), c))

    def _select(self, index: Tensor) -> Channelwise:
        return Channelwise(self.operator.select(index), self.channels)

    def _split(self, a: Tensor) -> Tensor:
        return a.unflatten(1, (self.channels, -1)).flatten(0, 1)

    def _merge(self, a: Tensor) -> Tensor:
        return a.unflatten(0, (-1, self.channels)).flatten(1, 2)
