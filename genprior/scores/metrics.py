"""Image quality, per image, on values clipped to [0, 1] and not rounded.

References: Z. Wang et al., Image quality assessment: from error visibility to structural similarity, 2004.
"""

from torch import Tensor


def psnr(x: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB for a peak of 1: (B, C, H, W) or (C, H, W) -> (B,) or ()."""
    _check(x, truth, dimensions=(3, 4))
    error = (x.clamp(0, 1) - truth.clamp(0, 1)).square().mean(dim=(-3, -2, -1))
    return -10 * error.log10()


def ssim(x: Tensor, truth: Tensor) -> float:
    """Structural similarity of one image (C, H, W) with the paper's settings: Gaussian window of width 1.5."""
    from skimage.metrics import structural_similarity

    _check(x, truth, dimensions=(3,))
    if min(x.shape[-2:]) < 11:
        raise ValueError(f"SSIM needs images of at least 11 x 11 pixels, got {tuple(x.shape[-2:])}.")
    return structural_similarity(  # pyright: ignore[reportReturnType]
        x.detach().cpu().clamp(0, 1).double().numpy(),
        truth.detach().cpu().clamp(0, 1).double().numpy(),
        data_range=1.0,
        channel_axis=0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )


def _check(x: Tensor, truth: Tensor, dimensions: tuple[int, ...]) -> None:
    if x.shape != truth.shape:
        raise ValueError(f"Images to compare differ in shape: {tuple(x.shape)} and {tuple(truth.shape)}.")
    if x.ndim not in dimensions:
        wanted = "(C, H, W)" if dimensions == (3,) else "(C, H, W) or (B, C, H, W)"
        raise ValueError(f"Images to compare are {wanted}; got {tuple(x.shape)}.")
