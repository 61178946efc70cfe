"""Checks of an operator on one draw: its linearity and its adjoint, or its derivative."""

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
    """Refuse an operator that breaks the promises of its class, on one draw of x, z and v.

    Of a `LinearOperator`, A(0) = 0, A(2 x - z) = 2 A x - A z and <A x, A x + v> = <x, A^T (A x + v)>, x and
    z ~ N(0, I) and v of the length of A x, each up to half of the digits of float32, 3.5e-4 of the length of what is
    compared. What is linear but for less than that, or but for values beyond a few units, goes unseen.

    Of another operator, A(x) is finite, the same each time and of each image by itself, and its derivative is finite
    and not 0, for x uniform in [0, 1]. Global random state is left alone.

    Arguments:
        A: an operator, such as one of your own; or a deepinv physics, of whose noise nothing is checked.
        image_shape: (C, H, W) of the images of a physics that does not say it.
        like: a tensor of the dtype and device to check in; None for float32 on the CPU.

    Raises:
        TypeError: it is not linear, or its adjoint is another map's, or it gives other shapes than it says; or of an
            operator that need not be linear, it is not as above.
        ValueError: the size of the images of a physics is not known.
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
    """`check` those parts of A that are not ours: our own operators are tested, and wrapping checks a physics."""
    for part in _parts(A):
        if not type(part).__module__.startswith("genprior."):
            _check_one(part, like)


def _parts(A: Operator) -> list[Operator]:
    if isinstance(A, Composed):
        return _parts(A.outer) + _parts(A.inner)
    return _parts(A.operator) if isinstance(A, Channelwise) else [A]
