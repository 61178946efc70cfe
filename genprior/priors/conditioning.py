"""Gaussians given linear measurements, in closed form.

Notation: y = A x + noise n; m_k the means and S the covariance before, D = C H W; M the values of y.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from genprior.priors.base import Prior, UnsupportedError
from genprior.priors.covariance import LARGEST_DENSE, Covariance, as_covariance


class Conditioning:
    """What measurements by one operator with one noise level share: the covariance of N(m_k, S) given y, and the gain.

    With R = S^(1/2) and A R = U diag(s) V^T the mean given y is m + R V diag(s / (s^2 + noise^2)) U^T (y - A m) and the
    covariance F F^T, F = R V diag(noise / sqrt(s^2 + noise^2)): no difference is taken, so small noise loses no digits.
    In float64 throughout.

    Arguments:
        covariance: S.
        means: m_k, (K, C, H, W).
        measurement: whose first image's operator and noise are taken.

    Attributes:
        covariance: of x given y, (D, D), the same for all k.

    Raises:
        UnsupportedError: the image or y has over 4096 values: the matrix of A would not fit.
        ValueError: A does not take images of this shape.
    """

    @torch.no_grad()
    def __init__(self, covariance: Covariance, means: Tensor, measurement):
        A, self.noise = _dense(measurement, means)
        # Holes are zero rows of A, where y may hold anything.
        self.seen = (A != 0).any(1)
        self.A = A[self.seen]
        self.shape = means.shape[1:]
        self.means = means.double().flatten(1)
        self.eps = max(torch.finfo(a.dtype).eps for a in (means, measurement.y))

        D = self.means.shape[1]
        eye = torch.eye(D, dtype=torch.float64, device=means.device).unflatten(1, self.shape)
        self.R = covariance.filter(eye, covariance.eigenvalues.double().sqrt()).flatten(1)
        self.U, s, self.Vt = torch.linalg.svd(self.A @ self.R)
        rank = int((s > max(self.A.shape) * torch.finfo(means.dtype).eps * s[:1]).sum())
        self.s = s[:rank]
        self.v = self.s**2 + self.noise**2
        gain = torch.ones_like(self.means[0])
        gain[:rank] = self.noise / self.v.sqrt()
        F = self.R @ self.Vt.T * gain
        self.covariance = F @ F.T

    @torch.no_grad()
    def given(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The means given one y, (K, C, H, W), and ln N(y; A m_k, A S A^T + noise^2 I) + const, (K,)."""
        rank = len(self.s)
        r = y.to(self.A).flatten()[self.seen] - self.means @ self.A.T
        a = r @ self.U[:, :rank]
        means = self.means + (self.s / self.v * a) @ self.Vt[:rank] @ self.R

        # What no x can explain (outside the range of A R) differs between components only if S is singular. Rounding,
        # of relative size eps, is no evidence: noise is taken to be at least 100 times that.
        rest = r @ self.U[:, rank:]
        floor = 100 * self.eps * torch.linalg.vector_norm(r).clamp_min(1e-100)
        log_evidence = -(a**2 / self.v).sum(1) / 2 - (rest / floor.clamp_min(self.noise)).square().sum(1) / 2
        return means.unflatten(1, self.shape), log_evidence


def alike(measurement) -> list[Tensor]:
    """The images of a measurement, (B,) numbers in all, in groups of one operator and one noise level."""
    images = len(measurement.y)
    if measurement.operator.batch > 1:
        return list(torch.arange(images).split(1))
    levels = torch.as_tensor(measurement.noise).flatten().expand(images).cpu()
    return [(levels == level).nonzero().flatten() for level in levels.unique()]


def posterior_of_each(
    covariance: Covariance,
    means: Tensor,
    measurement,
    posterior: Callable[[Tensor, Tensor, Covariance], Prior],
) -> list:
    """`posterior(means, log_evidence, covariance)` of every image of a measurement, see `Conditioning`."""
    found = {}
    for images in alike(measurement):
        group = measurement.select(images)
        conditioning = Conditioning(covariance, means, group)
        shared = as_covariance(conditioning.covariance, means[0])
        found |= {i: posterior(*conditioning.given(y), shared) for i, y in zip(images.tolist(), group.y)}
    return [found[i] for i in sorted(found)]


def with_posterior_of(image_shape: tuple[int, ...], capabilities: frozenset[str]) -> frozenset[str]:
    """These, of images of that shape: without "posterior" where they have too many values for their dense matrix."""
    return capabilities - {"posterior"} if math.prod(image_shape) > LARGEST_DENSE else capabilities


def select_row(measurement, row: int):
    """The measurement of one image of the batch.

    Raises:
        ValueError: there is no such row.
    """
    if not 0 <= row < len(measurement.y):
        raise ValueError(f"row is {row}, of {len(measurement.y)} images: give 0 to {len(measurement.y) - 1}")
    return measurement.select(torch.tensor([row], device=measurement.y.device))


def _dense(measurement, means: Tensor) -> tuple[Tensor, float]:
    """A (M, D), in float64, and the noise of the first image of a measurement."""
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
    return A, float(torch.as_tensor(one.noise, dtype=torch.float64).reshape(()))
