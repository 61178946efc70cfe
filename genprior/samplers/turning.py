"""A denoiser that sees its images turned and mirrored."""

from collections.abc import Callable
from itertools import cycle

from torch import Tensor

Leveled = Callable[[Tensor, float | Tensor], Tensor]  # a denoiser that also takes a noise level per image

# (transposed, upside down, mirrored), each far from the one before
WAYS = (
    (False, False, False), (True, True, True), (False, False, True), (True, True, False),
    (False, True, False), (True, False, True), (False, True, True), (True, False, False),
)  # fmt: skip


def turning(denoise: Leveled) -> Leveled:
    """E[x | x_t]; each call turns or mirrors x_t by the next of the 8 symmetries of a square.

    For images that are equally likely in all 8 ways, as photographs are as far as a network of patches can tell. The
    network's errors differ between the ways and average out over the steps of a method, at no cost.

    References: K. Zhang et al., Plug-and-play image restoration with deep denoiser prior, 2021 (periodical geometric
    self-ensemble); M. Terris et al., Equivariant plug-and-play image reconstruction, 2024.
    """
    ways = cycle(WAYS)

    def denoise_turned(x_t: Tensor, sigma: float | Tensor) -> Tensor:
        transposed, *flipped = next(ways)
        axes = [axis for axis, flip in zip((-2, -1), flipped) if flip]
        x_t = x_t.flip(axes)
        x_hat = denoise(x_t.mT.contiguous(), sigma).mT if transposed else denoise(x_t, sigma)
        return x_hat.flip(axes)

    return denoise_turned
