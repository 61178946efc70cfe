"""Apply an operator on grey images to each channel of a colour image."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor

from genprior.likelihoods import Likelihood
from genprior.operators.linear import LinearOperator
from genprior.operators.measurement import Measurement


class Channelwise(LinearOperator):
    """(A x_1, …, A x_K) for the channels x_k of an image and an operator A on images of one channel.

    Arguments:
        operator: A, with image_shape (1, H, W).
        channels: K.

    Raises:
        ValueError: A takes images of more than one channel.
    """

    def __init__(self, operator: LinearOperator, channels: int):
        if operator.image_shape[0] != 1:
            raise ValueError(f"Channelwise takes an operator on images of one channel, not {operator.image_shape}.")
        self.operator, self.channels = operator, channels
        self.image_shape = (channels, *operator.image_shape[1:])
        measured, *size = operator.measurement_shape
        self.measurement_shape = (channels * measured, *size)
        self.batch, self.precision = operator.batch, operator.precision
        # With a mask or kernel per image, image i becomes the rows i K … (i + 1) K - 1.
        rows = torch.arange(operator.batch).repeat_interleave(channels)
        self._each = operator.select(rows)

    def frame(self, x: Tensor) -> Tensor:
        return self.operator.frame(x)

    def decoded(self, y: Tensor) -> Tensor | None:
        decoded = self._each.decoded(self._split(y))
        return None if decoded is None else self._merge(decoded)

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
        return rearrange(a, "b (c k) ... -> (b c) k ...", c=self.channels)

    def _merge(self, a: Tensor) -> Tensor:
        return rearrange(a, "(b c) k ... -> b (c k) ...", c=self.channels)


def in_channels(measurement: Measurement, channels: int) -> tuple[Measurement, Callable[[Tensor], Tensor]]:
    """Adapt a measurement to a prior with `channels` channels; also return the map back from its draws.

    For a prior of colour images, a grey measurement is repeated in three channels, and the channels of the draws are
    averaged. For a grey x, three copies of y, each with noise sqrt(3) sd, together carry the information in y, and also
    that x is grey; for other likelihoods, see `Likelihood.shared`.
    """
    A = measurement.operator
    if A.image_shape[0] != 1 or channels != 3 or not isinstance(A, LinearOperator):
        return measurement, lambda x: x
    noise = measurement.noise
    shared = noise.shared(channels) if isinstance(noise, Likelihood) else math.sqrt(channels) * noise
    colour = Measurement(measurement.y.repeat(1, channels, 1, 1), Channelwise(A, channels), shared)
    return colour, lambda x: x.mean(dim=-3, keepdim=True)
