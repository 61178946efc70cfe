"""Which values of a measurement say anything: what a method that adds up residuals has to know."""

import torch
from torch import Tensor

from genprior.noise import Noise
from genprior.operators.base import Measurement


def seen(measurement: Measurement) -> Tensor:
    """1 for values of y that depend on x, 0 for the others, such as those under the holes of a mask; shaped like y.

    Of A A^T n, with n normal, the rows of A that are 0 give 0, exactly, and almost surely no others do.
    """
    y, A = measurement.y, measurement.operator
    n = Noise(0, torch.zeros(len(y), dtype=torch.long))(y)
    return (A(A.adjoint(n)) != 0).to(y)
