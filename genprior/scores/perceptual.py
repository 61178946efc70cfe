"""LPIPS, a distance in the features of a network that was trained on photographs; an extra of the package.

References: R. Zhang, P. Isola, A. Efros, E. Shechtman, O. Wang, The unreasonable effectiveness of deep features as a
perceptual metric, 2018.
"""

import functools

import torch
from torch import Tensor, nn

from genprior.checks import optional

SMALLEST = 16  # pixels a side, which four reductions by 2 leave something of


@functools.cache
def network() -> nn.Module:
    """LPIPS with VGG-16, as the papers on inverse problems report it, on the CPU.

    Raises:
        UnsupportedError: the package lpips is not installed.
    """
    package = optional(
        "lpips",
        'LPIPS needs the package lpips: pip install "genprior[lpips]". When first used, it downloads the weights of '
        "VGG-16, about 530 MB, from download.pytorch.org.",
    )
    # a new network draws weights, which are then overwritten: the global random state stays as it was
    with torch.random.fork_rng(devices=[]):
        return package.LPIPS(net="vgg", verbose=False).eval().requires_grad_(False)


def lpips(x: Tensor, truth: Tensor) -> float:
    """Perceptual distance of two images (C, H, W), values clipped to [0, 1]; grey ones as three equal channels.

    Raises:
        UnsupportedError: the package lpips is not installed.
    """
    pair = [image.detach().cpu().float().clamp(0, 1).expand(3, -1, -1)[None] for image in (x, truth)]
    return float(network()(*pair, normalize=True))
