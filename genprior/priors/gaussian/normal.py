"""The base class of Gaussian priors and their mixtures.

Notation: D = C H W; m_k the means, S the covariance, l its eigenvalues.
"""

from abc import abstractmethod

import torch
from torch import Tensor

from genprior.noise import Noise
from genprior.priors.base import Prior
from genprior.priors.gaussian.covariance import Covariance


def wiener(l: Tensor, sigma: Tensor) -> Tensor:
    """l / (l + sigma^2), and 0 where both are 0."""
    return l / (l + sigma**2).clamp_min(torch.finfo(l.dtype).tiny)


def given_noisy(covariance: Covariance, sigma: float) -> Covariance:
    """Cov[x | x_t] = sigma^2 S (S + sigma^2 I)^-1 for x of covariance S and x_t = x + sigma n."""
    l = covariance.eigenvalues
    return covariance.with_eigenvalues(sigma**2 * wiener(l, torch.as_tensor(sigma, dtype=l.dtype, device=l.device)))


class Normal(Prior):
    """A prior of Gaussian components N(m_k, S) with one covariance.

    Attributes:
        weights, means: of the components, (K,) and (K, C, H, W).
    """

    weights: Tensor
    means: Tensor
    covariance: Covariance

    @property
    def sigma_min(self) -> float:
        return self._noise_range()[0]

    @property
    def sigma_max(self) -> float:
        return self._noise_range()[1]

    def _noise_range(self) -> tuple[float, float]:
        l = self.covariance.eigenvalues
        distance = (self.means - self.centre).square().flatten(1).sum(1).max()
        largest = float((l.max() + distance).sqrt()) or 1.0
        smallest = float(l[l > 0].min().sqrt()) if (l > 0).any() else largest
        return smallest / 100, largest * 10

    def sample(self, n: int, *, seed: int = 0) -> Tensor:
        return self.draw(Noise.of_draws(n, seed))

    @abstractmethod
    def draw(self, noise: Noise) -> Tensor:
        """Return one draw per row of the noise, (B, C, H, W)."""

    def elbo(self, x: Tensor, *, seed: int = 0) -> Tensor:
        """ln p(x) in nats, (B,): the bound is tight."""
        return self.log_prob(x)


def check_means(name: str, letters: str, means: Tensor, ndim: int) -> None:
    """Refuse means, or images, that are not finite floating-point values with that many axes, named by `letters`.

    Raises:
        ValueError: they are not.
    """
    if not means.is_floating_point() or means.ndim != ndim or means.numel() == 0 or not means.isfinite().all():
        raise ValueError(
            f"{name} is a {means.dtype} tensor of shape {tuple(means.shape)}: "
            f"give finite floating-point values of shape {letters}"
        )
