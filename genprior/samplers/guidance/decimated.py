"""The term that a Gaussian measurement on a coarser grid adds to the mean of a stationary Gaussian."""

from collections.abc import Callable

import torch
from torch import Tensor

from genprior.linalg import cg
from genprior.operators.linear import LinearOperator
from genprior.priors.gaussian.covariance import Covariance, Stationary, turned
from genprior.samplers.guidance.correction import Counts


def decimated(
    V: Covariance, A: LinearOperator, coarse: Stationary, noise: float | Tensor, residual: Tensor, iterations: Counts
) -> Tensor:
    """V A^T (A V A^T + noise^2)^-1 (y - A x_hat), by conjugate gradients on measurements.

    A shift of x by `A.stride` pixels shifts A x by one, so A V A^T is circulant, but for borders. The circulant matrix
    with the same response to a pixel in the middle preconditions the iterations: four suffice, two for block averages.

    Arguments:
        coarse: a covariance of measurements, with the axes of colour of V.
        residual: y - A x_hat, (B, C, h, w).
        iterations: see `cg`.
    """

    def covariance(u: Tensor) -> Tensor:
        return A(V.filter(A.adjoint(u), V.eigenvalues))

    variance = torch.as_tensor(noise, dtype=residual.dtype, device=residual.device).square().reshape(-1, 1, 1, 1, 1)
    spectrum = response(covariance, coarse, residual[:1]) + variance
    # for each image by itself, as each may have its own V
    inverse = 1 / torch.maximum(spectrum, 1e-10 * spectrum.amax((-4, -3, -2, -1), keepdim=True))

    def precondition(u: Tensor) -> Tensor:
        return coarse.scaled(u, inverse)

    f = cg(lambda u: covariance(u) + variance[..., 0] * u, residual, iterations=iterations, preconditioner=precondition)
    return V.filter(A.adjoint(f), V.eigenvalues)


def response(apply: Callable[[Tensor], Tensor], coarse: Stationary, like: Tensor) -> Tensor:
    """The eigenvalues of the circulant matrix that answers a pixel in the middle as `apply` does, at least 0.

    Arguments:
        apply: (1, C, h, w) -> (B, C, h, w), symmetric.
        coarse: in whose coordinates the matrix is diagonal.
        like: (1, C, h, w), for the shape, dtype and device.

    Returns:
        (B, ...), laid out like `coarse.variances`.
    """
    *_, h, w = like.shape
    pixel = torch.zeros_like(like)
    pixel[..., h // 2, w // 2] = 1
    # in each axis of colour
    z = turned(coarse.axes.to(like.dtype), pixel)
    c, Mc = coarse.coefficients(z), coarse.coefficients(apply(z))
    return ((c * Mc).sum(-1, keepdim=True) / c.square().sum(-1, keepdim=True)).clamp_min(0)
