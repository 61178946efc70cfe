"""The noise level of a measurement, estimated from the measurement alone."""

import torch
import torch.nn.functional as F
from torch import Tensor

# Second differences across both axes: natural images leave little in them, white noise all of its own.
LAPLACIAN = torch.tensor([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]]) / 6
HAAR = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]) / 2
FEWEST = 100  # windows without a hole below which an estimate is not worth its name
NORMAL_MAD = 0.6745  # median of |n| for n ~ N(0, 1)


def noise_level(y: Tensor, holes: Tensor | None = None) -> Tensor:
    """Standard deviation of white noise in y, by the median absolute value of its finest details.

        noise = median |d * y| / 0.6745,   d a second-difference filter of unit norm

    over the windows without a hole. Texture is taken for noise, so the estimate is rather high; noise that was blurred
    or compressed away is not seen.

    Arguments:
        y: (B, C, H, W).
        holes: (B or 1, 1 or C, H, W) bool, True where y means nothing; None for no holes.

    Returns:
        (B, 1, 1, 1), in the units of y.

    Raises:
        ValueError: too few windows of known pixels.

    References: J. Immerkær, Fast noise variance estimation, 1996. D. Donoho, I. Johnstone, Ideal spatial adaptation by
    wavelet shrinkage, 1994.
    """
    channels = y.shape[1]
    known = torch.ones_like(y[:1]) if holes is None else (~holes).to(y.dtype).expand(-1, channels, -1, -1)
    known = known.expand(len(y), -1, -1, -1)
    return torch.stack([_one_image(a, b) for a, b in zip(y, known)]).reshape(-1, 1, 1, 1)


def _one_image(y: Tensor, known: Tensor) -> Tensor:
    for kernel in (LAPLACIAN, HAAR):
        if min(y.shape[-2:]) < len(kernel):
            continue
        kernel = kernel.to(y)[None, None]
        whole = F.conv2d(known[:, None], torch.ones_like(kernel)) > kernel.numel() - 0.5
        details = F.conv2d(torch.where(known > 0, y, 0)[:, None], kernel)[whole]
        if len(details) >= FEWEST:
            return details.abs().median() / NORMAL_MAD
    raise ValueError(
        "The noise level cannot be estimated: too few neighbouring pixels are known. Say it, as noise=0.02, the "
        "standard deviation in the units of the image."
    )
