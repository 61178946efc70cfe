"""Phase retrieval: only the magnitudes of the Fourier transform of an image are measured."""

from __future__ import annotations

from torch import Tensor, fft

from genprior.checks import Shape, as_integer, as_shape
from genprior.operators.base import Operator


class PhaseRetrieval(Operator):
    """A(x) = |F P x|, channel by channel: P pads x by zeros to `oversample` times its sides, F is the orthonormal FFT.

    |A(x)| = |x|. With twice the sides, almost every image is determined by A(x) but for its sign, being turned by 180
    degrees, and being shifted within the zeros; what is left is for the prior to decide.

    References: Phase retrieval algorithms: a comparison. J. R. Fienup, 1982. The reconstruction of a multidimensional
    sequence from the phase or magnitude of its Fourier transform. M. H. Hayes, 1982, for the ambiguities.

    Arguments:
        image_shape: (C, H, W) of x.
        oversample: >= 1, whole: y has sides oversample H and oversample W.

    Raises:
        ValueError: one of them is not as above.
    """

    def __init__(self, image_shape: Shape, oversample: int = 2):
        self.image_shape = as_shape(image_shape)
        self.oversample = as_integer("oversample", oversample, 1, 64)
        C, H, W = self.image_shape
        self.measurement_shape = (C, self.oversample * H, self.oversample * W)

    @classmethod
    def for_measurement(cls, measurement_shape: Shape, oversample: int = 2) -> PhaseRetrieval:
        """The operator whose measurements have that (C, H, W).

        Raises:
            ValueError: its sides are no multiples of `oversample`.
        """
        C, H, W = as_shape(measurement_shape)
        factor = as_integer("oversample", oversample, 1, 64)
        if H % factor or W % factor:
            raise ValueError(f"The sides of y, {H} x {W}, are no multiples of oversample={factor}.")
        return cls((C, H // factor, W // factor), factor)

    def _forward(self, x: Tensor) -> Tensor:
        return fft.fft2(x, s=self.measurement_shape[1:], norm="ortho").abs()

    def _select(self, index: Tensor) -> PhaseRetrieval:
        return self
