"""Whether an operator determines smooth images."""

from __future__ import annotations

import torch
from torch.nn.functional import interpolate

from genprior.linalg import norm
from genprior.operators.linear import LinearOperator
from genprior.operators.masking import kept_by

CELLS = 4
REGULARISED = 1e4  # weight of |y - A x|^2 against |x|^2: a component that A scales by 1 / 100 counts as half seen
LEFT = 0.05


def sees_smooth(operator: LinearOperator) -> bool:
    """Whether y = A x determines x within the measured frame, to a twentieth of its variance, if x is smooth.

    A blur does, and so does downsampling. A mask does not, however small the hole, nor does a grey measurement of
    colours: these leave something to invent even where nothing is sharp.
    """
    kept = kept_by(operator)
    if kept is not None:
        return bool(kept.all())
    C, H, W = operator.image_shape
    cells = torch.randn((operator.batch, C, CELLS, CELLS), generator=torch.Generator().manual_seed(0))
    x = interpolate(cells, (H, W), mode="bicubic", align_corners=True)
    x_hat = operator.prox(torch.zeros_like(x), operator(x), REGULARISED)
    left = norm(operator.frame(x_hat - x)) / norm(operator.frame(x))
    return float(left.max()) ** 2 < LEFT  # of all images, if each has its own operator
