"""The stationary Gaussian field: a Gaussian prior of photographs of any size, with their spectrum and colours.

Notation: c(d) the covariance of two values at distance d along one axis of colour; P its Fourier transform, the
spectral density; N the side of the crops that it was fitted to.
"""

import math

import torch
from torch import Tensor

from genprior.ambient import own
from genprior.checks import OpenShape
from genprior.linalg import total
from genprior.priors.base import Prior, shape_of_draws
from genprior.priors.gaussian.covariance import Stationary, reflected
from genprior.priors.gaussian.fit import DEQUANTISATION, chunks, spectrum_along_axes
from genprior.priors.gaussian.gaussian import Gaussian


class GaussianField(Prior):
    """Photographs of any size as a stationary Gaussian field: one mean colour, independent fields along axes of colour.

    For one size (see `sized`) it is a `Gaussian` whose circulant covariance is the nearest, in the Frobenius norm, to
    that of the field (Chan, 1988), along each side H
        c_H(d) = ((H - d) c(d) + d c(H - d)) / H,   0 <= d < H,
    which is never indefinite, and keeps the variance c(0) of a value. FFTs then give everything in closed form.

    Arguments:
        mean: (C, 1, 1), in the units of x; its dtype and device become the prior's.
        density: (C, M, M), P at the frequencies (i, j) / M, zero frequency first: positive and even; c(d) = 0 for
            d >= M / 2.
        axes: (C, C), orthonormal columns.

    References:
        An optimal circulant preconditioner for Toeplitz systems. T. Chan, 1988.
    """

    decoder_variance = 0.0

    mean: Tensor
    density: Tensor
    axes: Tensor

    def __init__(self, mean: Tensor, density: Tensor, axes: Tensor):
        super().__init__()
        self.register_buffer("mean", mean.detach().clone())
        self.register_buffer("density", own(density).to(mean))
        self.register_buffer("axes", own(axes).to(mean))
        self.image_shape = self.latent_shape = (len(mean), None, None)

    @classmethod
    def fit(cls, crops: Tensor) -> "GaussianField":
        """Fit the field to the mean and the windowed spectrum of dequantised crops (see `genprior.bits`).

        P is the mean over crops of |F w (x - m)|^2, with F the Fourier transform of the crop zero-padded to twice its
        side, and w the Hann window, scaled so that its squares sum to the number of frequencies. The window keeps the
        jump from one edge of a crop to the other out of the spectrum; in exchange, c(d) falls to 0 as d nears N.

        Arguments:
            crops: (K, C, N, N), values k / 255 in [0, 1]; their dtype and device become the prior's.

        Raises:
            ValueError: there are no crops, or they have another shape or are out of range.
        """
        side = crops.shape[-1]
        if crops.ndim != 4 or crops.shape[-2] != side or not crops.numel() or not crops.is_floating_point():
            raise ValueError(
                f"crops is a {crops.dtype} tensor of shape {tuple(crops.shape)}: give floats (K, C, N, N)."
            )
        if not 0 <= float(crops.min()) <= float(crops.max()) <= 1:
            raise ValueError("crops have values outside [0, 1] or none that are numbers: give 8-bit images k / 255.")
        parts = chunks(crops.detach())
        mean = total(x.double().sum((0, 2, 3)) for x in parts)[:, None, None] / (len(crops) * side**2)
        hann = torch.hann_window(side + 2, periodic=False, dtype=torch.float64, device=crops.device)[1:-1]
        window = 2 * side * hann.outer(hann) / hann.square().sum()
        density, axes = spectrum_along_axes(parts, mean, window, (2 * side, 2 * side))
        return cls(((255 * mean + 0.5) / 256).to(crops.dtype), density, axes)

    @classmethod
    def blank(cls, image_shape: OpenShape, frequencies: int) -> "GaussianField":
        """Build white noise from the arguments in `config`, to read stored weights into.

        Raises:
            ValueError: the shape or the number of frequencies is invalid.
        """
        channels, *sides = image_shape
        if sides != [None, None] or not isinstance(channels, int) or channels < 1:
            raise ValueError(f"image_shape is {image_shape!r}: give (C, None, None), C a whole number, at least 1.")
        if not isinstance(frequencies, int) or frequencies < 2 or frequencies % 2:
            raise ValueError(f"frequencies is {frequencies!r}: give an even number, at least 2.")
        return cls(torch.zeros(channels, 1, 1), torch.ones(channels, frequencies, frequencies), torch.eye(channels))

    @property
    def config(self) -> dict:
        """The arguments of `blank` for a prior of this shape."""
        return {"image_shape": list(self.image_shape), "frequencies": self.density.shape[-1]}

    @property
    def centre(self) -> Tensor:
        return self.mean

    @property
    def spread(self) -> float:
        return math.sqrt(float(self.density.mean()))

    def sized(self, height: int, width: int) -> Gaussian:
        c = torch.fft.ifft2(self.density.double()).real
        circulant = _wrapping(height, c) @ c @ _wrapping(width, c).T
        spectrum = torch.fft.fft2(circulant).real
        spectrum = ((spectrum + reflected(spectrum)) / 2).clamp_min(DEQUANTISATION)
        mean = self.mean.expand(-1, height, width)
        return Gaussian(mean, Stationary(spectrum, self.axes.double()))

    def sample(self, n: int, *, seed: int = 0, size: tuple[int, int] | None = None) -> Tensor:
        """n draws from p(x), (n, C, H, W).

        Raises:
            ValueError: size=(H, W) is missing.
        """
        return self.sized(*shape_of_draws(self.image_shape, size)[1:]).sample(n, seed=seed)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.sized(*x.shape[-2:]).log_prob(x)

    def score(self, x: Tensor) -> Tensor:
        return self.sized(*x.shape[-2:]).score(x)

    def denoise(self, x_t: Tensor, sigma: float | Tensor) -> Tensor:
        return self.sized(*x_t.shape[-2:]).denoise(x_t, sigma)

    def decode(self, z: Tensor) -> Tensor:
        return self.sized(*z.shape[-2:]).decode(z)

    def encode(self, x: Tensor) -> Tensor:
        return self.sized(*x.shape[-2:]).encode(x)


def _wrapping(side: int, c: Tensor) -> Tensor:
    """The matrix (side, M) that maps c along one axis to its circulant c_H: it adds lag d to entry d mod H."""
    M = c.shape[-1]
    lags = (torch.arange(M, device=c.device) + M // 2) % M - M // 2
    wrapping = torch.zeros(side, M, dtype=c.dtype, device=c.device)
    wrapping[lags % side, torch.arange(M, device=c.device)] = (1 - lags.abs().to(c) / side).clamp_min(0)
    return wrapping
