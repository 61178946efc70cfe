"""Classical restorations for comparison: each maps a measurement of one image to an image.

None has a learnt prior. The known noise sets any parameter beyond the operator (Morozov's discrepancy principle: the
smoothest image whose residual is no larger than the noise); the "oracle" variants are tuned on the truth, which no user
has, and show the best their method could do. The deconvolutions of scikit-image and BM3D are periodic, which is exact
for a "circular" blur; for the "valid" boundary, a smooth transition two kernels long continues the frame from its last
row to its first, and likewise its columns.

References: V. Morozov, On the solution of functional equations by the method of regularization, 1966.
"""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from genprior.benchmark.biharmonic import fill
from genprior.checks import UnsupportedError, optional
from genprior.linalg import norm
from genprior.noise import Noise
from genprior.operators.base import name_of
from genprior.operators.blur import Blur
from genprior.operators.denoise import Denoise
from genprior.operators.inpaint import Inpaint
from genprior.operators.linear import LinearOperator
from genprior.operators.measurement import Measurement
from genprior.operators.superres import SuperResolution
from genprior.scores.metrics import psnr

Kind = TypeVar("Kind", bound=LinearOperator)

# The oracles' candidates: TV weights in multiples of the noise, and Wiener balances.
WEIGHTS = (0.08, 0.12, 0.16, 0.2, 0.24, 0.32, 0.48, 0.8, 1.2)
LEAST_NOISE = 0.0125  # below it weights stop shrinking, since the iterations would not converge
BALANCES = tuple(np.logspace(-4, 1, 11).tolist())


def biharmonic(measurement: Measurement) -> Tensor:
    """Fill holes by the solution of the biharmonic equation, (C, H, W); known pixels stay noisy.

    Raises:
        ValueError: no pixel of a channel is known.
    """
    y = measurement.y[0].double()
    holes = _operator(measurement, Inpaint).mask[0].expand_as(y)
    x = np.stack([fill(channel.numpy(), hole.numpy()) for channel, hole in zip(y, holes)])
    return torch.from_numpy(x).float()


def bicubic(measurement: Measurement) -> Tensor:
    """Enlarge the small image by bicubic interpolation, as Pillow and MATLAB do, (C, H, W)."""
    size = _operator(measurement, SuperResolution).image_shape[1:]
    # for an enlargement, antialias only selects their kernel, a = -1/2, instead of torch's own, a = -3/4
    return F.interpolate(measurement.y, size=size, mode="bicubic", antialias=True)[0]


def decoded(measurement: Measurement) -> Tensor:
    """The measurement itself, decoded, for noisy images and for formats such as JPEG, (C, H, W).

    Raises:
        UnsupportedError: the measurement is not a whole image.
    """
    x = measurement.operator.decoded(measurement.y)
    if x is None:
        raise UnsupportedError(
            f"This method takes JPEG files and noisy images, not the measurements of {name_of(measurement.operator)}."
        )
    return x[0]


def wiener(measurement: Measurement, balance: float) -> Tensor:
    """Wiener-Hunt deconvolution (scikit-image) of the measured frame, (C, H, W)."""
    periodic = _periodic(measurement)
    return _in_frame(_wiener(periodic, balance), measurement)


def wiener_by_noise(measurement: Measurement) -> Tensor:
    """`wiener` with the balance set by the known noise."""
    periodic = _periodic(measurement)

    def too_smooth(x: Tensor) -> bool:
        residual = _in_frame(periodic.y - periodic.operator(x), measurement)
        return float(residual.square().mean()) > float(measurement.sd) ** 2

    x = smoothest(lambda balance: _wiener(periodic, balance), too_smooth, 1e-8, 1e4, halvings=24)
    return _in_frame(x, measurement)


def wiener_unsupervised(measurement: Measurement) -> Tensor:
    """Wiener-Hunt deconvolution that also samples the levels of noise and image, so needs neither (scikit-image).

    References: F. Orieux, J.-F. Giovannelli, T. Rodet, Bayesian estimation of regularization and point spread function
    parameters for Wiener-Hunt deconvolution, 2010.
    """
    from skimage.restoration import unsupervised_wiener

    x = _each_channel(lambda y, k: np.asarray(unsupervised_wiener(y, k, clip=False, rng=0)[0]), _periodic(measurement))
    return _in_frame(x, measurement)


def total_variation(measurement: Measurement, weight: float, iterations: int = 400) -> Tensor:
    """argmin_x 1/2 |y - A x|^2 + weight TV(x), with TV isotropic and joint over channels, in the measured frame.

    With D the forward differences, p their dual, and step sizes tau = 1 / (|A|^2 / 2 + 8 sigma), sigma = 5 weight:
        x <- x - tau (A^T (A x - y) + D^T p)
        p <- p + sigma D (2 x_new - x_old), projected to norm at most `weight`

    References: L. Rudin, S. Osher, E. Fatemi, Nonlinear total variation based noise removal algorithms, 1992.
    L. Condat, A primal-dual splitting method for convex optimization involving Lipschitzian, proximable and linear
    composite terms, 2013.
    """
    return measurement.operator.frame(_total_variation(measurement, weight, iterations))[0]


