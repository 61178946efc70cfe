"""A measurement: y, its operator and its noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genprior.ambient import own, settled
from genprior.checks import UnsupportedError
from genprior.likelihoods import Gaussian, Likelihood
from genprior.linalg import inner
from genprior.operators.base import Operator, name_of
from genprior.operators.linear import LinearOperator


@dataclass(frozen=True, eq=False)
class Measurement:
    """A measurement: y = A(x) + noise n, n ~ N(0, I), or y ~ p(y | A(x)) for another likelihood.

    It keeps copies of y and of the noise, and can be pickled.

    Attributes:
        y: (B, *operator.measurement_shape), finite, any range.
        operator: A.
        noise: standard deviation >= 0 in the units of x, float or (B, 1, 1, 1); or a likelihood, such as
            `Poisson(1 / 30)`. `Gaussian(sd)` becomes its sd.

    Raises:
        ValueError: y does not fit the operator or is not finite, or the noise is not as above.
    """

    y: Tensor
    operator: Operator
    noise: float | Tensor | Likelihood

    def __post_init__(self):
        self.operator._check("a measurement", self.y, self.operator.measurement_shape)
        if not torch.isfinite(self.y).all():
            raise ValueError(
                f"y has {(~torch.isfinite(self.y)).sum()} values that are NaN or infinite. If they mark holes, put 0 "
                "there and give the operator their mask, Inpaint(mask, ...); otherwise repair them."
            )
        object.__setattr__(self, "y", own(self.y))
        object.__setattr__(self, "noise", _own_noise(self.noise, self.y))

    @property
    def likelihood(self) -> Likelihood:
        """The law of y given A(x)."""
        return self.noise if isinstance(self.noise, Likelihood) else Gaussian(self.noise)

    @property
    def sd(self) -> float | Tensor:
        """The standard deviation of Gaussian noise, float or (B, 1, 1, 1).

        Raises:
            UnsupportedError: the noise is not Gaussian.
        """
        if isinstance(self.noise, Likelihood):
            raise UnsupportedError(
                f"This needs Gaussian noise, of one standard deviation, and the noise of y is {self.noise}. Give a "
                "number in its place, noise=0.02, if that is near enough."
            )
        return self.noise

    @property
    def linear(self) -> LinearOperator:
        """The operator, if it is linear.

        Raises:
            UnsupportedError: it is not.
        """
        if not isinstance(self.operator, LinearOperator):
            raise UnsupportedError(f"This needs a linear operator, and {name_of(self.operator)} is not linear.")
        return self.operator

    def potential(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """-ln p(y | A(x)) up to a constant, (B,), infinite for impossible A(x), and its gradient, shaped like x."""
        z, vjp = self.operator.vjp(x)
        if not isinstance(self.noise, Likelihood):
            r, c = z - self.y, self.sd**2
            return (inner(r, r) / (2 * c)).flatten(), vjp(r) / c
        with torch.enable_grad():
            z = z.requires_grad_()
            log_prob = self.noise.log_prob(self.y, z).flatten(1).sum(1)
        (slope,) = torch.autograd.grad(log_prob, z, torch.ones_like(log_prob), materialize_grads=True)
        return -log_prob.detach(), -vjp(slope)

    def with_noise(self, noise: float | Tensor | Likelihood) -> Measurement:
        """The same y, not copied, with different noise."""
        return _sharing(self.y, self.operator, _own_noise(noise, self.y))

    @property
    def picture(self) -> Tensor:
        """y as an image to look at: decoded, if it encodes an image, as JPEG does."""
        decoded = self.operator.decoded(self.y)
        return self.y if decoded is None else decoded

    @property
    def seen(self) -> Tensor:
        """1 for values of y that depend on x, 0 for others, such as those in the holes of a mask; shaped like y.

        For normal n, A A^T n is exactly 0 where a row of A is 0, and almost surely nowhere else. A nonlinear operator
        is judged by its derivative at a normal x.
        """
        A, generator = self.operator, torch.Generator().manual_seed(0)
        n, x = (
            torch.randn(len(self.y), *shape, generator=generator, dtype=torch.float32, device="cpu").to(self.y)
            for shape in (A.measurement_shape, A.image_shape)
        )
        _, vjp = A.vjp(x)
        return (A.jvp(x, vjp(n)) != 0).to(self.y)

    def select(self, index: Tensor) -> Measurement:
        """The measurement of the images at `index` (1-D, long), which may repeat images."""
        noise = self.noise.select(index) if isinstance(self.noise, Likelihood) else self.noise
        if isinstance(noise, Tensor) and noise.ndim and len(noise) > 1:
            noise = noise[index.to(noise.device)]
        return _sharing(self.y[index.to(self.y.device)], self.operator.select(index), noise)

    def to(self, like: Tensor) -> Measurement:
        """The measurement with y in the dtype and on the device of `like`."""
        noise = self.noise.to(like.device) if isinstance(self.noise, Tensor) else self.noise
        noise = noise.to(like) if isinstance(noise, Likelihood) else noise
        return _sharing(self.y.to(like), self.operator, noise)


def _sharing(y: Tensor, operator: Operator, noise: float | Tensor | Likelihood) -> Measurement:
    """Build a measurement without copying y, which the library already owns and has checked."""
    measurement = object.__new__(Measurement)
    for name, value in (("y", y), ("operator", operator), ("noise", noise)):
        object.__setattr__(measurement, name, value)
    return measurement


@settled
def _own_noise(given: float | Tensor | Likelihood, y: Tensor) -> float | Tensor | Likelihood:
    if isinstance(given, Likelihood):
        given.check(y)
        return given.sd if isinstance(given, Gaussian) else given
    noise, images = torch.as_tensor(given), len(y)
    if noise.ndim and noise.shape not in ((1, 1, 1, 1), (images, 1, 1, 1)):
        raise ValueError(f"noise is one number or ({images}, 1, 1, 1); got the shape {tuple(noise.shape)}.")
    if not (torch.isfinite(noise) & (noise >= 0)).all():
        raise ValueError(f"noise is a standard deviation, finite and >= 0; got {given}.")
    return own(noise) if isinstance(given, Tensor | np.ndarray) else given
