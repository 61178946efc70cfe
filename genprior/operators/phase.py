"""Phase retrieval: only the magnitudes of an image's Fourier transform are measured."""

from __future__ import annotations

from torch import Tensor, fft

from genprior.checks import Shape, as_integer, as_shape
from genprior.operators.base import Operator


class PhaseRetrieval(Operator):
    """A(x) = |F P x|, channel by channel: P zero-pads x to `oversample` times its sides, F is the orthonormal FFT.

    |A(x)| = |x|. With twice the sides, A(x) determines almost every image up to its sign, a rotation by 180 degrees and
    a shift within the zeros; the prior decides these.

    References: Phase retrieval algorithms: a comparison. J. R. Fienup, 1982. The reconstruction of a multidimensional
    sequence from the phase or magnitude of its Fourier transform. M. H. Hayes, 1982, for the ambiguities.

    Arguments:
        image_shape: (C, H, W) of x.
        oversample: an integer, 1 to 64: y has sides oversample H and oversample W.

    Raises:
        ValueError: an argument is not as above.
    """

    def __init__(self, image_shape: Shape, oversample: int = 2):
        self.image_shape = as_shape(image_shape)
        self.oversample = as_integer("oversample", oversample, 1, 64)
        C, H, W = self.image_shape
        self.measurement_shape = (C, self.oversample * H, self.oversample * W)

    @classmethod
    def for_measurement(cls, measurement_shape: Shape, oversample: int = 2) -> PhaseRetrieval:
        """The operator whose measurements have the given (C, H, W).

        Raises:
            ValueError: the sides are not multiples of `oversample`.
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
