"""Covariances of images, given by their eigenvalues and eigenvectors; to fit them to images, see `gaussian.fit`.

Notation: D = C H W; S the covariance, l its eigenvalues, V its eigenvectors.
"""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from genprior.checks import Shape, UnsupportedError
from genprior.linalg import inner, norm, total, wide
from genprior.noise import Noise
from genprior.registry import lookup

LARGEST_DENSE = 4096  # most values of an image for which a D x D matrix is built


class Covariance(nn.Module, ABC):
    """A covariance: its eigenvalues, (C, H, W), and `filter`, the product with matrices that share its eigenvectors.

    Attributes:
        form: its name in `FORMS`.
    """

    form: ClassVar[str]

    eigenvalues: Tensor

    def __init__(self, eigenvalues: Tensor):
        super().__init__()
        self.register_buffer("eigenvalues", eigenvalues)

    @classmethod
    @abstractmethod
    def identity(cls, shape: Shape) -> "Covariance":
        """Build I for images of that shape in this form, to read stored eigenvalues and eigenvectors into."""

    @abstractmethod
    def filter(self, x: Tensor, gain: Tensor) -> Tensor:
        """V diag(gain) V^T x, V the eigenvectors; x and gain are (..., C, H, W) and broadcast."""

    @abstractmethod
    def coefficients(self, x: Tensor) -> Tensor:
        """V^T x, (..., C, H, W) -> (..., c, h, w, 1 or 2): the coordinates of x, an isometry.

        Along the last axis lie eigenvectors of one eigenvalue that come in pairs, such as a wave and the same wave
        shifted by a quarter.
        """

    @abstractmethod
    def image(self, coefficients: Tensor) -> Tensor:
        """V c, the image with those coordinates."""

    def scaled(self, x: Tensor, gain: Tensor) -> Tensor:
        """V diag(gain) V^T x as `filter`, for a gain laid out like `variances`."""
        return self.image(gain * self.coefficients(x))

    @property
    @abstractmethod
    def variances(self) -> Tensor:
        """The eigenvalues, laid out like `coefficients`: (..., c, h, w, 1)."""

    @property
    def multiplicity(self) -> float | Tensor:
        """How many eigenvectors each of `variances` stands for; broadcasts to them."""
        return 1.0

    def with_eigenvalues(self, eigenvalues: Tensor) -> "Covariance":
        """Return the covariance with the same eigenvectors and other eigenvalues, which broadcast to (..., C, H, W)."""
        other = copy.copy(self)  # shares the eigenvectors
        other._buffers = {**self._buffers, "eigenvalues": eigenvalues}
        return other

    def diagonal_like(self, apply: Callable[[Tensor], Tensor], like: Tensor, probes: int = 4) -> tuple[Tensor, Tensor]:
        """Estimate the diagonal of V^T M V for a symmetric M >= 0; and for each image, whether V^T M V is diagonal.

        Where it is, M shares the eigenvectors. Elsewhere the diagonal is replaced by its mean, tr M / D. Both come from
        M z for white noise z. The full diagonal would not help a preconditioner there: where M hardly passes an
        eigenvector, iterations that have not converged would run far along it.

        Arguments:
            apply: M, (B, C, H, W) -> (B, C, H, W).
            like: (B, C, H, W), for the shape, dtype and device.
            probes: number of z.

        Returns:
            The diagonal, laid out like `variances`, and whether it is exact, (B,).
        """
        rows = torch.arange(probes)[:, None].expand(-1, len(like))
        # the same for all images, so that none depends on the others
        z = [Noise(0, torch.zeros_like(row), row)(like) for row in rows]
        c, Mc = [self.coefficients(each) for each in z], [self.coefficients(apply(each)) for each in z]
        products = total((a * b).sum(-1, keepdim=True) for a, b in zip(c, Mc))
        squares = total(a.square().sum(-1, keepdim=True) for a in c)
        diagonal = products / squares
        mean = inner(products, torch.ones_like(products)) / inner(squares, torch.ones_like(squares))
        # decided per image, so that the draws for one depend on no other
        shared = norm(Mc[0] - diagonal * c[0]) < 1e-3 * norm(Mc[0])
        return torch.where(shared, diagonal.clamp_min(0), mean), shared.flatten()

    def between(self, gain: Tensor, pixels: Tensor) -> Tensor:
        """A gain g > 0 with V diag(g) V^T close to V diag(gain) V^T between those pixels, for preconditioning.

        Arguments:
            gain: > 0, laid out like `variances`.
            pixels: 1 for those pixels, 0 for others; broadcasts to (B, C, H, W).
        """
        return gain

    @property
    def singular(self) -> bool:
        """Whether an eigenvalue is 0."""
        return bool((self.eigenvalues == 0).any())

    def log_normaliser(self) -> Tensor:
        """-ln det(2 pi S) / 2, in float64 except on Apple's GPUs."""
        return -(2 * math.pi * wide(self.eigenvalues)).log().sum() / 2

    def check_invertible(self) -> None:
        if self.singular:
            zeros = int((self.eigenvalues == 0).sum())
            raise UnsupportedError(
                f"the covariance has {zeros} zero eigenvalues among {self.eigenvalues.numel()}: p(x) has no density; "
                "use sample and denoise, or add a small variance to the covariance"
            )


