"""The interface of a prior: each prior has the methods it can compute.

Notation: x an image (B, C, H, W); z a latent; sigma a noise standard deviation in the units of x; n ~ N(0, I);
x_t = x + sigma n; all log-densities are in nats, of densities in the units of x.
"""

import contextlib
import copy
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from genprior.ambient import HALF, settle_methods
from genprior.checks import OpenShape, Shape, UnsupportedError, as_shape, count_classes

METHODS = (
    "sample", "log_prob", "energy", "score", "elbo", "denoise", "posterior_covariance", "decode",
    "encode", "infer", "render", "flow_log_prob",
)  # fmt: skip
# Methods of a prior that run in torch's plain state, whatever the caller's.
SETTLED = (*METHODS, "__init__", "blank", "denoise_given", "draw", "fit", "sized", "stationary")

if TYPE_CHECKING:
    from genprior.priors.gaussian.covariance import Covariance

S = TypeVar("S", bound="Prior")


class Prior(nn.Module):
    """A distribution p(x) over images.

    The caller's autocast, inference mode, default dtype and default device change no result.

    Attributes:
        image_shape: (C, H, W) of x; None stands for an axis of any size, see `sized`.
        centre: the value, in the units of x, around which images lie: a float or a tensor that broadcasts to x.
        spread: root mean square deviation of a value of x from the centre, in the units of x.
        sigma_min, sigma_max: for priors with `denoise`, the range of noise levels to use: below sigma_min the noise no
            longer matters; at sigma_max the image no longer does.
        latent_shape: shape of one z of `decode`, z ~ N(0, I), or of one w of `render`, or None; axes of any size are
            None, as in image_shape.
        decoder_variance: for priors with `decode` or `render`, the variance v of x = decode(z) + sqrt(v) n, in squared
            units of x; 0 if x is decode(z) itself.
        latents: for priors with `render`, the law p(w) of the latents, itself a prior, for images of the same size.
        inflation: for priors with `denoise`, a factor of the fresh noise of draws in few steps, which restores the
            texture that a network removes, see `OptimalCovariance`; 1 for an exact denoiser.
        bounded: whether p(x) is 0, and the energy infinite, for some values of x.
        classes: number of class labels, 0 for none.
        class_names: names of the classes, in the order of the labels, if known.
        labelled: for a prior with classes, the methods that only p(x | label) has; see `given`.
        autocast: dtype in which the prior's networks may compute, such as torch.bfloat16; None for that of x. `half()`,
            `bfloat16()` and `to(dtype)` with a half-precision dtype set it; weights, tables and all other tensors keep
            their dtype.
        reach: the largest distance in pixels, along an axis, at which x_t influences `denoise`; None if unlimited or
            unknown.
        multiple: shifting x_t by a multiple of this many pixels shifts the output of `denoise` by as much.
        revision: the commit of the Hugging Face Hub repository that the prior was read from, or None.
    """

    image_shape: OpenShape
    latent_shape: Any = None
    decoder_variance: float | Tensor
    latents: "Prior"
    centre: float | Tensor
    spread: float
    sigma_min: float
    sigma_max: float
    inflation: float = 1.0
    bounded: bool = False
    classes: int = 0
    class_names: tuple[str, ...] = ()
    class_weights: Tensor
    labelled: frozenset[str] = frozenset()
    autocast: torch.dtype | None = None
    reach: int | None = None
    _was_open = False  # whether `sized` made it from a prior of any size
    multiple: int = 1
    revision: str | None = None

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        settle_methods(cls, SETTLED)

    def _apply(self, fn, recurse=True):
        """Apply `to`, `half` and the like to every tensor, but leave half precision to autocast.

        Half precision ruins densities, operators and tables of noise levels, and torch has no FFT or determinant in it.
        """
        halves = set()

        def kept(t: Tensor) -> Tensor:
            moved = fn(t)
            if t.dtype in HALF or moved.dtype not in HALF:
                return moved
            halves.add(moved.dtype)
            return t.to(moved.device)

        super()._apply(kept, recurse)
        for dtype in halves:
            for part in self.modules():
                # wrappers read autocast from the prior they wrap
                if isinstance(part, Prior) and not isinstance(type(part).autocast, property):
                    part.autocast = dtype
        return self

    @property
    def capabilities(self) -> frozenset[str]:
        """The names among `METHODS` that this prior has."""
        return methods_of(type(self)) - (self.labelled if self.classes else frozenset())

    @classmethod
    def blank(cls, **arguments) -> "Prior":
        """Build a prior to read stored weights into, from the arguments in its `config`."""
        return cls(**arguments)

    def sized(self: S, height: int, width: int) -> S:
        """Return this prior for images of one size: itself, unless it takes images of any size."""
        if None not in self.image_shape:
            return self
        prior = copy.copy(self)  # shares the networks
        prior.image_shape = (self.image_shape[0], height, width)
        prior._was_open = True
        return prior

    @property
    def any_size(self) -> bool:
        """Whether it takes images of any size, or did before it was `sized`."""
        return self._was_open or None in self.image_shape[1:]

    def sample(self, n: int, *, seed: int = 0) -> Tensor:
        """n draws from p(x), (n, C, H, W)."""
        raise self._unsupported("sample")

    def log_prob(self, x: Tensor) -> Tensor:
        """ln p(x) in nats, exact, (B,)."""
        raise self._unsupported("log_prob")

    def energy(self, x: Tensor) -> Tensor:
        """-ln p(x) in nats up to a constant that may be unknown, (B,); differentiable."""
        return -self.log_prob(x)

    def score(self, x: Tensor) -> Tensor:
        """grad_x ln p(x), shaped like x."""
        raise self._unsupported("score")

    def elbo(self, x: Tensor, *, seed: int = 0) -> Tensor:
        """A lower bound on ln p(x) in nats, (B,); may be an unbiased Monte Carlo estimate keyed by `seed`."""
        raise self._unsupported("elbo")

    def flow_log_prob(self, x: Tensor, *, seed: int = 0, steps: int = 100, probes: int = 4) -> tuple[Tensor, ...]:
        """ln p(x) in nats of images with sigma_min noise, by a diffusion's probability flow, (B,), with its errors.

        Returns a `probability_flow.FlowDensity`: `value`, `probe_error`, `step_error`. Only `log_prob` is exact.
        """
        raise self._unsupported("flow_log_prob")

    def denoise(self, x_t: Tensor, sigma: float | Tensor) -> Tensor:
        """E[x | x_t] for x_t = x + sigma n; sigma is a float or a (B, 1, 1, 1) tensor."""
        raise self._unsupported("denoise")

    def posterior_covariance(self, sigma: float) -> "Covariance":
        """The mean posterior covariance E Cov[x | x_t] for x_t = x + sigma n: that of the errors of `denoise`.

        Priors of images of any size have it for images of one size; see `sized`.
        """
        raise self._unsupported("posterior_covariance")

    def decode(self, z: Tensor) -> Tensor:
        """The image of a latent, E[x | z], (B, *latent_shape) -> (B, C, H, W); differentiable."""
        raise self._unsupported("decode")

    def render(self, w: Tensor) -> Tensor:
        """The image of a latent w ~ `latents`, E[x | w], (B, *latent_shape) -> (B, C, H, W); differentiable.

        It is not `decode`, which promises latents with the law N(0, I): samplers that rely on it would be wrong for w.
        """
        raise self._unsupported("render")

    def encode(self, x: Tensor) -> Tensor:
        """The latent of an image, (B, C, H, W) -> (B, *latent_shape)."""
        raise self._unsupported("encode")

    def infer(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the approximate posterior q(z | x), each (B, *latent_shape)."""
        raise self._unsupported("infer")

    def given(self, label: int | str) -> "Prior":
        """Return p(x | label), itself a prior, if there are classes; a label is a number or the name of a class."""
        raise UnsupportedError(
            f"{type(self).__name__} has no class labels; a prior trained with classes has, such as ddpm-mnist."
        )

    def fit_classes(self, labels: Tensor) -> None:
        """Set the class weights to the shares of these labels, (N,), if p(x) is a mixture of p(x | label).

        Raises:
            ValueError: a label is negative.
        """
        count_classes(labels)

    def _unsupported(self, name: str) -> UnsupportedError:
        has = ", ".join(sorted(self.capabilities)) or "nothing"
        advice = of_labels(self) or f"Try another prior for {name}."
        return UnsupportedError(f"{type(self).__name__} has no {name}; it has {has}. {advice}")


def of_labels(prior: Prior) -> str:
    """Return advice for a prior that has more methods given a class than without; empty for others."""
    if not prior.classes or not prior.labelled:
        return ""
    return f"It has {prior.classes} classes, and more of each of them: give one, label=…, or prior.given(label)."


def methods_of(kind: type[Prior]) -> frozenset[str]:
    """The names among `METHODS` that a class of priors has."""
    own = {name for name in METHODS if getattr(kind, name) is not getattr(Prior, name)}
    return frozenset(own | {"energy"} if "log_prob" in own else own)


def supports(prior: Prior, name: str) -> bool:
    """Whether `prior` has the method `name`, one of `METHODS`."""
    if name not in METHODS:
        raise ValueError(f"{name!r} is not a method of priors; choose among {', '.join(METHODS)}.")
    return name in prior.capabilities


def shape_of_draws(image_shape: OpenShape, size: tuple[int, int] | None) -> Shape:
    """Return (C, H, W) of draws of size=(H, W) from a prior with that image_shape.

    Raises:
        ValueError: the prior has images of another size, or of any size and none is given, or size is not (H, W).
    """
    channels, *own = image_shape
    if size is not None and not (isinstance(size, tuple | list) and len(size) == 2):
        raise ValueError(f"size is {size!r}: give the height and the width of the draws, as size=(height, width).")
    if None in own and size is None:
        raise ValueError("This prior has images of any size: say which one, as size=(height, width).")
    if size is not None and any(a is not None and a != b for a, b in zip(own, size)):
        raise ValueError(f"This prior has images of size {tuple(own)}, not {tuple(size)}.")
    return as_shape((channels, *(size or own)))


def checked(prior: Prior, x: Tensor, shape: OpenShape | None = None) -> Tensor:
    """Return x, checked to be (B, *shape), by default (B, *image_shape); None stands for an axis of any size.

    Raises:
        ValueError: x has another shape.
    """
    shape = prior.image_shape if shape is None else shape
    if x.ndim != len(shape) + 1 or any(b not in (None, a) for a, b in zip(x.shape[1:], shape)):
        wanted = ", ".join("any" if a is None else str(a) for a in shape)
        raise ValueError(
            f"A tensor of shape {tuple(x.shape)} was given: this {type(prior).__name__} takes (B, {wanted})."
        )
    return x


def as_config(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the `config` of a prior, ready for JSON, from the `locals()` at the start of its `__init__`."""
    given = {name: value for name, value in arguments.items() if name not in ("self", "__class__")}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}


def as_level(sigma: float | Tensor, x: Tensor) -> Tensor:
    """A noise level as a (B, 1, 1, 1) tensor of the dtype and device of x."""
    return torch.as_tensor(sigma, dtype=x.dtype, device=x.device).reshape(-1, 1, 1, 1).expand(len(x), 1, 1, 1)


def autocast(device: torch.device, dtype: torch.dtype | None) -> contextlib.AbstractContextManager:
    """Return a context in which networks compute in `dtype`; None keeps even a surrounding autocast."""
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype)
