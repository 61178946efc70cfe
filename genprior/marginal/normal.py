"""Gaussian densities of a measurement y = A x + noise n over the values of y that A sees.

Notation: M' the number of values of y that depend on x, see `Measurement.seen`; the others say nothing of x, and p(y)
here is the density of those that do.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from genprior.checks import UnsupportedError
from genprior.devices import rows_at_once
from genprior.operators.measurement import Measurement
from genprior.priors.gaussian.covariance import LARGEST_DENSE


def seen_values(one: Measurement) -> Tensor:
    """The indices of the values of y, flattened, that depend on x, (M',)."""
    return one.seen.flatten().nonzero().flatten()


def covariance_of_y(one: Measurement, S: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """A S A^T + noise^2 I of those values of y, (M', M'), in float64.

    Arguments:
        one: the measurement of one image.
        S: x -> S x, for images (B, C, H, W) in float64.
        values: see `seen_values`.

    Raises:
        UnsupportedError: there are more than 4096 of them.
    """
    A, M = one.linear, len(values)
    if M > LARGEST_DENSE:
        raise UnsupportedError(
            f"y has {M} values that depend on x, and their covariance is made for {LARGEST_DENSE} at most: give parts "
            "of y, or an operator with an SVD in closed form to the particles of method='smc'."
        )
    K = torch.empty(M, M, dtype=torch.float64, device=values.device)
    basis = torch.arange(M, device=values.device).split(rows_at_once(A.image_shape, values.device))
    for rows in basis:
        e = torch.zeros(len(rows), one.y[0].numel(), dtype=torch.float64, device=values.device)
        e[torch.arange(len(rows)), values[rows]] = 1
        K[rows] = A(S(A.adjoint(e.unflatten(1, A.measurement_shape)))).flatten(1)[:, values]
    return (K + K.T) / 2 + noise_of(one) ** 2 * torch.eye(M, dtype=torch.float64, device=values.device)


def noise_of(one: Measurement) -> float:
    """The noise level of the measurement of one image."""
    return float(torch.as_tensor(one.sd, dtype=torch.float64).reshape(()))


def cholesky(K: Tensor) -> Tensor:
    """L with L L^T = K, the covariance of y.

    Raises:
        ValueError: K is singular, to rounding.
    """
    L, failed = torch.linalg.cholesky_ex(K)
    rounding = torch.finfo(K.dtype).eps * len(K)
    if failed or (L.diagonal() ** 2 <= rounding * K.diagonal()).any():
        raise ValueError("The covariance of y is singular, so y has no density: give a noise above 0.")
    return L


def log_scale(one: Measurement, v: float) -> float:
    """ln N(r; 0, noise^2 I + v A A^T) at r = 0, over the values of y that depend on x, in nats.

    Use the singular values of A if it has them in closed form, else the matrix A A^T.

    Raises:
        UnsupportedError: A has no SVD in closed form, and more than 4096 values of y depend on x.
    """
    values, A, noise = seen_values(one), one.linear, noise_of(one)
    log_det = 2 * len(values) * math.log(noise)
    if v > 0:
        try:
            s = A.svd().singular_values.double().expand(1, *A.image_shape)
        except UnsupportedError:
            log_det = 2 * float(cholesky(covariance_of_y(one, lambda x: v * x, values)).diagonal().log().sum())
        else:
            log_det += float(torch.log1p(v * s**2 / noise**2).sum())
    return -(len(values) * math.log(2 * math.pi) + log_det) / 2
