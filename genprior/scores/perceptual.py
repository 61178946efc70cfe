"""LPIPS, a distance in the features of a network trained on photographs; an extra of the package.

References: R. Zhang, P. Isola, A. Efros, E. Shechtman, O. Wang, The unreasonable effectiveness of deep features as a
perceptual metric, 2018.
"""

import functools

import torch
from torch import Tensor, nn

from genprior.checks import optional

SMALLEST = 16  # pixels a side: four reductions by 2 leave one


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
    # a new network draws weights, which are then overwritten; the fork keeps the global random state unchanged
    with torch.random.fork_rng(devices=[]):
        return package.LPIPS(net="vgg", verbose=False).eval().requires_grad_(False)


def lpips(x: Tensor, truth: Tensor) -> float:
    """Perceptual distance between two images (C, H, W), clipped to [0, 1]; grey images become three equal channels.

    Raises:
        UnsupportedError: the package lpips is not installed.
    """
    pair = [image.detach().cpu().float().clamp(0, 1).expand(3, -1, -1)[None] for image in (x, truth)]
    return float(network()(*pair, normalize=True))