def total_variation_by_noise(measurement: Measurement) -> Tensor:
    """`total_variation` with the weight set by the known noise."""
    A, y, noise = measurement.operator, measurement.y, float(measurement.sd)
    seen = A(torch.ones_like(y)) if isinstance(A, Inpaint) else torch.ones_like(y)

    def too_smooth(x: Tensor) -> bool:
        return float((seen * (y - A(x))).square().sum()) > noise**2 * float(seen.sum())

    low = WEIGHTS[0] * max(noise, LEAST_NOISE)
    x = smoothest(lambda weight: _total_variation(measurement, weight), too_smooth, low, 100 * low, halvings=7)
    return A.frame(x)[0]


def bm3d(measurement: Measurement) -> Tensor:
    """BM3D by its authors' package, for noisy and for blurred images (regularised inverse, then BM3D), (C, H, W).

    Raises:
        UnsupportedError: the package is not installed.

    References: K. Dabov, A. Foi, V. Katkovnik, K. Egiazarian, Image denoising by sparse 3-D transform-domain
    collaborative filtering, 2007. Y. Mäkinen, L. Azzari, A. Foi, Collaborative filtering of correlated noise, 2020.
    """
    advice = "bm3d needs the package of its authors, which is free for non-commercial use only: pip install bm3d."
    package = optional("bm3d", advice)
    noise = float(measurement.sd)
    if isinstance(_operator(measurement, Blur, Denoise), Blur):
        periodic = _periodic(measurement)
        y = rearrange(periodic.y, "1 c h w -> h w c").double().numpy()
        x = package.bm3d_deblurring(y, noise, _odd(_kernel(periodic))).reshape(y.shape)
        return _in_frame(rearrange(torch.from_numpy(x), "h w c -> 1 c h w").float(), measurement)
    y = rearrange(measurement.y, "1 c h w -> h w c").double().numpy()
    x = package.bm3d_rgb(y, noise) if y.shape[-1] == 3 else package.bm3d(y, noise).reshape(y.shape)
    return rearrange(torch.from_numpy(x), "h w c -> c h w").float()


def smoothest(
    restore: Callable[[float], Tensor], too_smooth: Callable[[Tensor], bool], low: float, high: float, halvings: int
) -> Tensor:
    """restore(w) for about the largest w in [low, high] that is not too smooth, by bisection: w adds smoothness."""
    for _ in range(halvings):
        w = (low * high) ** 0.5
        x = restore(w)
        if too_smooth(x):
            high = w
        else:
            low = w
    return x


def best_of(restorations: Iterable[Tensor], truth: Tensor) -> Tensor:
    """The restoration with the highest PSNR."""
    return max(restorations, key=lambda x: float(psnr(x, truth)))


@dataclass(frozen=True)
class Baseline:
    """A classical method, run by `restore(measurement, truth)`; only the oracles use the truth."""

    restore: Callable[[Measurement, Tensor], Tensor]

    def __call__(self, measurement: Measurement, truth: Tensor) -> Tensor:
        """The image, (C, H, W), in the measured frame.

        Raises:
            UnsupportedError: the method does not suit the operator, or a package is missing.
            ArithmeticError: the method failed on this measurement.
        """
        try:
            x = self.restore(measurement, truth)
        except (UnsupportedError, MemoryError):
            raise
        except Exception as error:  # the packages that do the work raise almost anything
            raise ArithmeticError(f"failed: {type(error).__name__}: {error}") from error
        if not torch.isfinite(x).all():
            raise ArithmeticError("failed: its image is not finite")
        return x


def _alone(method: Callable[[Measurement], Tensor]) -> Callable[[Measurement, Tensor], Tensor]:
    return lambda measurement, truth: method(measurement)


def _total_variation_oracle(measurement: Measurement, truth: Tensor) -> Tensor:
    unit = max(float(measurement.sd), LEAST_NOISE)
    return best_of((total_variation(measurement, unit * weight) for weight in WEIGHTS), truth)


def _wiener_oracle(measurement: Measurement, truth: Tensor) -> Tensor:
    return best_of((wiener(measurement, balance) for balance in BALANCES), truth)


BASELINES = {
    "decoded": Baseline(_alone(decoded)),
    "bicubic": Baseline(_alone(bicubic)),
    "biharmonic": Baseline(_alone(biharmonic)),
    "wiener": Baseline(_alone(wiener_by_noise)),
    "wiener-unsupervised": Baseline(_alone(wiener_unsupervised)),
    "wiener-oracle": Baseline(_wiener_oracle),
    "tv": Baseline(_alone(total_variation_by_noise)),
    "tv-oracle": Baseline(_total_variation_oracle),
    "bm3d": Baseline(_alone(bm3d)),
}


