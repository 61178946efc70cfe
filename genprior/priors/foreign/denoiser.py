"""Any denoiser as a prior."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from genprior.ambient import own, settled
from genprior.checks import OpenShape
from genprior.devices import state_of
from genprior.nets.wrapped import unwrapped
from genprior.priors.base import as_level
from genprior.priors.foreign.prediction import check_denoises
from genprior.priors.posterior_covariance import MeasuredCovariance

# The noise levels that deepinv's DRUNet and most denoisers of plug-and-play methods were trained for.
SIGMA_MIN = 0.5 / 255
SIGMA_MAX = 50 / 255
Form = Callable[[float | Tensor, Tensor], float | Tensor]
SIDE = 64  # of the test image, along axes of any size


class DenoiserPrior(MeasuredCovariance):
    """A prior known only by its denoiser; see `from_denoiser`."""

    def __init__(
        self,
        denoiser: Callable[[Tensor, float | Tensor], Tensor],
        image_shape: OpenShape,
        sigma_min: float,
        sigma_max: float,
        centre: float | Tensor,
        spread: float,
    ):
        super().__init__()
        if not callable(denoiser):
            raise TypeError(f"The denoiser is a {type(denoiser).__name__}: give a function of x_t and sigma.")
        if len(image_shape) != 3 or not all(a is None or (isinstance(a, int) and a > 0) for a in image_shape):
            raise ValueError(f"image_shape is {image_shape!r}: give (C, H, W), None for an axis of any size.")
        if not 0 < sigma_min < sigma_max:
            raise ValueError(f"sigma_min is {sigma_min} and sigma_max {sigma_max}: give 0 < sigma_min < sigma_max.")
        if not spread > 0:
            raise ValueError(f"spread is {spread}: give a number above 0.")
        self.denoiser = denoiser
        self.image_shape = tuple(image_shape)
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self.centre, self.spread = own(centre) if isinstance(centre, Tensor) else centre, spread
        self._seen = False
        self._form: dict[bool, Form] = {}  # the form of sigma that the denoiser takes, given a tensor or a number

    def denoise(self, x_t: Tensor, sigma: float | Tensor) -> Tensor:
        form, x_hat = self._answer(x_t, sigma)
        if not isinstance(x_hat, Tensor) or x_hat.shape != x_t.shape:
            given = tuple(x_hat.shape) if isinstance(x_hat, Tensor) else type(x_hat).__name__
            wanted = self._advice(x_t, sigma) or "It has to give a tensor of the same shape."
            raise ValueError(f"The denoiser made {given} of images {tuple(x_t.shape)}. {wanted}")
        self._form[isinstance(sigma, Tensor)] = form
        return x_hat.to(x_t.dtype)

    def _answer(self, x_t: Tensor, sigma: float | Tensor) -> tuple[Form, Any]:
        """Return the first form of sigma that the denoiser takes, and its output for it."""
        known = self._form.get(isinstance(sigma, Tensor))
        first: Exception | None = None
        for form in (known,) if known else self._forms(sigma):
            try:
                return form, self._call(x_t, form(sigma, x_t))
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                first = first or error
        assert first is not None
        if advice := self._advice(x_t, sigma):
            raise ValueError(f"The denoiser failed on images {tuple(x_t.shape)}. {advice}") from first
        raise first

    def _forms(self, sigma: float | Tensor) -> list[Form]:
        """Return the forms of sigma to try: as documented, then those of EDM's networks and of other libraries."""
        if _is_deepinv(unwrapped(self.denoiser)):
            return [one_each] if isinstance(sigma, Tensor) else [as_given]
        return [as_given, as_level, one_each]

    def check(self, height: int, width: int) -> None:
        """Check by one evaluation that it denoises, unless that was already done.

        Arguments:
            height, width: of the test image, along axes of any size.

        Raises:
            ValueError: D(x, sigma_min) is not near x.
        """
        if self._seen:
            return
        shape = tuple(a or b for a, b in zip(self.image_shape, (3, height, width)))
        self._seen = check_denoises(self, shape, state_of(self))

    def _call(self, x_t: Tensor, sigma: float | Tensor) -> Tensor:
        """Return the denoiser's output; a network in half precision gets half-precision inputs."""
        dtypes = (t.dtype for t in self.parameters() if t.is_floating_point())
        dtype = next(dtypes, x_t.dtype)
        return self.denoiser(x_t.to(dtype), sigma.to(dtype) if isinstance(sigma, Tensor) else sigma)

    def _advice(self, x_t: Tensor, sigma: float | Tensor) -> str:
        """Return advice after a failure, if a colour denoiser was given grey images or the other way round."""
        other = x_t.expand(-1, 3, -1, -1) if x_t.shape[1] == 1 else x_t[:, :1]
        try:
            if self._call(other, sigma).shape != other.shape:
                return ""
        except Exception:
            return ""
        channels = "1 channel" if other.shape[1] == 1 else "3 channels"
        said = f"prior=genprior.from_denoiser(denoiser, ({other.shape[1]}, None, None))"
        return f"It is one of images with {channels}: say so, with {said}."


@settled
def from_denoiser(
    denoiser: Callable[[Tensor, float | Tensor], Tensor],
    image_shape: OpenShape = (3, None, None),
    *,
    sigma_min: float = SIGMA_MIN,
    sigma_max: float = SIGMA_MAX,
    centre: float | Tensor = 0.5,
    spread: float = 0.25,
) -> DenoiserPrior:
    """Make a prior of a denoiser: any function (x_t, sigma) -> x_hat, or a deepinv denoiser.

    It should approximate E[x | x + sigma n], for images in [0, 1] and sigma in their units: the closer, the better the
    samples. Wrap a denoiser on [-1, 1] first: `lambda x_t, sigma: (D(2 * x_t - 1, 2 * sigma) + 1) / 2`.

    The defaults suit denoisers of photographs that were trained up to a noise of 50 / 255, such as deepinv's DRUNet,
    which fails above 0.2. Diffusions reach much higher levels, where nothing of the image remains. A sampler starts no
    higher than sigma_max, so such a denoiser cannot invent content, for instance in large holes.

    Arguments:
        denoiser: takes x_t (B, C, H, W) and sigma, a float or (B, 1, 1, 1), as in `Prior.denoise`. If it fails on
            these, as EDM's networks do on floats, it gets a tensor (B, 1, 1, 1), then (B,); deepinv's get (B,). A
            module keeps its mode, precision and device.
        image_shape: (C, H, W), None for an axis of any size.
        sigma_min, sigma_max: the noise that it was trained for, in the units of x.
        centre, spread: about where images lie, and how far a value lies from there; by default those of photographs.

    Raises:
        TypeError: the denoiser cannot be called.
        ValueError: a level, the spread or the shape is not as described; or one evaluation shows that D(x, sigma_min)
            is not near x: the function predicts something else, such as the noise or the score.
    """
    prior = DenoiserPrior(denoiser, image_shape, sigma_min, sigma_max, centre, spread)
    prior.check(SIDE, SIDE)
    return prior


def as_given(sigma: float | Tensor, _: Tensor) -> float | Tensor:
    return sigma


def one_each(sigma: float | Tensor, x: Tensor) -> Tensor:
    """Return a noise level as a (B,) tensor."""
    return as_level(sigma, x).flatten()


def _is_deepinv(denoiser: Callable) -> bool:
    return isinstance(denoiser, nn.Module) and any(k.__module__.startswith("deepinv.") for k in type(denoiser).__mro__)