class Diagonal(Covariance):
    """Independent pixels: V = I."""

    form = "diagonal"

    @classmethod
    def identity(cls, shape: Shape) -> "Diagonal":
        return cls(torch.ones(shape))

    def filter(self, x: Tensor, gain: Tensor) -> Tensor:
        return gain * x

    def coefficients(self, x: Tensor) -> Tensor:
        return x[..., None]

    def image(self, coefficients: Tensor) -> Tensor:
        return coefficients[..., 0]

    @property
    def variances(self) -> Tensor:
        return self.eigenvalues[..., None]


class Dense(Covariance):
    """V is a matrix, (D, D)."""

    form = "full"

    eigenvectors: Tensor

    def __init__(self, eigenvalues: Tensor, eigenvectors: Tensor):
        super().__init__(eigenvalues)
        self.register_buffer("eigenvectors", eigenvectors)

    @classmethod
    def identity(cls, shape: Shape) -> "Dense":
        check_dense(math.prod(shape))
        return cls(torch.ones(shape), torch.eye(math.prod(shape)))

    def filter(self, x: Tensor, gain: Tensor) -> Tensor:
        V = self.eigenvectors.to(x.dtype)
        coefficients = (x.flatten(-3) @ V) * gain.flatten(-3)
        return (coefficients @ V.T).unflatten(-1, x.shape[-3:])

    def coefficients(self, x: Tensor) -> Tensor:
        return (x.flatten(-3) @ self.eigenvectors.to(x.dtype)).unflatten(-1, x.shape[-3:])[..., None]

    def image(self, coefficients: Tensor) -> Tensor:
        V, c = self.eigenvectors.to(coefficients.dtype), coefficients[..., 0]
        return (c.flatten(-3) @ V.T).unflatten(-1, c.shape[-3:])

    @property
    def variances(self) -> Tensor:
        return self.eigenvalues[..., None]


