"""Priors with everything in closed form, the posterior of a linear-Gaussian measurement included.

Notation: D = C H W; m a mean, S the covariance, l its eigenvalues, f(S) the matrix with the eigenvectors of S and the
eigenvalues f(l); n ~ N(0, I); x_t = x + sigma n.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genprior.noise import Noise
from genprior.priors.base import Prior, as_level
from genprior.priors.conditioning import Conditioning, alike
from genprior.priors.covariance import Covariance, Dense, Diagonal, Stationary, find_form, fit_moments, reflected


class Gaussian(Prior):
    """The Gaussian p(x) = N(x; m, S).

    With every method in closed form: sample and decode x = m + S^(1/2) z, encode z = S^(-1/2) (x - m) (symmetric root;
    the pseudo-inverse where S is singular), denoise m + S (S + sigma^2 I)^(-1) (x_t - m).

    sigma_max is 10 times the largest standard deviation of x (along any direction), sigma_min a hundredth of the
    smallest that is not 0 (of a point mass, both are taken as 1). Starting a sampler at centre + sigma_max n instead of
    at the law of x_t, and returning x_t at sigma_min instead of x, then change no standard deviation by 1 %.

    Arguments:
        mean: (C, H, W), in the units of x; its dtype and device become the prior's.
        covariance: (D, D), or (C, H, W) variances of independent pixels; symmetric, no eigenvalue below 0. Eigenvalues
            within rounding of 0 count as 0; where there are any, `log_prob`, `elbo` and `score` raise.

    Raises:
        ValueError: a shape is wrong, a value is not finite, or the covariance is not symmetric or not semi-definite.
    """

    decoder_variance = 0.0

    def __init__(self, mean: Tensor, covariance: Tensor | Covariance):
        super().__init__()
        _check_means("mean", "(C, H, W)", mean, ndim=3)
        self.register_buffer("mean", mean.detach().clone())
        self.covariance = _as_covariance(covariance, mean)
        self.image_shape = self.latent_shape = tuple(mean.shape)

    @classmethod
    def stationary(cls, mean: Tensor, spectrum: Tensor) -> Gaussian:
        """The Gaussian whose channels are independent, each with a circulant covariance; its methods use the FFT.

        Arguments:
            mean: (C, H, W), in the units of x.
            spectrum: (C, H, W) variances of the orthonormal 2-D Fourier coefficients, zero frequency first: real,
                at least 0, and even, spectrum[c, i, j] = spectrum[c, -i mod H, -j mod W].

        Raises:
            ValueError: a shape is wrong, or the spectrum is negative, not even or not finite.
        """
        _check_means("mean", "(C, H, W)", mean, ndim=3)
        spectrum = _checked_spectrum(spectrum, mean)
        return cls(mean, Stationary(spectrum, torch.eye(len(mean), dtype=spectrum.dtype, device=mean.device)))

    @classmethod
    def fit(cls, images: Tensor, covariance: str = "full") -> Gaussian:
        """The Gaussian of greatest likelihood for dequantised images (see `genprior.bits`).

        Moments are those of (255 x + u) / 256, u uniform, exact in u: every eigenvalue is at least the variance
        1 / (12 256^2) that u adds, so the covariance is regular, and nothing else is added to it. All sums are in
        float64, over chunks.

        Arguments:
            images: (N, C, H, W), values k / 255 in [0, 1]; their dtype and device become the prior's.
            covariance: "full"; "diagonal", for independent pixels; "stationary", for a mean that is one colour and a
                covariance circulant along the principal axes of colour, which knows textures but no places.

        Raises:
            ValueError: there is no such form, the images are none, of another shape or out of range, or "full" was
                asked of images of over 4096 values.
        """
        _check_means("images", "(N, C, H, W)", images, ndim=4)
        if not 0 <= float(images.min()) <= float(images.max()) <= 1:
            raise ValueError(
                f"images have values from {float(images.min()):.3g} to {float(images.max()):.3g}: give 8-bit images "
                "k / 255, in [0, 1]"
            )
        mean, fitted = fit_moments(images.detach(), covariance)
        return cls(mean.to(images.dtype), fitted)

    @classmethod
    def blank(cls, image_shape: tuple[int, int, int], covariance: str) -> Gaussian:
        """N(0, I) with its covariance in the given form, `config` its arguments: what stored weights are read into.

        Raises:
            ValueError: no such shape or form.
        """
        shape = tuple(image_shape)
        if len(shape) != 3 or not all(isinstance(a, int) and a > 0 for a in shape):
            raise ValueError(f"image_shape is {image_shape!r}: give (C, H, W), three whole numbers, at least 1.")
        return cls(torch.zeros(shape), find_form(covariance).identity(shape))

    @property
    def config(self) -> dict:
        """The arguments of `blank` for a prior of this shape and form."""
        return {"image_shape": list(self.image_shape), "covariance": self.covariance.form}

    @property
    def centre(self) -> Tensor:
        return self.mean

    @property
    def spread(self) -> float:
        return float(self.covariance.eigenvalues.mean().sqrt())

    @property
    def sigma_min(self) -> float:
        return _levels(self.covariance, self.mean[None], self.mean)[0]

    @property
    def sigma_max(self) -> float:
        return _levels(self.covariance, self.mean[None], self.mean)[1]

    def sample(self, n: int, *, seed: int = 0) -> Tensor:
        return self.draw(_noise(n, seed))

    @torch.no_grad()
    def draw(self, noise: Noise) -> Tensor:
        """One draw per row of the noise, (B, C, H, W)."""
        return self.decode(noise(self.mean.expand(len(noise.image), *self.image_shape)))

    def log_prob(self, x: Tensor) -> Tensor:
        self.covariance.check_invertible()
        r = _checked(x, self) - self.mean
        whitened = self.covariance.filter(r, self.covariance.eigenvalues.rsqrt())
        return (self.covariance.log_normaliser() - whitened.square().sum((1, 2, 3)) / 2).to(x.dtype)

    def score(self, x: Tensor) -> Tensor:
        self.covariance.check_invertible()
        r = _checked(x, self) - self.mean
        return -self.covariance.filter(r, 1 / self.covariance.eigenvalues).to(x.dtype)

    def elbo(self, x: Tensor, *, seed: int = 0) -> Tensor:
        """ln p(x) in nats, (B,): the bound is tight."""
        return self.log_prob(x)

    def denoise(self, x_t: Tensor, sigma: float | Tensor) -> Tensor:
        r = _checked(x_t, self) - self.mean
        gain = _wiener(self.covariance.eigenvalues, as_level(sigma, r))
        return (self.mean + self.covariance.filter(r, gain)).to(x_t.dtype)

    def decode(self, z: Tensor) -> Tensor:
        return (self.mean + self.covariance.filter(_checked(z, self), self.covariance.eigenvalues.sqrt())).to(z.dtype)

    def encode(self, x: Tensor) -> Tensor:
        l = self.covariance.eigenvalues
        return self.covariance.filter(_checked(x, self) - self.mean, torch.where(l > 0, l.rsqrt(), 0)).to(x.dtype)

    def posterior(self, measurement, row: int = 0) -> Gaussian:
        """p(x | y) of y = A x + noise n, with G = S A^T (A S A^T + noise^2 I)^+: N(m + G (y - A m), S - G A S).

        noise = 0 is the limit noise -> 0: what A sees is then known, and the posterior is singular there.

        Arguments:
            measurement: y (B, ...), a linear operator A and the noise, in the units of y.
            row: which image of the batch.

        Raises:
            UnsupportedError: the image or y has over 4096 values: the matrix of A would not fit.
            ValueError: there is no such row, or A does not take images of this shape.
        """
        return self.posteriors(_select_row(measurement, row))[0]

    def posteriors(self, measurement) -> list[Gaussian]:
        """`posterior` of every image; those of one operator and one noise level share one factorisation."""

        def posterior(means: Tensor, log_evidence: Tensor, covariance: Covariance) -> Gaussian:
            return Gaussian(means[0].to(self.mean), covariance)

        return _posteriors(self.covariance, self.mean[None], measurement, posterior)


class GaussianMixture(Prior):
    """The Gaussian mixture p(x) = sum_k w_k N(x; m_k, S) with one covariance S.

    With r_k = w_k N(x_t; m_k, S + sigma^2 I) / sum_j ... and m_r = sum_k r_k m_k (r_k, m_r at sigma = 0 for the score):
    denoise m_r + S (S + sigma^2 I)^(-1) (x_t - m_r), score S^(-1) (m_r - x). Where S is singular, denoise wants
    sigma > 0.

    With d the largest distance of a mean from the centre (the weighted mean) and s^2 the largest eigenvalue of S,
    sigma_max is 10 sqrt(s^2 + d^2), and sigma_min a hundredth of the smallest standard deviation of S that is not 0
    (of sqrt(s^2 + d^2) if all are 0). Starting a sampler at centre + sigma_max n instead of at the law of x_t, and
    returning x_t at sigma_min instead of x, then change no standard deviation by 1 %.

    Arguments:
        weights: (K,), at least 0, of sum 1 within 1e-6 (they are then divided by their sum).
        means: (K, C, H, W), in the units of x; their dtype and device become the prior's.
        covariance: (D, D), or (C, H, W) variances, as for `Gaussian`; every component has it.

    Raises:
        ValueError: a shape is wrong, a value is not finite, the weights are no probabilities, or the covariance is not
            symmetric or not semi-definite.
    """

    def __init__(self, weights: Tensor, means: Tensor, covariance: Tensor | Covariance):
        super().__init__()
        _check_means("means", "(K, C, H, W)", means, ndim=4)
        weights = _checked_weights(weights, means)
        self.register_buffer("weights", weights.to(means))
        self.register_buffer("means", means.detach().clone())
        self.register_buffer("centre", torch.tensordot(weights, means.detach().double(), 1).to(means))
        self.covariance = _as_covariance(covariance, means[0])
        self.image_shape = tuple(means.shape[1:])

    @property
    def spread(self) -> float:
        between = torch.tensordot(self.weights, (self.means - self.centre).square(), 1).mean()
        return float((self.covariance.eigenvalues.mean() + between).sqrt())

    @property
    def sigma_min(self) -> float:
        return _levels(self.covariance, self.means, self.centre)[0]

    @property
    def sigma_max(self) -> float:
        return _levels(self.covariance, self.means, self.centre)[1]

    def sample(self, n: int, *, seed: int = 0) -> Tensor:
        return self.draw(_noise(n, seed))

    @torch.no_grad()
    def draw(self, noise: Noise) -> Tensor:
        """One draw per row of the noise, (B, C, H, W)."""
        like = self.centre.expand(len(noise.image), *self.image_shape)
        x = self.covariance.filter(noise(like), self.covariance.eigenvalues.sqrt())
        bounds = self.weights.cumsum(0)[:-1]
        k = torch.searchsorted(bounds, noise.uniform(like[:, 0, 0, 0]))
        return self.means[k] + x

    def log_prob(self, x: Tensor) -> Tensor:
        self.covariance.check_invertible()
        l = self.covariance.eigenvalues
        logits = self._logits(_checked(x, self), l[None])
        whitened = self.covariance.filter(x - self.centre, l.rsqrt())
        log_density = logits.logsumexp(1) - whitened.square().sum((1, 2, 3)) / 2
        return (self.covariance.log_normaliser() + log_density).to(x.dtype)

    def score(self, x: Tensor) -> Tensor:
        self.covariance.check_invertible()
        l = self.covariance.eigenvalues
        m_r = self._mean_given(_checked(x, self), l[None])
        return self.covariance.filter(m_r - x, 1 / l).to(x.dtype)

    def elbo(self, x: Tensor, *, seed: int = 0) -> Tensor:
        """ln p(x) in nats, (B,): the bound is tight."""
        return self.log_prob(x)

    def denoise(self, x_t: Tensor, sigma: float | Tensor) -> Tensor:
        l = self.covariance.eigenvalues
        sigma = torch.as_tensor(sigma, dtype=l.dtype, device=l.device).reshape(-1, 1, 1, 1)
        m_r = self._mean_given(_checked(x_t, self), l + sigma**2)
        return (m_r + self.covariance.filter(x_t - m_r, _wiener(l, sigma))).to(x_t.dtype)

    def posterior(self, measurement, row: int = 0) -> GaussianMixture:
        """p(x | y) of y = A x + noise n: weights in proportion to w_k N(y; A m_k, A S A^T + noise^2 I), and each
        component the Gaussian's posterior, N(m_k + G (y - A m_k), S - G A S) with G = S A^T (A S A^T + noise^2 I)^+.

        noise = 0 is the limit noise -> 0: what A sees is then known, and the posterior is singular there.

        Arguments:
            measurement: y (B, ...), a linear operator A and the noise, in the units of y.
            row: which image of the batch.

        Raises:
            UnsupportedError: the image or y has over 4096 values: the matrix of A would not fit.
            ValueError: there is no such row, or A does not take images of this shape.
        """
        return self.posteriors(_select_row(measurement, row))[0]

    def posteriors(self, measurement) -> list[GaussianMixture]:
        """`posterior` of every image; those of one operator and one noise level share one factorisation."""

        def posterior(means: Tensor, log_evidence: Tensor, covariance: Covariance) -> GaussianMixture:
            weights = (self.weights.log() + log_evidence).softmax(0)
            return GaussianMixture(weights, means.to(self.means), covariance)

        return _posteriors(self.covariance, self.means, measurement, posterior)

    def _logits(self, x: Tensor, variance: Tensor) -> Tensor:
        """ln w_k - |V^(-1/2) (x - m_k)|^2 / 2 up to a term without k, (B, K), V of eigenvectors of S and `variance`.

        With u and u_k the distances of x and m_k from the centre, this is ln w_k + <u, V^-1 u_k> - <u_k, V^-1 u_k> / 2:
        no (B, K, C, H, W) is made where all rows share the variance, (1, C, H, W).
        """
        u, u_k = x - self.centre, self.means - self.centre
        linear = self.covariance.filter(u, 1 / variance).flatten(1) @ u_k.flatten(1).T.to(u)
        quadratic = (u_k * self.covariance.filter(u_k, 1 / variance[:, None])).sum((2, 3, 4))
        return self.weights.log() + linear - quadratic / 2

    def _mean_given(self, x: Tensor, variance: Tensor) -> Tensor:
        """The expected mean of the component that x came from: m_r, (B, C, H, W)."""
        r = self._logits(x, variance).softmax(1)
        return torch.tensordot(r, self.means.to(r.dtype), 1)


def _wiener(l: Tensor, sigma: Tensor) -> Tensor:
    """l / (l + sigma^2), and 0 where both are 0."""
    return l / (l + sigma**2).clamp_min(torch.finfo(l.dtype).tiny)


def _noise(n: int, seed: int) -> Noise:
    """The noise of samples 0 to n - 1."""
    return Noise(seed, torch.zeros(n, dtype=torch.int64), torch.arange(n))


def _levels(covariance: Covariance, means: Tensor, centre: Tensor) -> tuple[float, float]:
    l = covariance.eigenvalues
    distance = (means - centre).square().flatten(1).sum(1).max()
    largest = float((l.max() + distance).sqrt()) or 1.0
    smallest = float(l[l > 0].min().sqrt()) if (l > 0).any() else largest
    return smallest / 100, largest * 10


def _posteriors(
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
        shared = _as_covariance(conditioning.covariance, means[0])
        found |= {i: posterior(*conditioning.given(y), shared) for i, y in zip(images.tolist(), group.y)}
    return [found[i] for i in sorted(found)]


def _select_row(measurement, row: int):
    if not 0 <= row < len(measurement.y):
        raise ValueError(f"row is {row}, of {len(measurement.y)} images: give 0 to {len(measurement.y) - 1}")
    return measurement.select(torch.tensor([row], device=measurement.y.device))


def _check_means(name: str, letters: str, means: Tensor, ndim: int) -> None:
    if not means.is_floating_point() or means.ndim != ndim or means.numel() == 0 or not means.isfinite().all():
        raise ValueError(
            f"{name} is a {means.dtype} tensor of shape {tuple(means.shape)}: "
            f"give finite floating-point values of shape {letters}"
        )


def _checked(x: Tensor, prior: Prior) -> Tensor:
    if x.ndim != 4 or tuple(x.shape[1:]) != prior.image_shape:
        raise ValueError(
            f"x has shape {tuple(x.shape)}: this {type(prior).__name__} wants (B, C, H, W) with (C, H, W) = "
            f"{prior.image_shape}"
        )
    return x


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


def _as_covariance(covariance: Tensor | Covariance, mean: Tensor) -> Covariance:
    """The covariance in the form it was given, decomposed in float64, then in the dtype of the mean."""
    if isinstance(covariance, Covariance):
        return covariance.to(mean)
    D = mean.numel()
    given = covariance.detach().to(dtype=torch.float64, device=mean.device)
    if tuple(given.shape) not in (tuple(mean.shape), (D, D)) or not given.isfinite().all():
        raise ValueError(
            f"covariance has shape {tuple(given.shape)}: give finite values, ({D}, {D}) for all pairs of pixels or "
            f"{tuple(mean.shape)} for the variances of independent ones"
        )
    tolerance = _rounding(covariance)
    if given.ndim == 3:
        return Diagonal(_semidefinite("covariance", given, tolerance)).to(mean.dtype)
    asymmetry = float((given - given.T).abs().max())
    if asymmetry > tolerance:
        raise ValueError(
            f"covariance differs from its transpose by up to {asymmetry:.3g}: give a symmetric matrix, "
            "for example (S + S.T) / 2"
        )
    l, V = torch.linalg.eigh((given + given.T) / 2)
    l = _semidefinite("covariance", l, tolerance)
    return Dense(torch.where(l > tolerance, l, 0).reshape(mean.shape), V).to(mean.dtype)


def _checked_spectrum(spectrum: Tensor, mean: Tensor) -> Tensor:
    given = spectrum.detach().to(device=mean.device)
    if given.is_complex() or given.shape != mean.shape or not given.isfinite().all():
        raise ValueError(
            f"spectrum is a {given.dtype} tensor of shape {tuple(given.shape)}: give finite real values of the "
            f"shape of the mean, {tuple(mean.shape)}"
        )
    given = given.double()
    tolerance = _rounding(spectrum)
    oddness = float((given - reflected(given)).abs().max())
    if oddness > tolerance:
        raise ValueError(
            f"spectrum differs from its reflection spectrum[c, -i mod H, -j mod W] by up to {oddness:.3g}: "
            "give an even one, as every real covariance has"
        )
    return _semidefinite("spectrum", (given + reflected(given)) / 2, tolerance)


def _semidefinite(name: str, l: Tensor, tolerance: float) -> Tensor:
    least = float(l.min())
    if least < -tolerance:
        raise ValueError(f"{name} has the eigenvalue {least:.3g}: give one with none below 0")
    return l.clamp_min(0)


def _rounding(given: Tensor) -> float:
    """How far rounding may move an eigenvalue: eps |S|_F for storing S (Weyl), and a factor 10 for computing it."""
    eps = torch.finfo(given.dtype if given.is_floating_point() else torch.float64).eps
    return 10 * eps * float(torch.linalg.vector_norm(given.detach().double()))
