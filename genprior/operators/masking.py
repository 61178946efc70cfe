"""The masks of operators that only drop values, whatever their class; and back."""

from __future__ import annotations

import torch
from torch import Tensor

from genprior.operators.base import Operator
from genprior.operators.inpaint import Inpaint
from genprior.operators.linear import LinearOperator


def kept_by(operator: Operator, like: Tensor | None = None) -> Tensor | None:
    """Where an operator keeps the values of x, (batch, C, H, W) bool, if it sets all others to 0; otherwise None.

    Inpainting, by our operator or a deepinv physics, keeps some values; denoising keeps all.

    Arguments:
        operator: of any class; it is applied to one draw.
        like: a tensor of the dtype and device to apply it in; None for float32 on the CPU.
    """
    if not isinstance(operator, LinearOperator) or operator.image_shape != operator.measurement_shape:
        return None
    shape = (operator.batch, *operator.image_shape)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32, device="cpu")
    x = x if like is None else x.to(like)
    kept = operator(torch.ones_like(x)).bool()
    return kept if torch.equal(operator(x), kept * x) else None


def is_identity(operator: Operator, like: Tensor | None = None) -> bool:
    """Whether A x = x; arguments as for `kept_by`."""
    kept = kept_by(operator, like)
    return kept is not None and bool(kept.all())


def keeping(kept: Tensor) -> LinearOperator:
    """The operator that keeps those values of x, (batch, C, H, W) bool, and sets all others to 0."""
    return Inpaint(~kept, tuple(kept.shape[1:]))
