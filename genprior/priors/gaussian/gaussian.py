"""The Gaussian prior, with everything in closed form; for its posterior, see `posteriors.exact`.

Notation: D = C H W; m a mean, S the covariance, l its eigenvalues, f(S) the matrix with the eigenvectors of S and the
eigenvalues f(l); n ~ N(0, I); x_t = x + sigma n.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genprior.checks import SHAPE, Shape, check_arguments
from genprior.linalg import wide
from genprior.noise import Noise
from genprior.priors.base import as_level, checked
from genprior.priors.gaussian.covariance import Covariance, Stationary, as_covariance, as_spectrum, find_form
from genprior.priors.gaussian.fit import fit_moments
from genprior.priors.gaussian.normal import Normal, check_means, given_noisy, wiener


class Gaussian(Normal):
    """The Gaussian p(x) = N(x; m, S).

    Every method has a closed form: sample and decode x = m + S^(1/2) z, encode z = S^(-1/2) (x - m) (symmetric root;
    the pseudo-inverse if S is singular), denoise m + S (S + sigma^2 I)^(-1) (x_t - m).

    sigma_max is 10 times the largest standard deviation of x (in any direction), sigma_min a hundredth of the smallest
    that is not 0 (for a point mass, both deviations count as 1). Starting a sampler at centre + sigma_max n instead of
    at the law of x_t, and returning x_t at sigma_min instead of x, then change every standard deviation by less than
    1 %.

    Arguments:
        mean: (C, H, W), in the units of x; its dtype and device become the prior's.
        covariance: (D, D), or (C, H, W) variances of independent pixels; symmetric, no eigenvalue below 0. Eigenvalues
            within rounding of 0 count as 0; if there are any, `log_prob`, `elbo` and `score` raise.

    Raises:
        ValueError: a shape is wrong, a value is not finite, or the covariance is not symmetric or not semi-definite.
    """

    decoder_variance = 0.0

    mean: Tensor

    def __init__(self, mean: Tensor, covariance: Tensor | Covariance):
        super().__init__()
        check_means("mean", "(C, H, W)", mean, ndim=3)
        self.register_buffer("mean", mean.detach().clone())
        self.covariance = as_covariance(covariance, mean)
        self.image_shape = self.latent_shape = tuple(mean.shape)

    @classmethod
    def stationary(cls, mean: Tensor, spectrum: Tensor) -> Gaussian:
        """Build a Gaussian with independent channels, each with a circulant covariance; its methods use the FFT.

        Arguments:
            mean: (C, H, W), in the units of x.
            spectrum: (C, H, W), variances of the orthonormal 2-D Fourier coefficients, zero frequency first: real,
                at least 0, and even, spectrum[c, i, j] = spectrum[c, -i mod H, -j mod W].

        Raises:
            ValueError: a shape is wrong, or the spectrum is negative, not even or not finite.
        """
        check_means("mean", "(C, H, W)", mean, ndim=3)
        spectrum = as_spectrum(spectrum, mean)
        return cls(mean, Stationary(spectrum, torch.eye(len(mean), dtype=spectrum.dtype, device=mean.device)))

    @classmethod
    def fit(cls, images: Tensor, covariance: str = "full") -> Gaussian:
        """Fit the maximum-likelihood Gaussian to dequantised images (see `genprior.bits`).

        The moments are those of (255 x + u) / 256, u uniform, exact in u: every eigenvalue is at least the variance
        1 / (12 256^2) that u adds, so the covariance is regular without any other term. All sums run in float64, over
        chunks.

        Arguments:
            images: (N, C, H, W), values k / 255 in [0, 1]; their dtype and device become the prior's.
            covariance: "full"; "diagonal", for independent pixels; "stationary", for a mean that is one colour and a
                circulant covariance along the principal axes of colour, which knows textures but not positions.

        Raises:
            ValueError: there is no such form, there are no images, they have another shape or are out of range, or
                `covariance` is "full" and they have over 4096 values.
        """
        check_means("images", "(N, C, H, W)", images, ndim=4)
        if not 0 <= float(images.min()) <= float(images.max()) <= 1:
            raise ValueError(
                f"images have values from {float(images.min()):.3g} to {float(images.max()):.3g}: give 8-bit images "
                "k / 255, in [0, 1]"
            )
        mean, fitted = fit_moments(images.detach(), covariance)
        return cls(mean.to(images.dtype), fitted)

    @classmethod
    def blank(cls, image_shape: Shape, covariance: str) -> Gaussian:
        """Build N(0, I) with a covariance of that form, from the arguments in `config`, to read stored weights into.

        Raises:
            ValueError: the shape or the form is invalid.
        """
        check_arguments(locals(), image_shape=SHAPE)
        return cls(torch.zeros(*image_shape), find_form(covariance).identity(tuple(image_shape)))

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
    def weights(self) -> Tensor:
        return self.mean.new_ones(1)

    @property
    def means(self) -> Tensor:
        return self.mean[None]

    @torch.no_grad()
    def draw(self, noise: Noise) -> Tensor:
        return self.decode(noise(self.mean.expand(len(noise.image), *self.image_shape)))

    def log_prob(self, x: Tensor) -> Tensor:
        self.covariance.check_invertible()
        r = wide(checked(self, x)) - self.mean
        whitened = self.covariance.filter(r, wide(self.covariance.eigenvalues).rsqrt())
        return (self.covariance.log_normaliser() - whitened.square().sum((1, 2, 3)) / 2).to(x.dtype)

    def score(self, x: Tensor) -> Tensor:
        self.covariance.check_invertible()
        r = checked(self, x) - self.mean
        return -self.covariance.filter(r, 1 / self.covariance.eigenvalues).to(x.dtype)

    def denoise(self, x_t: Tensor, sigma: float | Tensor) -> Tensor:
        r = checked(self, x_t) - self.mean
        gain = wiener(self.covariance.eigenvalues, as_level(sigma, r))
        return (self.mean + self.covariance.filter(r, gain)).to(x_t.dtype)

    def decode(self, z: Tensor) -> Tensor:
        return (self.mean + self.covariance.filter(checked(self, z), self.covariance.eigenvalues.sqrt())).to(z.dtype)

    def encode(self, x: Tensor) -> Tensor:
        l = self.covariance.eigenvalues
        return self.covariance.filter(checked(self, x) - self.mean, torch.where(l > 0, l.rsqrt(), 0)).to(x.dtype)

    def posterior_covariance(self, sigma: float) -> Covariance:
        """Cov[x | x_t], the same for every x_t."""
        return given_noisy(self.covariance, sigma)
