"""Gaussian mixtures with one covariance, with everything in closed form; for their posterior, see `posteriors.exact`.

Notation: D = C H W; m a mean, S the covariance, l its eigenvalues, f(S) the matrix with the eigenvectors of S and the
eigenvalues f(l); n ~ N(0, I); x_t = x + sigma n.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genprior.linalg import wide
from genprior.noise import Noise
from genprior.priors.base import checked
from genprior.priors.gaussian.covariance import LARGEST_DENSE, Covariance, as_covariance
from genprior.priors.gaussian.normal import Normal, check_means, wiener


class GaussianMixture(Normal):
    """The Gaussian mixture p(x) = sum_k w_k N(x; m_k, S) with one covariance S.

    With r_k = w_k N(x_t; m_k, S + sigma^2 I) / sum_j ... and m_r = sum_k r_k m_k (for the score, both at sigma = 0),
    denoise is m_r + S (S + sigma^2 I)^(-1) (x_t - m_r), and score S^(-1) (m_r - x). Where S is singular, denoise needs
    sigma > 0.

    With d the largest distance of a mean from the centre (the weighted mean) and s^2 the largest eigenvalue of S,
    sigma_max is 10 sqrt(s^2 + d^2), and sigma_min a hundredth of the smallest standard deviation of S that is not 0
    (of sqrt(s^2 + d^2) if all are 0). Starting a sampler at centre + sigma_max n instead of at the law of x_t, and
    returning x_t at sigma_min instead of x, then change every standard deviation by less than 1 %.

    Arguments:
        weights: (K,), at least 0, of sum 1 within 1e-6 (they are then divided by their sum).
        means: (K, C, H, W), in the units of x; their dtype and device become the prior's.
        covariance: (D, D), or (C, H, W) variances, as for `Gaussian`; shared by all components.

    Raises:
        ValueError: a shape is wrong, a value is not finite, the weights are not probabilities, or the covariance is not
            symmetric or not semi-definite.
    """

    centre: Tensor

    def __init__(self, weights: Tensor, means: Tensor, covariance: Tensor | Covariance):
        super().__init__()
        check_means("means", "(K, C, H, W)", means, ndim=4)
        weights = _checked_weights(weights, means)
        self.register_buffer("weights", weights.to(means))
        self.register_buffer("means", means.detach().clone())
        self.register_buffer("centre", torch.tensordot(weights, means.detach().double(), 1).to(means))
        self.covariance = as_covariance(covariance, means[0])
        self.image_shape = tuple(means.shape[1:])

    @property
    def capabilities(self) -> frozenset[str]:
        dense = self.means[0].numel() <= LARGEST_DENSE
        return super().capabilities - (frozenset() if dense else {"posterior_covariance"})

    @property
    def spread(self) -> float:
        between = torch.tensordot(self.weights, (self.means - self.centre).square(), 1).mean()
        return float((self.covariance.eigenvalues.mean() + between).sqrt())

    @torch.no_grad()
    def draw(self, noise: Noise) -> Tensor:
        like = self.centre.expand(len(noise.image), *self.image_shape)
        x = self.covariance.filter(noise(like), self.covariance.eigenvalues.sqrt())
        bounds = self.weights.cumsum(0)[:-1]
        k = torch.searchsorted(bounds, noise.uniform(like[:, 0, 0, 0]))
        return self.means[k] + x

    def log_prob(self, x: Tensor) -> Tensor:
        self.covariance.check_invertible()
        logits = self._logits(checked(self, x), self.covariance.eigenvalues[None])
        return (self.covariance.log_normaliser() + logits.logsumexp(1)).to(x.dtype)

    def score(self, x: Tensor) -> Tensor:
        self.covariance.check_invertible()
        l = self.covariance.eigenvalues
        m_r = self._mean_given(checked(self, x), l[None])
        return self.covariance.filter(m_r - x, 1 / l).to(x.dtype)

    def denoise(self, x_t: Tensor, sigma: float | Tensor) -> Tensor:
        l = wide(self.covariance.eigenvalues)
        sigma = torch.as_tensor(sigma, dtype=l.dtype, device=l.device).reshape(-1, 1, 1, 1)
        m_r = self._mean_given(checked(self, x_t), l + sigma**2)
        return (m_r + self.covariance.filter(x_t - m_r, wiener(l, sigma))).to(x_t.dtype)

    @torch.no_grad()
    def posterior_covariance(self, sigma: float) -> Covariance:
        """E Cov[x | x_t], the mean over 1024 draws of the exact Cov[x | x_t]; dense, so for at most 4096 values.

        With W = S (S + sigma^2 I)^-1, Cov[x | x_t] is sigma^2 W + (I - W) Cov_r[m] (I - W), with Cov_r[m] the
        covariance of the means under the weights r_k.
        """
        if "posterior_covariance" not in self.capabilities:
            raise self._unsupported("posterior_covariance")
        x_t = self.sample(1024)
        x_t = x_t + sigma * Noise.of_draws(len(x_t), 1)(x_t)
        l = wide(self.covariance.eigenvalues)
        W = wiener(l, torch.as_tensor(sigma, dtype=l.dtype, device=l.device))
        r = self._logits(x_t, (l + sigma**2)[None]).softmax(1)
        means = self.means.to(r) - self.centre.to(r)
        shrunk = self.covariance.filter(means, 1 - W).flatten(1)
        expected = r @ shrunk
        between = (shrunk.T * r.mean(0)) @ shrunk - expected.T @ expected / len(expected)
        eye = torch.eye(l.numel()).to(l).unflatten(1, self.image_shape)
        within = self.covariance.filter(eye, sigma**2 * W).flatten(1)
        total = within + between
        return as_covariance((total + total.T) / 2, self.centre)

    def _logits(self, x: Tensor, variance: Tensor) -> Tensor:
        """ln w_k - |V^(-1/2) (x - m_k)|^2 / 2, (B, K), V with the eigenvectors of S and `variance`; in float64.

        With m_j the mean nearest to x, r = V^(-1/2) (x - m_j) and d_k = V^(-1/2) (m_k - m_j), this is
        ln w_k - |r|^2 / 2 + <r, d_k> - |d_k|^2 / 2: where means lie many standard deviations apart, large terms cancel
        only for those k whose weight is 0. If all rows share the variance, no (B, K, C, H, W) tensor is formed.
        """
        x, means, root = wide(x), wide(self.means), wide(variance).rsqrt()
        centre = wide(self.centre)
        W = self.covariance.filter(means - centre, root[:, None]).flatten(2)  # (1 or B, K, D)
        u = self.covariance.filter(x - centre, root).flatten(1)
        shared = len(W) == 1
        along = u @ W[0].T if shared else torch.einsum("bd,bkd->bk", u, W)
        j = (along - W.square().sum(2) / 2).argmax(1)
        W_j = W[0, j] if shared else W[torch.arange(len(j), device=j.device), j]

        r = self.covariance.filter(x - means[j], root).flatten(1)
        along = r @ W[0].T if shared else torch.einsum("bd,bkd->bk", r, W)
        along = along - (r * W_j).sum(1, keepdim=True)
        differences = torch.cdist(W_j[None] if shared else W_j[:, None], W, compute_mode="donot_use_mm_for_euclid_dist")
        apart = differences.reshape(along.shape).square()
        return wide(self.weights).log() + along - (apart + r.square().sum(1, keepdim=True)) / 2

    def _mean_given(self, x: Tensor, variance: Tensor) -> Tensor:
        """The expected mean of the component that x came from: m_r, (B, C, H, W), in float64."""
        r = self._logits(x, variance).softmax(1)
        return torch.tensordot(r, self.means.to(r.dtype), 1)


def _checked_weights(weights: Tensor, means: Tensor) -> Tensor:
    """The weights in float64, of sum 1."""
    if tuple(weights.shape) != (len(means),):
        raise ValueError(f"weights has shape {tuple(weights.shape)} for {len(means)} means: give one weight per mean")
    weights = weights.detach().to(dtype=torch.float64, device=means.device)
    total = float(weights.sum())
    if not bool((weights >= 0).all()) or not abs(total - 1) <= 1e-6:
        raise ValueError(
            f"weights sum to {total:.9g} and the least is {float(weights.min()):.3g}: give probabilities, "
            "at least 0 and of sum 1"
        )
    return weights / total
