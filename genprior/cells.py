"""The cells of rounded measurements, in which A x must lie."""

import torch
from torch import Tensor

from genprior.likelihoods import Quantised
from genprior.linalg import cgls
from genprior.operators.measurement import Measurement

INSIDE = 0.98  # share of a cell that values are moved into: finitely many rounds never reach a border
RELAXED = 1.8  # over-relaxation from the second round on, for fewer rounds
ITERATIONS = 10


def in_cells(x: Tensor, measurement: Measurement, rounds: int = 100) -> Tensor:
    """Move x (B, *image_shape) until A x lies in the cells of y, by alternating projections.

        x <- x - A^+ (A x - the nearest value inside the cell)

    One round is enough where A^+ is a right inverse, as for the whole blocks of a JPEG file. If there is no such x, the
    result is as near as the rounds come.
    """
    y, A, law = measurement.y, measurement.linear, measurement.likelihood
    assert isinstance(law, Quantised)
    half = law.step / 2
    for k in range(rounds):
        z = A(x)
        if not ((z - y).abs() > half).any():
            break
        gap = z - torch.minimum(torch.maximum(z, y - INSIDE * half), y + INSIDE * half)
        x = x - (RELAXED * cgls(A, A.adjoint, gap, iterations=ITERATIONS) if k else A.pinv(gap))
    return x
