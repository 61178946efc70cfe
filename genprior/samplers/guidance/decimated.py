"""The term that a Gaussian measurement on a coarser grid adds to the mean of a stationary Gaussian."""

import torch
from torch import Tensor

from genprior.linalg import cg
from genprior.operators.linear import LinearOperator
from genprior.priors.gaussian.covariance import Covariance, Stationary
from genprior.samplers.guidance.correction import Counts


def decimated(
    V: Covariance,
    A: LinearOperator,
    coarse: Stationary,
    power: Tensor,
    noise: float | Tensor,
    residual: Tensor,
    iterations: Counts,
) -> Tensor:
    """V A^T (A V A^T + noise^2)^-1 (y - A x_hat), by conjugate gradients on measurements.

    A shift of x by `A.coarser` pixels shifts A x by one, so A V A^T is circulant, but for borders. A circulant matrix
    preconditions the iterations (`aliased`); for block averages it is A V A^T itself.

    Arguments:
        V: stationary.
        coarse: a covariance of measurements, with the axes of colour of V.
        power: that of a row of A, see `row_power`; the same for all V.
        residual: y - A x_hat, (B, C, h, w).
        iterations: see `cg`.
    """

    def covariance(u: Tensor) -> Tensor:
        return A(V.filter(A.adjoint(u), V.eigenvalues))

    variance = torch.as_tensor(noise, dtype=residual.dtype, device=residual.device).square().reshape(-1, 1, 1, 1)
    spectrum = aliased(V, A, power) + variance[..., None]
    # for each image by itself, as each may have its own V
    inverse = 1 / torch.maximum(spectrum, 1e-10 * spectrum.amax((-4, -3, -2, -1), keepdim=True))

    def matvec(u: Tensor) -> Tensor:
        return covariance(u) + variance * u

    f = cg(matvec, residual, iterations=iterations, preconditioner=lambda u: coarse.scaled(u, inverse))
    return V.filter(A.adjoint(f), V.eigenvalues)


def row_power(A: LinearOperator, like: Tensor) -> Tensor:
    """The power spectrum of the row of A that gives the pixel in the middle, (1, C, H, W // 2 + 1).

    Arguments:
        like: for the dtype and device.
    """
    C, h, w = A.measurement_shape
    pixel = like.new_zeros(1, C, h, w)
    pixel[..., h // 2, w // 2] = 1
    return torch.fft.rfft2(A.adjoint(pixel)).abs().square()


def aliased(V: Covariance, A: LinearOperator, power: Tensor) -> Tensor:
    """The eigenvalues of A V A^T, >= 0, for the A that wraps around borders and answers a pixel in the middle alike.

    The power spectrum of a row of A, times the eigenvalues of V, aliased to the coarser grid.

    Arguments:
        power: see `row_power`. A treats all channels alike, so it is that of a row in each axis of colour too.

    Returns:
        (1 or B, ...), laid out like the `variances` of a covariance of measurements.
    """
    lags = torch.fft.irfft2(power * V.variances[..., 0], s=A.image_shape[-2:])
    return torch.fft.rfft2(lags[..., :: A.coarser, :: A.coarser]).real[..., None].clamp_min(0)
