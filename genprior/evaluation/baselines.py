"""Classical restorations, to be compared with: each from a measurement of one image to an image.

None has a learnt prior. Where one has a parameter, `best_of` tunes it on the truth, which no user has.
"""

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genprior.evaluation.metrics import psnr
from genprior.linalg import norm
from genprior.noise import Noise
from genprior.operators.base import LinearOperator, Measurement
from genprior.operators.blur import Blur


def biharmonic(measurement: Measurement) -> Tensor:
    """Holes filled by the solution of the biharmonic equation (scikit-image), (C, H, W); known pixels stay noisy."""
    from skimage.restoration import inpaint_biharmonic

    y = measurement.y[0].double()
    holes = measurement.operator.mask[0].expand_as(y)
    x = np.stack([inpaint_biharmonic(channel.numpy(), hole.numpy()) for channel, hole in zip(y, holes)])
    return torch.from_numpy(x).float()


def bicubic(measurement: Measurement) -> Tensor:
    """The small image enlarged by bicubic interpolation, as Pillow and MATLAB do, (C, H, W)."""
    size = measurement.operator.image_shape[1:]
    # antialias does nothing to an enlargement but choose their kernel, a = -1/2, where torch's own has a = -3/4
    return F.interpolate(measurement.y, size=size, mode="bicubic", antialias=True)[0]


def wiener(measurement: Measurement, balance: float) -> Tensor:
    """Wiener-Hunt deconvolution (scikit-image) of the measured frame, mirrored at its border, (C, H, W)."""
    from skimage.restoration import wiener as deconvolve

    operator = measurement.operator
    kernel = operator.kernel[0].double().numpy()
    pad = [(0, 0), *((side, side) for side in kernel.shape)]
    y = np.pad(measurement.y[0].double().numpy(), pad, mode="symmetric")
    x = np.stack([deconvolve(channel, kernel, balance, clip=False) for channel in y])
    return torch.from_numpy(x[(slice(None), *(slice(side, -side) for side in kernel.shape))]).float()


def total_variation(measurement: Measurement, weight: float, iterations: int = 400) -> Tensor:
    """argmin_x 1/2 |y - A x|^2 + weight TV(x), TV isotropic and over all channels at once, in the measured frame.

    With D the forward differences, p their dual, and steps tau = 1 / (|A|^2 / 2 + 8 sigma), sigma = 5 weight:
        x <- x - tau (A^T (A x - y) + D^T p)
        p <- the nearest of norm at most `weight` to p + sigma D (2 x_new - x_old)

    References: L. Rudin, S. Osher, E. Fatemi, Nonlinear total variation based noise removal algorithms, 1992.
    L. Condat, A primal-dual splitting method for convex optimization involving Lipschitzian, proximable and linear
    composite terms, 2013.
    """
    A, y = measurement.operator, measurement.y
    sigma = 5 * weight
    tau = 1 / (squared_norm(A) / 2 + 8 * sigma)
    x = y.new_full((1, *A.image_shape), float(y.mean()))
    p = torch.zeros_like(differences(x))
    for _ in range(iterations):
        x_next = x - tau * (A.adjoint(A(x) - y) + differences_adjoint(p))
        p = p + sigma * differences(2 * x_next - x)
        p = p / (p.square().sum((0, 2), keepdim=True).sqrt() / weight).clamp_min(1)
        x = x_next
    return A.frame(x)[0]


def differences(x: Tensor) -> Tensor:
    """D x: forward differences along rows and columns, 0 past the last, (2, B, C, H, W)."""
    return torch.stack([F.pad(x.diff(dim=-2), (0, 0, 0, 1)), F.pad(x.diff(dim=-1), (0, 1))])


def differences_adjoint(p: Tensor) -> Tensor:
    """D^T p, (B, C, H, W)."""
    down, right = p[0, ..., :-1, :], p[1, ..., :-1]
    return -F.pad(down, (0, 0, 0, 1)) + F.pad(down, (0, 0, 1, 0)) - F.pad(right, (0, 1)) + F.pad(right, (1, 0))


def squared_norm(A: LinearOperator, iterations: int = 30) -> float:
    """The largest eigenvalue of A^T A, by power iterations and rounded up by 2 %."""
    x = Noise(0, [0])(torch.empty(1, *A.image_shape))
    for _ in range(iterations):
        x = A.adjoint(A(x / norm(x)))
    return 1.02 * float(norm(x))


def best_of(restorations: Iterable[Tensor], truth: Tensor) -> Tensor:
    """The restoration of the highest PSNR."""
    return max(restorations, key=lambda x: float(psnr(x, truth)))


def classical(measurement: Measurement, truth: Tensor) -> dict[str, Tensor]:
    """Every classical restoration that fits the operator, by name, its parameter tuned on the truth."""
    from genprior.operators.inpaint import Inpaint
    from genprior.operators.superres import SuperResolution

    weights = [0.002, 0.003, 0.004, 0.005, 0.006, 0.008, 0.012, 0.02]
    results = {"TV": best_of((total_variation(measurement, weight) for weight in weights), truth)}
    if isinstance(measurement.operator, Inpaint):
        results["biharmonic"] = biharmonic(measurement)
    if isinstance(measurement.operator, SuperResolution):
        results["bicubic"] = bicubic(measurement)
    if isinstance(measurement.operator, Blur):
        balances = np.logspace(-4, 1, 11).tolist()
        results["Wiener"] = best_of((wiener(measurement, balance) for balance in balances), truth)
    return results
