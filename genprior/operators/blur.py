"""Blurs: y = k * x, a true convolution with a kernel of up to 61 x 61 pixels, and the kernels of common blurs.

Notation: k a kernel (kh, kw); k^ its transfer function on a grid; C crops the grid to the frame of y, C^T embeds y in a
grid of zeros. With either boundary A = C k^ and A A^T = C |k^|^2 C^T; each product takes one real FFT and its inverse.
A kernel is separable if k = k_h k_w^T, as for a Gaussian or for motion along an axis.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import cached_property, lru_cache, partial

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from genprior.ambient import settled
from genprior.checks import Shape, as_integer, as_number, as_shape, as_tensor
from genprior.linalg import cg, reciprocal, rounding
from genprior.operators.constant import Constant
from genprior.operators.linear import SVD, Completion, LinearOperator
from genprior.operators.separable import Separable

BOUNDARIES = ("valid", "circular")
LARGEST = 61
WIDEST = 10
# From this many pixels on, the channels of images are filtered one at a time.
LARGE = 2**20
# Relative rounding of kernels in float32.
ROUNDING = 1e-6


class Blur(LinearOperator):
    """y[p] = sum_j k[j] x[p - j + kh // 2]; the scene continues past the frame ("valid") or is periodic ("circular").

    It is a convolution, like `kornia.filters.filter2d(x, k, behaviour="conv")`: the image of a bright point is the
    kernel. All channels share one kernel. It need not sum to one, but a kernel of integers, such as a picture of a
    kernel, is divided by its sum.

    "valid": for y of (C, H, W), x is (C, H + kh - 1, W + kw - 1): nothing is assumed about the scene past the frame,
    and that part of x is unknown too. `frame` crops x to the H x W aligned with y. If all kernels are separable,
    `solve`, `prox` and `svd` have closed forms; if not, `solve` and `prox` run conjugate gradients preconditioned by
    C (|k^|^2 + c)^-1 C^T. `pinv` is ill-posed; stopping after `iterations` regularises it.
    "circular": x and y are (C, H, W); `solve`, `prox`, `pinv` and `svd` have closed forms, which leave out frequencies
    where |k^|^2 + c is at most (8 eps max |k^|)^2, with the eps of the dtype of x.

    Arguments:
        kernel: (kh, kw) or (1, kh, kw), shared, or (B, kh, kw), one per image; sides 1 to 61, odd or even.
        image_shape: (C, H, W) of x; for "valid", the larger one.
        boundary: "valid" or "circular".
        iterations: of the conjugate gradients. Measured at 128 x 128 with Gaussian and motion kernels up to 61: 30
            bring `solve` to a relative error below 1e-4 for c >= 1e-3, to 1e-2 for c = 1e-4 (50: 1e-3). Above c = |A|^2
            / 400 fewer suffice, in proportion to c^(-1/3), and no more are run if c is a float.

    Raises:
        ValueError: the kernel is empty, too large, not finite or zero, larger than the image, or holds integers whose
            sum is not above 0.

    References:
        Conjugate gradient methods for Toeplitz systems (Chan and Ng, 1996), for the preconditioner.
    """

    def __init__(self, kernel: Tensor | np.ndarray, image_shape: Shape, boundary: str = "valid", iterations: int = 30):
        if boundary not in BOUNDARIES:
            raise ValueError(f'boundary is "valid" or "circular"; got {boundary!r}.')
        self.kernel = _as_kernel(kernel)
        self.image_shape = as_shape(image_shape)
        self.boundary = boundary
        self.iterations = iterations
        self.batch, kh, kw = self.kernel.shape
        C, H, W = self.image_shape
        if kh > H or kw > W:
            raise ValueError(
                f"The kernel, {kh} x {kw}, is larger than the image, {H} x {W}; give a smaller kernel or a larger "
                'image, or to restore, boundary="valid", which takes any.'
            )
        if boundary == "circular":
            self.measurement_shape = self.image_shape
            self._grid = (H, W)
            self._corner = (0, 0)
        else:
            self.measurement_shape = (C, H - kh + 1, W - kw + 1)
            # zeros past x never reach the frame, so the grid can have a size that suits FFTs
            self._grid = (_fast_length(H), _fast_length(W))
            self._corner = ((kh - 1) // 2, (kw - 1) // 2)
        self._gain = float(self.kernel.abs().sum((1, 2)).max()) ** 2  # no less than |A|^2
        self._transfer = Constant(self._make_transfer)
        self._polar = Constant(self._make_polar)

    @cached_property
    def _separable(self) -> Separable | None:
        """The same "valid" blur along columns and rows; None if it is circular or not separable."""
        if self.boundary == "circular" or (lines := _lines(self.kernel)) is None:
            return None

        return Separable(
            partial(_maps, lines, self.image_shape[1:]), self.image_shape, self.measurement_shape, self.batch
        )

    @classmethod
    def for_measurement(cls, kernel: Tensor, measurement_shape: Shape, boundary: str = "valid", **options) -> Blur:
        """The blur whose measurements have the given (C, H, W); arguments as for the class."""
        C, H, W = as_shape(measurement_shape)
        kernel = _as_kernel(kernel)
        _, kh, kw = kernel.shape
        margin = (0, 0) if boundary == "circular" else (kh - 1, kw - 1)
        return cls(kernel, (C, H + margin[0], W + margin[1]), boundary, **options)

    def frame(self, x: Tensor) -> Tensor:
        (top, left), (_, H, W) = self._corner, self.measurement_shape
        return x[..., top : top + H, left : left + W]

    def _forward(self, x: Tensor) -> Tensor:
        transfer, _, _ = self._transfer.like(x)
        return _by_planes(lambda x: self.frame(self._filter(transfer, x)), x)

    def _adjoint(self, y: Tensor) -> Tensor:
        transfer, _, _ = self._transfer.like(y)
        _, H, W = self.image_shape
        return _by_planes(lambda y: self._filter(transfer.conj(), self._embed(y))[..., :H, :W], y)

    def _pinv(self, y: Tensor) -> Tensor:
        if self.boundary == "valid":
            return super()._pinv(y)
        transfer, power, most = self._transfer.like(y)
        return self._filter(transfer.conj() * reciprocal(power, rounding(y.dtype) ** 2 * most), y)

    def _solve(self, v: Tensor, c: float | Tensor) -> Tensor:
        if self._separable:
            return self._separable._solve(v, c)
        _, power, most = self._transfer.like(v)
        shifted = power + c
        inverse = reciprocal(shifted, rounding(v.dtype) ** 2 * most)
        if self.boundary == "circular":
            return self._filter(inverse, v)

        def framed(gain: Tensor) -> Callable[[Tensor], Tensor]:
            return partial(_by_planes, lambda u: self.frame(self._filter(gain, self._embed(u))))

        # C C^T = I, so that C (|k^|^2 + c) C^T = A A^T + c I
        return cg(framed(shifted), v, iterations=self._enough(c), preconditioner=framed(inverse))

    def _enough(self, c: float | Tensor) -> int:
        # reading the values of a tensor would wait for the device
        if isinstance(c, Tensor) or 400 * c <= self._gain:
            return self.iterations
        return math.ceil(self.iterations * (self._gain / (400 * c)) ** (1 / 3))

    def _prox(self, z: Tensor, y: Tensor, c: float | Tensor) -> Tensor:
        if self._separable:
            return z + self._separable.wiener(y - self._forward(z), c)
        if self.boundary == "valid":
            return super()._prox(z, y, c)
        transfer, power, most = self._transfer.like(z)
        residual = torch.fft.rfft2(y) - transfer * torch.fft.rfft2(z)
        gain = transfer.conj() * reciprocal(power + c, rounding(z.dtype) ** 2 * most)
        return z + torch.fft.irfft2(gain * residual, s=self._grid)

    def completion(self) -> Completion | None:
        if self.boundary == "circular":
            return None
        (top, left), (_, H, W), (_, height, width) = self._corner, self.measurement_shape, self.image_shape
        margins = (left, width - left - W, top, height - top - H)
        missing = torch.nn.functional.pad(torch.zeros(1, 1, H, W, dtype=torch.bool), margins, value=True)
        embed = partial(torch.nn.functional.pad, pad=margins)
        return Completion(Blur(self.kernel, self.image_shape, "circular"), missing, embed)

    def svd(self) -> SVD:
        """For "circular", V is the Hartley transform, s = |k^|, U the Hartley transform, then the phase of k^."""
        if self._separable:
            return self._separable.svd()
        if self.boundary == "valid":
            return super().svd()

        def U(s):
            _, phase = self._polar.like(s)
            return self._filter(phase, hartley(s))

        def Ut(y):
            _, phase = self._polar.like(y)
            return hartley(self._filter(phase.conj(), y))

        modulus, _ = self._polar.value
        return SVD(modulus, hartley, hartley, U, Ut)

    def _select(self, index: Tensor) -> Blur:
        kernel = self.kernel[index.to(self.kernel.device)]
        return Blur(kernel, self.image_shape, self.boundary, self.iterations)

    def _make_transfer(self) -> tuple[Tensor, Tensor, Tensor]:
        transfer = torch.fft.rfft2(_placed(self.kernel, self._grid))
        power = transfer.abs() ** 2
        return transfer, power, power.amax(dim=(-2, -1), keepdim=True)

    def _make_polar(self) -> tuple[Tensor, Tensor]:
        transfer = _hermitian_fft2(self.kernel, self._grid)
        modulus = transfer.abs()
        # a lost frequency has no phase; any will do, and 1 keeps U real
        present = modulus > rounding(modulus.dtype) * modulus.amax(dim=(-2, -1), keepdim=True)
        phase = torch.where(present, transfer / torch.where(present, modulus, 1), 1)
        return torch.where(present, modulus, 0), phase[..., : self._grid[1] // 2 + 1]

    def _filter(self, transfer: Tensor, x: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x, s=self._grid).mul_(transfer), s=self._grid)

    def _embed(self, y: Tensor) -> Tensor:
        if self.boundary == "circular":
            return y
        (top, left), (_, H, W) = self._corner, self.measurement_shape
        bottom, right = self._grid[0] - top - H, self._grid[1] - left - W
        return torch.nn.functional.pad(y, (left, right, top, bottom))


@settled
def gaussian_kernel(width: float, size: int | None = None) -> Tensor:
    """k[i, j] ~ exp(-(i^2 + j^2) / (2 width^2)), sum 1: Kornia's Gaussian kernel.

    Arguments:
        width: standard deviation in pixels; 0 means no blur.
        size: side of the kernel in pixels, at most 61; None means 3 widths on each side, 2 ceil(3 width) + 1.

    Returns:
        (size, size), float64.

    Raises:
        ValueError: a negative width, or a side of more than 61 pixels.
    """
    width = as_number("width, the standard deviation in pixels,", width, 0, math.inf)
    if size is None and width > WIDEST:
        raise ValueError(
            f"A Gaussian of width {width:g} is cut at 3 widths, beyond the largest kernel, {LARGEST} x {LARGEST}; "
            f"take a width of at most {WIDEST}, or give a size."
        )
    size = 2 * math.ceil(3 * width) + 1 if size is None else as_integer("size", size, 1, LARGEST)
    if width == 0:
        return _delta(size)
    from kornia.filters import get_gaussian_kernel2d

    return get_gaussian_kernel2d((size, size), (width, width), force_even=size % 2 == 0, dtype=torch.float64)[0]


@settled
def motion_kernel(length: float, angle: float) -> Tensor:
    """A straight uniform line of `length` pixels at `angle`, sum 1: Kornia's motion kernels, rotated bilinearly.

    Those have a centre pixel, hence odd lengths n. Between n and n + 2 the kernel is a mixture of the two,
        (1 - t) k_n + t k_(n+2),   t = (n + 2) (length - n) / (2 length),
    which along an axis is the line itself, each end pixel weighted by the share of it that the line covers.

    The rotation is bilinear because copying the nearest pixel loses taps and turns the line: of 7 pixels at 30 degrees
    it keeps 5, which lie at 31.7 degrees; bilinear weights lie at 30.2 degrees and keep the length.

    Arguments:
        length: in pixels, 1 to 61. 1 means no blur.
        angle: in degrees, counter-clockwise from the horizontal axis.

    Returns:
        (n, n), float64, n the smallest odd number >= length.

    Raises:
        ValueError: the length is not a number or out of range, or the angle is not finite.
    """
    length = as_number("length, in pixels,", length, 1, LARGEST)
    angle = as_number("angle, in degrees,", angle, -math.inf, math.inf)
    n = 2 * math.floor((length - 1) / 2) + 1
    if length == n:
        return _odd_motion(n, angle).clone()
    t = (n + 2) * (length - n) / (2 * length)
    shorter = torch.nn.functional.pad(_odd_motion(n, angle), (1, 1, 1, 1))
    return (1 - t) * shorter + t * _odd_motion(n + 2, angle)


@lru_cache(2048)  # `identify` asks for hundreds of motions, at recurring angles and odd lengths
def _odd_motion(length: int, angle: float) -> Tensor:
    if length == 1:
        return _delta(1)
    from kornia.filters import get_motion_kernel2d

    angles = torch.tensor([angle], dtype=torch.float64)
    return get_motion_kernel2d(length, angles, torch.zeros_like(angles), mode="bilinear")[0]


def hartley(x: Tensor) -> Tensor:
    """The orthonormal 2-D Hartley transform, (Re F - Im F) x / sqrt(H W): real, symmetric, its own inverse.

    References:
        A more symmetrical Fourier analysis applied to transmission problems (Hartley, 1942).
    """
    F = torch.fft.fft2(x, norm="ortho")
    return F.real - F.imag


def _delta(size: int) -> Tensor:
    kernel = torch.zeros(size, size, dtype=torch.float64)
    kernel[size // 2, size // 2] = 1
    return kernel


def weights(kernel: Tensor | np.ndarray) -> Tensor:
    """Convert a kernel, (..., kh, kw), to floats; integers, whose unit is unknown, are divided by their sum.

    Raises:
        ValueError: it is neither a tensor nor an array, or holds integers whose sum is not above 0.
    """
    kernel = as_tensor("A kernel", kernel)
    if kernel.is_floating_point() or kernel.is_complex() or kernel.ndim < 2:
        return kernel
    sums = kernel.double().sum((-2, -1), keepdim=True)
    if not (sums > 0).all():
        raise ValueError("A kernel of integers is divided by its sum, which is not above 0: give it as floats.")
    if (sums != 1).any():
        warnings.warn(
            f"The kernel holds integers, of sum {float(sums.max()):g}, and is divided by it. Give floats to have it "
            "taken as it is.",
            stacklevel=2,
        )
    return kernel / sums


def _as_kernel(kernel: Tensor | np.ndarray) -> Tensor:
    """Check a kernel and return it as (B or 1, kh, kw)."""
    kernel = weights(kernel)
    kernel = kernel if kernel.ndim == 3 else kernel[None]
    if kernel.ndim != 3 or not kernel.numel() or max(kernel.shape[1:]) > LARGEST:
        raise ValueError(
            f"A kernel is (kh, kw) or (B, kh, kw) with sides of 1 to {LARGEST} pixels; got {tuple(kernel.shape)}."
        )
    if kernel.is_complex() or not torch.isfinite(kernel).all() or not (kernel != 0).any(dim=(1, 2)).all():
        raise ValueError("A kernel is real, finite and not zero everywhere; this one is not.")
    return kernel


def _lines(kernels: Tensor) -> tuple[Tensor, Tensor] | None:
    """Lines k_h (B, kh) and k_w (B, kw), float64, with k = k_h k_w^T to float32 rounding; None if there are none."""
    U, s, Vt = torch.linalg.svd(kernels.double(), full_matrices=False)
    if (s[:, 1:] > ROUNDING * s[:, :1]).any():
        return None
    return s[:, :1] * U[:, :, 0], Vt[:, 0]


def _maps(lines: tuple[Tensor, Tensor], size: tuple[int, ...]) -> tuple[Tensor, ...]:
    return tuple(_toeplitz(k, n) for k, n in zip(lines, size))


def _toeplitz(lines: Tensor, n: int) -> Tensor:
    """The matrices (1 or B, 1, m, n) of the valid convolution of n values with lines (B, k), m = n - k + 1."""
    unit = torch.eye(n, dtype=lines.dtype, device=lines.device)[:, None]
    return rearrange(torch.nn.functional.conv1d(unit, lines.flip(-1)[:, None]), "n b m -> b 1 m n")


def _by_planes(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """f(x), computed channel by channel for large images, so that the FFTs need less work space."""
    if x[:, 0].numel() < LARGE:
        return f(x)
    plane = f(x[:, :1])
    result = plane.new_empty(len(x), x.shape[1], *plane.shape[2:])
    result[:, :1] = plane
    for channel in range(1, x.shape[1]):
        result[:, channel, None] = f(x[:, channel, None])
    return result


def _placed(kernel: Tensor, grid: tuple[int, int]) -> Tensor:
    """k on the periodic grid, (B, 1, *grid), with its pixel (kh // 2, kw // 2) at the origin; float64."""
    _, kh, kw = kernel.shape
    placed = kernel.new_zeros((len(kernel), 1, *grid), dtype=torch.float64)
    placed[..., :kh, :kw] = kernel[:, None]
    return placed.roll((-(kh // 2), -(kw // 2)), dims=(-2, -1))


def _hermitian_fft2(kernel: Tensor, grid: tuple[int, int]) -> Tensor:
    """k^ on the grid, (B, 1, *grid); k^(-f) = conj k^(f) to the last bit."""
    F = torch.fft.fft2(_placed(kernel, grid))
    mirrored = F.flip(-2, -1).roll((1, 1), dims=(-2, -1))
    return (F + mirrored.conj()) / 2


def _fast_length(n: int) -> int:
    """The smallest length >= n without prime factors above 5."""
    rest = n
    for factor in (2, 3, 5):
        while rest % factor == 0:
            rest //= factor
    return n if rest == 1 else _fast_length(n + 1)
