"""The cells of rounded measurements, in which A x must lie."""

import torch
from torch import Tensor

from genprior.likelihoods import Quantised
from genprior.linalg import cgls
from genprior.operators.measurement import Measurement

INSIDE = 0.98  # of a cell, what values are moved to: a border is never reached in finitely many rounds
RELAXED = 1.8  # of what a round asks for, from the second on: fewer rounds
ITERATIONS = 10


def in_cells(x: Tensor, measurement: Measurement, rounds: int = 100) -> Tensor:
    """x (B, *image_shape), moved until A x lies in the cells of y, by alternating projections.

        x <- x - A^+ (A x - the nearest value inside the cell)

    One round is enough where A^+ is a right inverse, as of a JPEG file's whole blocks. Where there is no such x, it is
    as near as the rounds come.
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
