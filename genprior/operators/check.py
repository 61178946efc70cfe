"""Whether an operator is what it says: linear, and its adjoint the adjoint; on one draw."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from genprior.ambient import settled
from genprior.linalg import inner, norm
from genprior.operators.base import Composition, LinearOperator, Shape, name_of
from genprior.operators.channelwise import Channelwise

if TYPE_CHECKING:
    from deepinv.physics import Physics

WANTED = "Samplers need a linear A and its adjoint: leave out what is added to A x, or done to its values afterwards."
# Half of the digits of float32.
DIGITS = math.sqrt(torch.finfo(torch.float32).eps)


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

        from_physics(A, image_shape)  # which checks it
        return
    _check(A, name_of(A), torch.empty(0) if like is None else like)


def check_foreign(A: LinearOperator, like: Tensor) -> None:
    """`check` of what in A is not ours: our own operators are tested once and for all, a physics when it is wrapped."""
    for part in _parts(A):
        if not type(part).__module__.startswith("genprior."):
            check(part, like=like)


def _parts(A: LinearOperator) -> list[LinearOperator]:
    if isinstance(A, Composition):
        return _parts(A.outer) + _parts(A.inner)
    return _parts(A.operator) if isinstance(A, Channelwise) else [A]


@torch.no_grad()
def _check(A: LinearOperator, name: str, like: Tensor) -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(shape: Shape) -> Tensor:
        return torch.randn(A.batch, *shape, generator=generator).to(like)

    def measured(x: Tensor) -> Tensor:
        return _of_shape(name, "A x", A(x), A.measurement_shape)

    x, z = draw(A.image_shape), draw(A.image_shape)
    Ax, Az = measured(x), measured(z)
    length = norm(Ax) + norm(Az)
    # a linear map of zeros adds up zeros, without rounding
    if (offset := norm(measured(torch.zeros_like(x)))).gt(torch.finfo(x.dtype).eps * length).any():
        raise TypeError(f"{name} is not linear: A(0) is not 0 but of length {float(offset.max()):.3g}. {WANTED}")
    if (gap := norm(measured(2 * x - z) - (2 * Ax - Az))).gt(DIGITS * 2 * length).any():
        share = float((gap / length).max())
        raise TypeError(f"{name} is not linear: A(2x - z) differs from 2 A x - A z by {share:.2g} of it. {WANTED}")
    v = draw(A.measurement_shape)
    y = Ax + v * norm(Ax) / norm(v)
    left, right = inner(Ax, y), inner(x, _of_shape(name, "A^T y", A.adjoint(y), A.image_shape))
    if (left - right).abs().gt(DIGITS * norm(Ax) * norm(y)).any():
        raise TypeError(
            f"The adjoint of {name} is not that of its A: <A x, y> is {float(left[0]):.5g} and <x, A^T y> "
            f"{float(right[0]):.5g} for the first draw. Samplers need the exact adjoint; of a deepinv physics that is "
            "`deepinv.physics.adjoint_function(A, input_size)`, or `adjoint_via_backprop=True` where it has that."
        )


def _of_shape(name: str, what: str, a: Any, shape: Shape) -> Tensor:
    given = tuple(a.shape[1:]) if isinstance(a, Tensor) else type(a).__name__
    if given != tuple(shape) or a.is_complex():
        raise TypeError(f"{name} says {what} is real, of shape {tuple(shape)}; it is {given}, of {type(a).__name__}.")
    if not torch.isfinite(a).all():
        raise TypeError(f"{name} gives {what} that is not finite, of finite values.")
    return a
