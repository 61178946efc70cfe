"""Check on one draw whether samplers can use a nonlinear map."""

import torch
from torch import Tensor

from genprior.ambient import settled
from genprior.linalg import norm
from genprior.operators.base import Operator, name_of
from genprior.operators.linearity import DIGITS, of_shape


@settled
def check_differentiable(A: Operator, like: Tensor) -> None:
    """Raise TypeError for an operator that is not differentiable, is random, or mixes images; see `check`."""
    name = name_of(A)
    generator = torch.Generator().manual_seed(0)
    pair = torch.rand(2, *A.image_shape, generator=generator).to(like)
    v = torch.randn(2, *A.measurement_shape, generator=generator).to(like)
    if A.batch == 1:
        one = pair[:1]
    else:
        one = pair[:1].expand(A.batch, -1, -1, -1)
        v = v[:1].expand(A.batch, -1, -1, -1)
    with torch.no_grad():
        y = of_shape(name, "A(x)", A(one), A.measurement_shape)
        if not torch.equal(A(one), y):
            raise TypeError(f"{name} gives another A(x) each time: leave noise out of it, and give it as noise=.")
        if A.batch == 1:
            both = of_shape(name, "A(x)", A(pair), A.measurement_shape)
            if (gap := norm(both[:1] - y) - DIGITS * norm(y)).gt(0).any():
                raise TypeError(
                    f"{name} measures an image differently in the company of others, by {float(gap.max()):.2g}: it has "
                    "to take each image of a batch by itself."
                )
    try:
        _, vjp = A.vjp(one)
        pull = vjp(v[: len(one)])
    except RuntimeError as error:
        raise TypeError(f"{name} is not differentiable, as samplers need it to be: {error}.") from error
    of_shape(name, "J^T v", pull, A.image_shape)
    if not pull.any():
        raise TypeError(
            f"The derivative of {name} is 0 for images in [0, 1], so samplers cannot approach y. If it rounds, leave "
            "the rounding to a likelihood, noise=Quantised(step)."
        )
