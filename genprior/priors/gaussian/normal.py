"""What Gaussian priors and mixtures of them share.

Notation: D = C H W; m_k the means, S the covariance, l its eigenvalues.
"""

import torch
from torch import Tensor

from genprior.priors.base import Prior
from genprior.priors.gaussian.covariance import Covariance


def wiener(l: Tensor, sigma: Tensor) -> Tensor:
    """l / (l + sigma^2), and 0 where both are 0."""
    return l / (l + sigma**2).clamp_min(torch.finfo(l.dtype).tiny)


def given_noisy(covariance: Covariance, sigma: float) -> Covariance:
    """Cov[x | x_t] = sigma^2 S (S + sigma^2 I)^-1 for x of covariance S and x_t = x + sigma n."""
    l = covariance.eigenvalues
    return covariance.with_eigenvalues(sigma**2 * wiener(l, torch.as_tensor(sigma, dtype=l.dtype, device=l.device)))


def noise_range(covariance: Covariance, means: Tensor, centre: Tensor) -> tuple[float, float]:
    """sigma_min and sigma_max, in the units of x, of components N(m_k, S), m_k (K, C, H, W), around a centre."""
    l = covariance.eigenvalues
    distance = (means - centre).square().flatten(1).sum(1).max()
    largest = float((l.max() + distance).sqrt()) or 1.0
    smallest = float(l[l > 0].min().sqrt()) if (l > 0).any() else largest
    return smallest / 100, largest * 10


def check_means(name: str, letters: str, means: Tensor, ndim: int) -> None:
    """Refuse means, or images, that are not finite floating-point values with so many axes, named by `letters`.

    Raises:
        ValueError: they are not.
    """
    if not means.is_floating_point() or means.ndim != ndim or means.numel() == 0 or not means.isfinite().all():
        raise ValueError(
            f"{name} is a {means.dtype} tensor of shape {tuple(means.shape)}: "
            f"give finite floating-point values of shape {letters}"
        )


def checked(x: Tensor, prior: Prior) -> Tensor:
    """x itself, (B, C, H, W).

    Raises:
        ValueError: it is not of the images of this prior.
    """
    if x.ndim != 4 or tuple(x.shape[1:]) != prior.image_shape:
        raise ValueError(
            f"x has shape {tuple(x.shape)}: this {type(prior).__name__} wants (B, C, H, W) with (C, H, W) = "
            f"{prior.image_shape}"
        )
    return x
