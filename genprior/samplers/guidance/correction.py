"""The term that a Gaussian measurement adds to the mean of a Gaussian, by conjugate gradients."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genprior.linalg import cg
from genprior.operators.linear import LinearOperator

if TYPE_CHECKING:
    from genprior.priors.gaussian.covariance import Covariance

Counts = int | Sequence[int]  # of iterations: one for all images, or one for each


def correction(
    V: "Covariance",
    A: LinearOperator,
    noise: float | Tensor,
    gradient: Tensor,
    normal: Tensor,
    iterations: Counts,
    weights: Tensor | None = None,
) -> Tensor:
    """(A^T diag(w) A + noise^2 V^-1)^-1 A^T diag(w) (y - A x_hat), by conjugate gradients in the coordinates of V.

    Arguments:
        gradient: A^T diag(w) (y - A x_hat), (B, C, H, W).
        normal: A^T diag(w) A, or its diagonal stand-in in those coordinates (see `Covariance.diagonal_like`).
        iterations: see `cg`.
        weights: w, (B, *measurement_shape); None for 1.
    """
    b = V.coefficients(gradient)
    variance = torch.as_tensor(noise, dtype=b.dtype, device=b.device).square().reshape(-1, 1, 1, 1, 1)
    l = V.variances
    # for each image by itself, as each may have its own V
    precision = variance / torch.maximum(l, 1e-10 * l.amax((-4, -3, -2, -1), keepdim=True))
    # laid out like the coefficients, which makes the products with them fast
    inverse = (1 / (normal + precision)).expand(-1, *b.shape[1:]).contiguous()
    precision = precision.expand(-1, *b.shape[1:]).contiguous()

    def matvec(c: Tensor) -> Tensor:
        z = A(V.image(c))
        return V.coefficients(A.adjoint(z if weights is None else weights * z)) + precision * c

    return V.image(cg(matvec, b, iterations=iterations, preconditioner=lambda c: inverse * c))