def classical(measurement: Measurement, truth: Tensor) -> dict[str, Tensor]:
    """Every classical restoration that suits the operator, by name, with its parameter tuned on the truth.

    Failed restorations are left out, and a warning names each.
    """
    names = {"TV": "tv-oracle", "biharmonic": "biharmonic", "bicubic": "bicubic", "Wiener": "wiener-oracle"}
    found = {}
    for name, key in names.items():
        try:
            found[name] = BASELINES[key](measurement, truth)
        except UnsupportedError:
            continue
        except ArithmeticError as error:
            warnings.warn(f"{name} is left out: it {error}.", stacklevel=2)
    return found


def _operator(measurement: Measurement, *kinds: type[Kind]) -> Kind:
    """Return the operator, which must be one of the kinds that a method inverts.

    Raises:
        UnsupportedError: it is of another kind.
    """
    if not isinstance(measurement.operator, kinds):
        suited = ", ".join(kind.__name__ for kind in kinds)
        raise UnsupportedError(f"suits {suited}, not {type(measurement.operator).__name__}")
    return measurement.operator


def _kernel(measurement: Measurement) -> np.ndarray:
    return _operator(measurement, Blur).kernel[0].double().numpy()


def _wiener(periodic: Measurement, balance: float) -> Tensor:
    from skimage.restoration import wiener as deconvolve

    return _each_channel(lambda y, k: np.asarray(deconvolve(y, k, balance, clip=False)), periodic)


def _each_channel(deconvolve: Callable[[np.ndarray, np.ndarray], np.ndarray], periodic: Measurement) -> Tensor:
    """Apply deconvolve(y, k) to every channel y of a circular blur, (1, C, H, W)."""
    x = np.stack([deconvolve(y, _kernel(periodic)) for y in periodic.y[0].double().numpy()])
    return torch.from_numpy(x)[None].float()


def _periodic(measurement: Measurement) -> Measurement:
    """Return a blur as a circular one: itself, or its frame continued by a smooth transition from end to start."""
    A = _operator(measurement, Blur)
    if A.boundary == "circular":
        return measurement
    y = measurement.y
    for axis, side in zip((-2, -1), A.kernel.shape[1:]):
        share = (1 - torch.cos(torch.pi * torch.arange(1, 2 * side + 1) / (2 * side + 1))) / 2
        share = share.reshape(-1, *[1] * (-1 - axis)).to(y)
        first, last = y.narrow(axis, 0, 1), y.narrow(axis, -1, 1)
        y = torch.cat([y, (1 - share) * last + share * first], axis)
    return Measurement(y, Blur(A.kernel, tuple(y.shape[1:]), "circular"), measurement.sd)


def _in_frame(x: Tensor, measurement: Measurement) -> Tensor:
    """Crop an x of `_periodic(measurement)` to the measured frame, (C, H, W)."""
    _, H, W = measurement.operator.measurement_shape
    return x[0, :, :H, :W]


def _odd(kernel: np.ndarray) -> np.ndarray:
    """Pad the kernel to odd sides, so that its origin, at side // 2, is in the middle."""
    return np.pad(kernel, [(0, 1 - side % 2) for side in kernel.shape])


def _total_variation(measurement: Measurement, weight: float, iterations: int = 400) -> Tensor:
    """The minimiser of `total_variation`, (1, *image_shape)."""
    A, y = measurement.linear, measurement.y
    sigma = 5 * weight
    tau = 1 / (squared_norm(A) / 2 + 8 * sigma)
    x = y.new_full((1, *A.image_shape), float(y.mean()))
    p = torch.zeros_like(differences(x))
    for _ in range(iterations):
        x_next = x - tau * (A.adjoint(A(x) - y) + differences_adjoint(p))
        p = p + sigma * differences(2 * x_next - x)
        p = p / (p.square().sum((0, 2), keepdim=True).sqrt() / weight).clamp_min(1)
        x = x_next
    return x


def differences(x: Tensor) -> Tensor:
    """D x: forward differences along rows and columns, 0 after the last, (2, B, C, H, W)."""
    return torch.stack([F.pad(x.diff(dim=-2), (0, 0, 0, 1)), F.pad(x.diff(dim=-1), (0, 1))])


def differences_adjoint(p: Tensor) -> Tensor:
    """D^T p, (B, C, H, W)."""
    down, right = p[0, ..., :-1, :], p[1, ..., :-1]
    return -F.pad(down, (0, 0, 0, 1)) + F.pad(down, (0, 0, 1, 0)) - F.pad(right, (0, 1)) + F.pad(right, (1, 0))


def squared_norm(A: LinearOperator, iterations: int = 30) -> float:
    """The largest eigenvalue of A^T A, estimated by power iterations and increased by 2 %."""
    x = Noise(0, [0])(torch.empty(1, *A.image_shape))
    for _ in range(iterations):
        x = A.adjoint(A(x / norm(x)))
    return 1.02 * float(norm(x))
