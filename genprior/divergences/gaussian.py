"""The Kullback-Leibler divergence between two Gaussians, whatever the forms of their covariances.

Notation: p = N(m0, S0), q = N(m1, S1); S = V diag(l) V^T with the eigenvalues l and eigenvectors V of its form.
"""

import math

import torch
from torch import Tensor

from genprior.ambient import settled
from genprior.devices import rows_at_once
from genprior.priors.gaussian.covariance import Covariance, Dense, Diagonal, Stationary
from genprior.priors.gaussian.gaussian import Gaussian


@settled
def gaussian_kl(p: Gaussian, q: Gaussian) -> float:
    """KL(p || q) = 1/2 { tr(S1^-1 S0) + (m1 - m0)^T S1^-1 (m1 - m0) - k + ln(|S1| / |S0|) }, in nats.

    Computed in float64, for any pair of covariance forms; a matrix (D, D) is used only if one of them is dense. Two
    singular Gaussians on the same subspace are compared there: k is then its dimension, and inverses and determinants
    are those of S restricted to it. If only one is singular, or the subspaces differ, the divergence is infinite.
    Subspaces count as equal up to rounding: squared cosines below D eps, with eps that of the priors' dtype.

    Arguments:
        p, q: of images of the same shape; for priors of images of any size, use `prior.sized(height, width)`.

    Returns:
        At least 0, up to rounding; infinite if p has mass where q has none.

    Raises:
        TypeError: one of them is not Gaussian.
        ValueError: their images have different shapes.
    """
    for prior in (p, q):
        if not isinstance(prior, Gaussian):
            raise TypeError(
                f"The closed form is for two Gaussians, and a {type(prior).__name__} was given: take monte_carlo_kl, "
                "or prior.sized(height, width) of a Gaussian of images of any size."
            )
    if p.image_shape != q.image_shape:
        raise ValueError(f"p has images of shape {p.image_shape}, q of {q.image_shape}: give two of one shape.")
    l0, l1 = p.covariance.eigenvalues.double(), q.covariance.eigenvalues.double()
    difference = q.mean.double() - p.mean.double()
    if not _on_one_subspace(p, q, difference):
        return math.inf
    precision = torch.where(l1 > 0, 1 / l1, 0)
    trace = _trace(q.covariance, precision, p.covariance, l0)
    distance = (difference * q.covariance.filter(difference, precision)).sum()
    log_ratio = l1[l1 > 0].log().sum() - l0[l0 > 0].log().sum()
    return float(trace + distance - (l0 > 0).sum() + log_ratio) / 2


def _on_one_subspace(p: Gaussian, q: Gaussian, difference: Tensor) -> bool:
    """Whether the supports m0 + range S0 and m1 + range S1 coincide."""
    l0, l1 = p.covariance.eigenvalues, q.covariance.eigenvalues
    if (l0 > 0).sum() != (l1 > 0).sum():
        return False
    if not p.covariance.singular:
        return True
    rounding = l0.numel() * max(torch.finfo(m.dtype).eps for m in (p.mean, q.mean))
    outside = (l1 == 0).double()
    # the squared cosines between directions in which p varies and those in which q does not
    if _trace(q.covariance, outside, p.covariance, (l0 > 0).double()) > rounding:
        return False
    apart = q.covariance.filter(difference, outside).norm()
    return bool(apart <= rounding * (p.mean.double().norm() + q.mean.double().norm()))


def _trace(a: Covariance, gain_a: Tensor, b: Covariance, gain_b: Tensor) -> Tensor:
    """tr(V_a diag(gain_a) V_a^T V_b diag(gain_b) V_b^T), gains at least 0."""
    if isinstance(a, Diagonal) or isinstance(b, Diagonal):
        # if one matrix is diagonal, only the diagonals matter
        return (_diagonal(a, gain_a) * _diagonal(b, gain_b)).sum()
    if isinstance(a, Stationary) and isinstance(b, Stationary):
        # a common Fourier basis; two colour bases at each frequency
        cosines = (a.axes.double().T @ b.axes.double()).square()
        return torch.einsum("ahw,ab,bhw->", gain_a, cosines, gain_b)
    # |diag(sqrt gain_a) V_a^T V_b diag(sqrt gain_b)|^2 in the Frobenius norm, by columns; a or b is dense
    shape = gain_a.shape
    columns = torch.eye(gain_a.numel(), dtype=torch.float64, device=gain_a.device).unflatten(1, shape)
    total = gain_a.new_zeros(())
    for part in columns.split(rows_at_once(shape, gain_a.device)):
        total = total + a.filter(b.filter(part, gain_b.sqrt()), gain_a.sqrt()).square().sum()
    return total


def _diagonal(covariance: Covariance, gain: Tensor) -> Tensor:
    """The diagonal of V diag(gain) V^T, (C, H, W)."""
    if isinstance(covariance, Dense):
        V = covariance.eigenvectors.double()
        return (V.square() @ gain.flatten()).reshape(gain.shape)
    if isinstance(covariance, Stationary):
        axes = covariance.axes.double().square()
        return torch.einsum("ck,k->c", axes, gain.mean((1, 2)))[:, None, None].expand_as(gain)
    return gain
