"""Whether an operator is what it says: linear, and its adjoint the adjoint; on one draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genprior.ambient import settled
from genprior.checks import Shape
from genprior.operators.base import Composition, LinearOperator
from genprior.operators.channelwise import Channelwise
from genprior.operators.linearity import check_linear

if TYPE_CHECKING:
    from deepinv.physics import Physics


@settled
def check(A: LinearOperator | Physics, image_shape: Shape | None = None, *, like: Tensor | None = None) -> None:
    """Refuse what is not linear, or whose adjoint is not its adjoint, on one draw of x, z and v, whatever its class.

    A(0) = 0, A(2 x - z) = 2 A x - A z and <A x, A x + v> = <x, A^T (A x + v)>, x and z ~ N(0, I) and v of the length of
    A x, each up to half of the digits of float32, 3.5e-4 of the length of what is compared. What is linear but for less
    than that, or but for values beyond a few units, goes unseen. Global random state is left alone.

    Arguments:
        A: an operator, such as one of your own; or a deepinv physics, of whose noise nothing is checked.
        image_shape: (C, H, W) of the images of a physics that does not say it.
        like: a tensor of the dtype and device to check in; None for float32 on the CPU.

    Raises:
        TypeError: it is not linear, or its adjoint is another map's, or it gives other shapes than it says.
        ValueError: the size of the images of a physics is not known.
    """
    if not isinstance(A, LinearOperator):
        from genprior.operators.deepinv import from_physics

        from_physics(A, image_shape)  # which checks it  # pyright: ignore[reportArgumentType]
        return
    check_linear(A, torch.empty(0) if like is None else like)


def check_foreign(A: LinearOperator, like: Tensor) -> None:
    """`check` of what in A is not ours: our own operators are tested once and for all, a physics when it is wrapped."""
    for part in _parts(A):
        if not type(part).__module__.startswith("genprior."):
            check_linear(part, like)


def _parts(A: LinearOperator) -> list[LinearOperator]:
    if isinstance(A, Composition):
        return _parts(A.outer) + _parts(A.inner)
    return _parts(A.operator) if isinstance(A, Channelwise) else [A]
