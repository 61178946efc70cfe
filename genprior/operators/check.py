"""Check an operator on one draw: its linearity and its adjoint, or its derivative."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genprior.ambient import settled
from genprior.checks import Shape
from genprior.operators.base import Composed, Operator
from genprior.operators.channelwise import Channelwise
from genprior.operators.differentiable import check_differentiable
from genprior.operators.linear import LinearOperator
from genprior.operators.linearity import check_linear

if TYPE_CHECKING:
    from deepinv.physics import Physics


@settled
def check(A: Operator | Physics, image_shape: Shape | None = None, *, like: Tensor | None = None) -> None:
    """Raise an error if an operator breaks the promises of its class, on one draw of x, z and v.

    A `LinearOperator` must satisfy A(0) = 0, to rounding, and A(2 x - z) = 2 A x - A z and
    <A x, A x + v> = <x, A^T (A x + v)>, to half the digits of float32, 3.5e-4 of the length of what is compared; x and
    z ~ N(0, I), and v is as long as A x. Smaller deviations, and those at values beyond a few units, go unseen.

    For any other operator, with x uniform in [0, 1], A(x) must be finite, the same each time, and independent of the
    other images of a batch, and its derivative finite and not 0. Global random state is left alone.

    Arguments:
        A: an operator, such as one of your own; or a deepinv physics, whose noise is not checked.
        image_shape: (C, H, W) of x, for a physics that does not state it.
        like: a tensor of the dtype and device to check in; None for float32 on the CPU.

    Raises:
        TypeError: A is not linear, its adjoint is wrong, or its shapes are not those it declares; or an operator that
            need not be linear is not as above.
        ValueError: the image size of a physics is unknown.
    """
    if not isinstance(A, Operator):
        from genprior.operators.deepinv import from_physics

        from_physics(A, image_shape)  # which checks it  # pyright: ignore[reportArgumentType]
        return
    _check_one(A, torch.empty(0) if like is None else like)


def _check_one(A: Operator, like: Tensor) -> None:
    if isinstance(A, LinearOperator):
        check_linear(A, like)
    else:
        check_differentiable(A, like)


def check_foreign(A: Operator, like: Tensor) -> None:
    """Run `check` on the parts of A that are not ours: our operators are tested, and wrapping checks a physics."""
    for part in _parts(A):
        if not type(part).__module__.startswith("genprior."):
            _check_one(part, like)


def _parts(A: Operator) -> list[Operator]:
    if isinstance(A, Composed):
        return _parts(A.outer) + _parts(A.inner)
    return _parts(A.operator) if isinstance(A, Channelwise) else [A]
