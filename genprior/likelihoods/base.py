"""The interface of a likelihood.

Notation: z = A x; y its measurement, one value per value of z; k = y / gain a number of counts; N(z; m, v) the Gaussian
law of mean m and variance v. The tilted law of a value is p(z) ~ p(y | z) N(z; m, v).
"""

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor

from genprior.ambient import own, settled
from genprior.likelihoods.quadrature import Law, draws_of, moments_of
from genprior.linalg import wide
from genprior.noise import Noise

L = TypeVar("L", bound="Likelihood")


@dataclass(frozen=True)
class Likelihood(ABC):
    """A law of y given z, independent from value to value, whose density is log-concave in z.

    Likelihoods are frozen dataclasses. Their parameters are finite floats, or tensors of four axes that broadcast to y,
    such as (B, 1, 1, 1) for one number per image; tensors are copied. A list of numbers gives one number per image.

    Attributes:
        above: parameter -> the number it must exceed; others may have any finite value.

    Raises:
        ValueError: a parameter is not as above.
    """

    above: ClassVar[dict[str, float]] = {}

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            object.__setattr__(self, field.name, _parameter(f"{type(self).__name__}'s {field.name}", value))
            least, value = self.above.get(field.name), torch.as_tensor(getattr(self, field.name))
            if not torch.isfinite(value).all() or (least is not None and not (value > least).all()):
                wanted = "finite" if least is None else f"finite and above {least:g}"
                raise ValueError(f"{type(self).__name__}'s {field.name} is {wanted}; got {value.flatten().tolist()}.")

    @abstractmethod
    def log_prob(self, y: Tensor, z: Tensor) -> Tensor:
        """ln p(y | z), elementwise, in nats, of a density for continuous y; -inf for impossible z."""

    @abstractmethod
    def sample(self, z: Tensor, noise: Noise) -> Tensor:
        """A draw of y given z, (B, ...) like z, from the next step of the noise of B rows."""

    @abstractmethod
    def predicted(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of y given z; approximate for clipped values."""

    @abstractmethod
    def bracket(self, y: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """An interval that contains all but about e^-DROP of the tilted law, and is not much wider than necessary."""

    def tilted(self, y: Tensor, z: Tensor, m: Tensor, v: Tensor) -> Tensor:
        """The log-density of the tilted law on its bracket, up to a constant."""
        return self.log_prob(y, z) - (z - m).square() / (2 * v)

    @abstractmethod
    def shared(self, copies: int) -> "Likelihood":
        """The law under which `copies` copies of y together carry the information of one, at least to second order."""

    def moments(self, y: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the tilted law, p(z) ~ p(y | z) N(z; m, v), elementwise, to 1e-6 of its deviation.

        Arguments:
            y, m: (B, ...).
            v: > 0, broadcasts to y.
        """
        return moments_of(self._tilted, (y, m, v, *self._parameters))

    def conditional(self, y: Tensor, m: Tensor, v: Tensor, noise: Noise) -> Tensor:
        """A draw of z ~ p(y | z) N(z; m, v), elementwise, by inverting its distribution function.

        Arguments:
            y, m: (B, ...).
            v: > 0, broadcasts to y.
            noise: of B rows.
        """
        u = noise.uniform(wide(y))
        return draws_of(self._tilted, u, (y, m, v, *self._parameters))

    def check(self, y: Tensor) -> None:
        """Raise ValueError, and say what to do, if this law cannot give y, (B, C, H, W)."""
        for name, value in self.named():
            if isinstance(value, Tensor) and any(m not in (1, n) for m, n in zip(value.shape, y.shape)):
                raise ValueError(
                    f"{type(self).__name__}'s {name} {tuple(value.shape)} does not broadcast to y {tuple(y.shape)}."
                )

    def select(self: L, index: Tensor) -> L:
        """The law for the images with that `index` (1-D, long)."""
        chosen = {k: v[index.to(v.device)] for k, v in self.named() if isinstance(v, Tensor) and len(v) > 1}
        return dataclasses.replace(self, **chosen) if chosen else self

    def to(self: L, like: Tensor) -> L:
        """The law with its tensor parameters in the dtype and on the device of `like`."""
        moved = {k: v.to(like) for k, v in self.named() if isinstance(v, Tensor)}
        return dataclasses.replace(self, **moved) if moved else self

    def named(self) -> list[tuple[str, float | Tensor]]:
        """The parameters with their names, in order."""
        return [(field.name, getattr(self, field.name)) for field in dataclasses.fields(self)]

    @property
    def _parameters(self) -> tuple[float | Tensor, ...]:
        return tuple(value for _, value in self.named())

    def _tilted(self, y: Tensor, m: Tensor, v: Tensor, *parameters: float | Tensor) -> Law:
        """For a piece of the values: the tilted log-density, and the interval that holds it."""
        own_law = object.__new__(type(self))  # its parameters were already checked, one for each value
        for field, value in zip(dataclasses.fields(self), parameters):
            object.__setattr__(own_law, field.name, value)

        return lambda z: own_law.tilted(y, z, m, v), *own_law.bracket(y, m, v)


@settled
def _parameter(what: str, value: float | Tensor | np.ndarray | list) -> float | Tensor:
    """The parameter as a float, or as a private copy of four axes."""
    if isinstance(value, bool) or not isinstance(value, int | float | Tensor | np.ndarray | list | tuple | np.number):
        raise ValueError(f"{what} is a number, or a tensor that broadcasts to y; got {value!r}.")
    if isinstance(value, list | tuple):
        value = torch.tensor(value, dtype=torch.float32)
    number = torch.as_tensor(value)
    if number.ndim == 0:
        return float(value)
    number = number.reshape(-1, 1, 1, 1) if number.ndim == 1 else number
    if number.ndim != 4:
        raise ValueError(f"{what} is one number, (B,) or a tensor of four axes; got the shape {tuple(number.shape)}.")
    return own(number if number.is_floating_point() else number.float())
