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


def total_variation(measurement: Measurement, weight: float, iterations: int = 60) -> Tensor:
    """argmin_x 1/2 |y - A x|^2 + weight TV(x) by FISTA, whose proximal step is scikit-image's, in the measured frame.

    References: A. Beck, M. Teboulle, Fast gradient-based algorithms for constrained total variation image denoising and
    deblurring problems, 2009.
    """
    from skimage.restoration import denoise_tv_chambolle

    A, y = measurement.operator, measurement.y
    step = 1 / squared_norm(A)
    x = z = A.adjoint(y) * step
    t = 1.0
    for _ in range(iterations):
        gradient_step = z - step * A.adjoint(A(z) - y)
        array = denoise_tv_chambolle(
            gradient_step[0].movedim(0, -1).numpy(), weight=step * weight, max_num_iter=20, channel_axis=-1
        )
        x_next = torch.from_numpy(array).to(y).movedim(-1, 0)[None]
        t_next = (1 + (1 + 4 * t**2) ** 0.5) / 2
        z = x_next + (t - 1) / t_next * (x_next - x)
        x, t = x_next, t_next
    return A.frame(x)[0]


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

    weights = [0.002, 0.005, 0.01, 0.02, 0.04]
    results = {"TV": best_of((total_variation(measurement, weight) for weight in weights), truth)}
    if isinstance(measurement.operator, Inpaint):
        results["biharmonic"] = biharmonic(measurement)
    if isinstance(measurement.operator, SuperResolution):
        results["bicubic"] = bicubic(measurement)
    if isinstance(measurement.operator, Blur):
        balances = np.logspace(-4, 1, 11).tolist()
        results["Wiener"] = best_of((wiener(measurement, balance) for balance in balances), truth)
    return results