class Stationary(Covariance):
    """V is the real 2-D Fourier basis of each of the fields Q^T x, with the axes of colour as the columns of Q."""

    form = "stationary"

    axes: Tensor

    def __init__(self, eigenvalues: Tensor, axes: Tensor):
        super().__init__(eigenvalues)
        self.register_buffer("axes", axes)

    @classmethod
    def identity(cls, shape: Shape) -> "Stationary":
        return cls(torch.ones(shape), torch.eye(shape[0]))

    def filter(self, x: Tensor, gain: Tensor) -> Tensor:
        # Gains are even functions of frequency, like the eigenvalues, so half of them suffice for a real image.
        return self.scaled(x, gain[..., : gain.shape[-1] // 2 + 1, None])

    def coefficients(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(turned(self.axes.to(x.dtype).T, x), norm="ortho")
        return torch.view_as_real(spectrum).mul_(self._weights(spectrum))

    def image(self, coefficients: Tensor) -> Tensor:
        spectrum = torch.view_as_complex(coefficients * (1 / self._weights(coefficients)))
        return turned(self.axes.to(coefficients.dtype), torch.fft.irfft2(spectrum, s=self._size, norm="ortho"))

    def scaled(self, x: Tensor, gain: Tensor) -> Tensor:
        # without the weights that make coordinates an isometry
        Q = self.axes.to(x.dtype)
        spectrum = gain[..., 0] * torch.fft.rfft2(turned(Q.T, x))
        return turned(Q, torch.fft.irfft2(spectrum, s=x.shape[-2:]))

    def between(self, gain: Tensor, pixels: Tensor) -> Tensor:
        """The circulant matrix nearest to the part of V diag(gain) V^T between the pixels (T. Chan, 1988).

        Each lag is weighted by the share of pixels that have another pixel at that lag, which smooths gain by the power
        spectrum of the pixels.
        """
        spectrum = torch.fft.rfft2(pixels.to(gain)).abs().square().sum(1, keepdim=True)
        pairs = torch.fft.irfft2(spectrum, s=self._size)
        # without pixels there are no pairs, and every share is 0
        share = pairs / pairs[..., :1, :1].clamp_min(0.5)
        lags = torch.fft.irfft2(gain[..., 0], s=self._size)
        smoothed = torch.fft.rfft2(share * lags).real[..., None]
        return smoothed.maximum(gain.amin((-4, -3, -2, -1), keepdim=True))

    @property
    def variances(self) -> Tensor:
        return self.eigenvalues[..., : self._size[1] // 2 + 1, None]

    @property
    def multiplicity(self) -> Tensor:
        return self._weights(self.eigenvalues)[:, :1].square()

    @property
    def _size(self) -> tuple[int, int]:
        H, W = self.eigenvalues.shape[-2:]
        return H, W

    def _weights(self, like: Tensor) -> Tensor:
        """Weights (w, 2) of the columns of a half spectrum: sqrt(2) where a left-out column mirrors one, else 1."""
        _, W = self._size
        column = torch.arange(W // 2 + 1)
        weights = torch.where((column > 0) & (2 * column < W), math.sqrt(2), 1.0)
        return weights[:, None].repeat(1, 2).to(like.real)  # contiguous copies make products several times faster


FORMS: dict[str, type[Covariance]] = {form.form: form for form in (Diagonal, Dense, Stationary)}


def find_form(form: str) -> type[Covariance]:
    """Return the class of covariances of that name.

    Raises:
        ValueError: there is no such class.
    """
    return lookup("form of covariance", form, FORMS)


def turned(Q: Tensor, x: Tensor) -> Tensor:
    """Apply Q, (C, C), to the colour of every pixel of x, (..., C, H, W)."""
    return (Q @ x.flatten(-2)).unflatten(-1, x.shape[-2:])


def reflected(spectrum: Tensor) -> Tensor:
    """spectrum[..., -i mod H, -j mod W]: the spectrum itself if it is that of a real covariance."""
    return spectrum.flip(-2, -1).roll((1, 1), (-2, -1))


def check_dense(values: int) -> None:
    """Refuse to build a matrix for images of more than `LARGEST_DENSE` values.

    Raises:
        ValueError: they have more values.
    """
    if values > LARGEST_DENSE:
        raise ValueError(
            f'A covariance of {values} values is a {values} x {values} matrix, and "full" stops at {LARGEST_DENSE}: '
            'give smaller images, or the form "stationary" or "diagonal".'
        )


# ---- covariances from tensors ----


def as_covariance(covariance: Tensor | Covariance, mean: Tensor) -> Covariance:
    """Convert a tensor to a `Covariance`, decomposed in float64, then cast to the dtype of the mean.

    Arguments:
        covariance: (D, D), or (C, H, W) variances of independent pixels, or already a `Covariance`.
        mean: (C, H, W).

    Raises:
        ValueError: the shape is wrong, a value is not finite, or the matrix is not symmetric or not semi-definite.
    """
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
    given = (given + given.T) / 2
    l, V = torch.linalg.eigh(given)
    l = _semidefinite("covariance", l, tolerance)
    if not _is_regular(given, covariance.dtype):
        l = torch.where(l > tolerance, l, 0)
    return Dense(l.reshape(mean.shape), V).to(mean.dtype)


def as_spectrum(spectrum: Tensor, mean: Tensor) -> Tensor:
    """Return a spectrum of the shape of the mean, (C, H, W), in float64, made exactly even and at least 0.

    Raises:
        ValueError: the shape is wrong, a value is not finite, or it is negative or not even by more than rounding.
    """
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


def _is_regular(S: Tensor, dtype: torch.dtype) -> bool:
    """Whether no rounding in that dtype makes S singular, however far apart its variances are.

    Rounding is relative to each entry, so the correlations, with variances 1, decide: they are regular if they still
    have a Cholesky factor after subtracting the rounding of all entries.
    """
    variances = S.diagonal()
    if not bool((variances > 0).all()):
        return False
    C = S / (variances[:, None] * variances).sqrt()
    eye = torch.eye(len(C), dtype=C.dtype, device=C.device)
    # the variances must also exceed what eigenvalues of S lose in float64
    apart = float(variances.min() / variances.max()) > 10 * len(C) * torch.finfo(torch.float64).eps
    rounding = _rounding(C.to(dtype) if dtype.is_floating_point else C)
    return apart and not int(torch.linalg.cholesky_ex(C - rounding * eye).info)


def _rounding(given: Tensor) -> float:
    """How far rounding may move an eigenvalue: eps |S|_F from storing S (Weyl), times 10 for computing it."""
    eps = torch.finfo(given.dtype if given.is_floating_point() else torch.float64).eps
    return 10 * eps * float(torch.linalg.vector_norm(given.detach().double()))
