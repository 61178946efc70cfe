"""Check linearity and the adjoint on one draw."""

import math
from typing import Any

import torch
from torch import Tensor

from genprior.ambient import settled
from genprior.checks import Shape
from genprior.linalg import inner, norm
from genprior.operators.base import name_of
from genprior.operators.linear import LinearOperator

WANTED = "Samplers need a linear A and its adjoint: leave out what is added to A x, or done to its values afterwards."
# Half the digits of float32.
DIGITS = math.sqrt(torch.finfo(torch.float32).eps)


@settled
@torch.no_grad()
def check_linear(A: LinearOperator, like: Tensor) -> None:
    """Raise TypeError for an operator that is not linear, or whose adjoint is wrong; see `check`."""
    name = name_of(A)
    generator = torch.Generator().manual_seed(0)

    def draw(shape: Shape) -> Tensor:
        return torch.randn(A.batch, *shape, generator=generator).to(like)

    def measured(x: Tensor) -> Tensor:
        return of_shape(name, "A x", A(x), A.measurement_shape)

    x, z = draw(A.image_shape), draw(A.image_shape)
    Ax, Az = measured(x), measured(z)
    length = norm(Ax) + norm(Az)
    # a linear map of zeros sums zeros, without rounding
    if (offset := norm(measured(torch.zeros_like(x)))).gt(torch.finfo(x.dtype).eps * length).any():
        raise TypeError(f"{name} is not linear: A(0) is not 0 but of length {float(offset.max()):.3g}. {WANTED}")
    if (gap := norm(measured(2 * x - z) - (2 * Ax - Az))).gt(DIGITS * 2 * length).any():
        share = float((gap / length).max())
        raise TypeError(f"{name} is not linear: A(2x - z) differs from 2 A x - A z by {share:.2g} of it. {WANTED}")
    v = draw(A.measurement_shape)
    y = Ax + v * norm(Ax) / norm(v)
    left, right = inner(Ax, y), inner(x, of_shape(name, "A^T y", A.adjoint(y), A.image_shape))
    if (left - right).abs().gt(DIGITS * norm(Ax) * norm(y)).any():
        raise TypeError(
            f"The adjoint of {name} is not that of its A: <A x, y> is {float(left[0]):.5g} and <x, A^T y> "
            f"{float(right[0]):.5g} for the first draw. Samplers need the exact adjoint; of a deepinv physics that is "
            "`deepinv.physics.adjoint_function(A, input_size)`, or `adjoint_via_backprop=True` where it has that."
        )


def of_shape(name: str, what: str, a: Any, shape: Shape) -> Tensor:
    given = tuple(a.shape[1:]) if isinstance(a, Tensor) else type(a).__name__
    if given != tuple(shape) or a.is_complex():
        raise TypeError(f"{name} says {what} is real, of shape {tuple(shape)}; it is {given}, of {type(a).__name__}.")
    if not torch.isfinite(a).all():
        raise TypeError(f"{name} gives {what} that is not finite, of finite values.")
    return a
