"""Gaussians conditioned on linear measurements, in closed form.

Notation: y = A x + noise n; m_k the prior means and S the prior covariance, D = C H W; M the number of values of y.
"""

import math

import torch
from torch import Tensor

from genprior.checks import UnsupportedError
from genprior.linalg import divide
from genprior.operators.measurement import Measurement
from genprior.priors.gaussian.covariance import LARGEST_DENSE, Covariance, Dense


class Conditioning:
    """The covariance of N(m_k, S) given y, and the gain, for measurements with one operator and one noise level.

    With R = S^(1/2) and A R = U diag(s) V^T, the mean given y is m + R V diag(s / (s^2 + noise^2)) U^T (y - A m), and
    the covariance F F^T, F = R V diag(noise / sqrt(s^2 + noise^2)). Nothing is subtracted, so small noise loses no
    digits. All computations are in float64.

    s counts as 0, and its direction as unseen, only where it is within rounding: that of A and of the decomposition,
    relative to the largest s; or that of U^T y in the dtype of y, if the noise is smaller still.

    Arguments:
        covariance: S.
        means: m_k, (K, C, H, W).
        measurement: its first image gives the operator and the noise.

    Attributes:
        covariance: of x given y, the same for all k.

    Raises:
        UnsupportedError: the image or y has over 4096 values: the matrix of A would not fit.
        ValueError: A does not take images of this shape.
    """

    @torch.no_grad()
    def __init__(self, covariance: Covariance, means: Tensor, measurement: Measurement):
        A, self.noise = _dense(measurement, means)
        # Holes in y are zero rows of A, where y may hold anything.
        self.seen = (A != 0).any(1)
        self.A = A[self.seen]
        self.shape = means.shape[1:]
        self.means = means.double().flatten(1)
        M, D = self.A.shape

        eye = torch.eye(D, dtype=torch.float64, device=means.device).unflatten(1, self.shape)
        self.R = covariance.filter(eye, covariance.eigenvalues.double().sqrt()).flatten(1)
        self.U, s, self.Vt = torch.linalg.svd(self.A @ self.R)
        self.eps = torch.finfo(measurement.y.dtype).eps
        expected = (self.means @ self.A.T).square().amin(0) + (self.U[:, : len(s)] * s).square().sum(1)
        rounding = self._rounding(expected)[: len(s)]
        least = rounding_of_rank(s, (M, D), measurement.operator.precision)
        self.s = torch.where((s > least) & ((s > rounding) | (self.noise > rounding)), s, 0)
        self.v = self.s**2 + self.noise**2

        gain = torch.ones_like(self.means[0])
        gain[: len(s)] = torch.where(self.s > 0, self.noise / self.v.sqrt(), 1)
        # Decompose F itself, not F F^T, whose eigenvalues would lose half their digits.
        P, f, _ = torch.linalg.svd(self.R @ self.Vt.T * gain)
        f = torch.where(f > rounding_of_rank(f, (D, D)), f, 0)
        self.covariance = Dense((f**2).unflatten(0, self.shape), P)

    @torch.no_grad()
    def given(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The means given one y, (K, C, H, W), and ln N(y; A m_k, A S A^T + noise^2 I) + const, (K,)."""
        r = y.to(self.A).flatten()[self.seen] - self.means @ self.A.T
        a = r @ self.U
        along = a[:, : len(self.s)]
        means = self.means + (divide(self.s, self.v) * along) @ self.Vt[: len(self.s)] @ self.R

        # The part of y that no x explains (outside the range of A R) differs between components only if S is singular;
        # rounding must not count as evidence for one of them.
        variance = self._rounding(y.to(self.A).flatten()[self.seen] ** 2).clamp_min(self.noise) ** 2
        variance[: len(self.s)] = torch.where(self.s > 0, self.v, variance[: len(self.s)])
        return means.unflatten(1, self.shape), -(a**2 / variance.clamp_min(1e-200)).sum(1) / 2

    def _rounding(self, size: Tensor) -> Tensor:
        """How far rounding of a y with those squared values moves U^T y, (M',).

        A stored value is off by at most eps / 2 of itself, a computed one by a few times that.
        """
        return 4 * self.eps * (self.U.T.square() @ size).sqrt()


def rounding_of_rank(s: Tensor, shape: tuple[int, int], precision: torch.dtype = torch.float64) -> Tensor:
    """The uncertainty of the decreasing singular values s of a matrix of that shape, (), from rounding.

    Relative to the largest s, the float64 decomposition moves them by up to max(M, D) eps, and entries computed in a
    coarser precision, with independent errors, by sqrt(max(M, D)) eps.
    """
    side = max(shape)
    eps = torch.finfo(torch.float64).eps * side
    if precision != torch.float64:
        eps = torch.finfo(precision).eps * math.sqrt(side)
    return eps * s[:1].sum()


def alike(measurement: Measurement) -> list[Tensor]:
    """Group the indices of a measurement's images, B in all, by operator and noise level."""
    images = len(measurement.y)
    if measurement.operator.batch > 1:
        return list(torch.arange(images).split(1))
    levels = torch.as_tensor(measurement.sd).flatten().expand(images).cpu()
    return [(levels == level).nonzero().flatten() for level in levels.unique()]


def given_each(covariance: Covariance, means: Tensor, measurement: Measurement) -> list[tuple[Tensor, Tensor, Dense]]:
    """Return the means and log-evidence (see `Conditioning.given`) and the covariance of x given y, for every image."""
    found = {}
    for images in alike(measurement):
        group = measurement.select(images)
        conditioning = Conditioning(covariance, means, group)
        shared = conditioning.covariance.to(means)
        found |= {i: (*conditioning.given(y), shared) for i, y in zip(images.tolist(), group.y)}
    return [found[i] for i in sorted(found)]


def _dense(measurement: Measurement, means: Tensor) -> tuple[Tensor, float]:
    """Return A (M, D), in float64, and the noise of the first image of a measurement."""
    shape = tuple(means.shape[1:])
    if tuple(measurement.operator.image_shape) != shape:
        raise ValueError(
            f"the operator takes images of shape {tuple(measurement.operator.image_shape)}, the prior has {shape}: "
            "give a measurement of the prior's images"
        )
    D, M = math.prod(shape), measurement.y[0].numel()
    if max(D, M) > LARGEST_DENSE:
        raise UnsupportedError(
            f"the exact posterior of {D} image values from {M} measured ones needs their dense matrix, and stops at "
            f"{LARGEST_DENSE}: give smaller images, or use a sampler"
        )
    one = measurement.select(torch.tensor([0], device=measurement.y.device))
    eye = torch.eye(D, dtype=torch.float64, device=means.device).reshape(D, *shape)
    A = torch.cat([one.operator(x).flatten(1) for x in eye.split(256)]).T
    return A, float(torch.as_tensor(one.sd, dtype=torch.float64).reshape(()))
