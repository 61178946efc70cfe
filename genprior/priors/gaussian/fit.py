"""Maximum-likelihood mean and covariance of images.

Notation: C H W the shape of an image; q = 1 / (12 256^2) the variance that dequantisation adds to a value (see
`genprior.bits`).
"""

import torch
from torch import Tensor

from genprior.linalg import total
from genprior.priors.gaussian.covariance import (
    Covariance,
    Dense,
    Diagonal,
    Stationary,
    check_dense,
    find_form,
    reflected,
)

DEQUANTISATION = 1 / 12 / 256**2
AT_ONCE = 2**21  # values to sum over at once, in float64


def fit_moments(images: Tensor, form: str) -> tuple[Tensor, Covariance]:
    """Fit the maximum-likelihood mean and covariance, in the given form, to dequantised images, in float64.

    With x' = (255 x + u) / 256 and u uniform, moments over u are exact, not sampled:
        E x' = (255 E x + 1/2) / 256,   Cov x' = (255 / 256)^2 Cov x + q I,
    so no eigenvalue is below q, however few the images are. There is no other shrinkage.

    Arguments:
        images: (N, C, H, W), values k / 255.
        form: "full"; "diagonal", for independent pixels; "stationary", for a mean that is one colour, and the spectrum
            of the periodically continued images along the principal axes of their colour.

    Raises:
        ValueError: there is no such form, or "full" would be too large a matrix.
    """
    chosen = find_form(form)
    if chosen is Dense:
        check_dense(images[0].numel())
    moments = {Diagonal: _variances, Dense: _principal_axes, Stationary: _spectrum}[chosen]
    parts = chunks(images)
    x_mean = total(x.double().sum(0) for x in parts) / len(images)
    if chosen is Stationary:
        x_mean = x_mean.mean((1, 2), keepdim=True).expand_as(x_mean)
    return (255 * x_mean + 0.5) / 256, chosen(*moments(parts, x_mean))


def _variances(parts: tuple[Tensor, ...], mean: Tensor) -> tuple[Tensor]:
    squares = total((x.double() - mean).square().sum(0) for x in parts) / sum(map(len, parts))
    return (dequantised(squares),)


def _principal_axes(parts: tuple[Tensor, ...], mean: Tensor) -> tuple[Tensor, Tensor]:
    centred = ((x.double() - mean).flatten(1) for x in parts)
    l, V = torch.linalg.eigh(sum(r.T @ r for r in centred) / sum(map(len, parts)))
    return dequantised(l.clamp_min(0)).reshape(mean.shape), V


def _spectrum(parts: tuple[Tensor, ...], mean: Tensor) -> tuple[Tensor, Tensor]:
    return spectrum_along_axes(parts, mean, torch.ones(mean.shape[1:], dtype=torch.float64), mean.shape[1:])


def spectrum_along_axes(
    parts: tuple[Tensor, ...], mean: Tensor, window: Tensor, size: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """E |F w Q^T (x' - E x')|^2, (C, *size), and Q, the principal axes of colour of w (x' - E x').

    F is the orthonormal Fourier transform of images zero-padded to `size`. By Parseval's identity the sum over
    frequencies of Re E F_a conj(F_b) is the covariance of channels a and b, whose eigenvectors are Q; the spectrum
    along an axis is the quadratic form of Re E F_a conj(F_b) in that axis.

    Arguments:
        parts: (B, C, H, W) each, values k / 255.
        mean: E x, broadcasts to (C, H, W).
        window: w, (H, W), whose squares sum to H' W'.
        size: (H', W'), at least (H, W).
    """

    def products(x: Tensor) -> Tensor:
        transform = torch.fft.fft2(window * (x.double() - mean), s=size, norm="ortho")
        return torch.einsum("nahw,nbhw->abhw", transform, transform.conj()).real

    cross = total(map(products, parts)) / sum(map(len, parts))
    _, Q = torch.linalg.eigh(cross.sum((2, 3)))
    spectrum = torch.einsum("ak,abhw,bk->khw", Q, cross, Q).clamp_min(0)
    return dequantised((spectrum + reflected(spectrum)) / 2), Q


def chunks(images: Tensor) -> tuple[Tensor, ...]:
    """Split the images into chunks whose float64 copies take little memory."""
    return images.split(max(1, AT_ONCE // images[0].numel()))


def dequantised(variance: Tensor) -> Tensor:
    """(255 / 256)^2 variance + q: the variance of dequantised values."""
    return (255 / 256) ** 2 * variance + DEQUANTISATION
