"""The velocity of a flow-matching model as a prior.

Notation: u = (x - zero) / unit the image on the model's own scale, often [-1, 1]; n ~ N(0, I); t the share of u in
z = t u + (1 - t) n, from 0, noise, to 1, the image; v(z, t) = E[u - n | z] the velocity; u_t = z / t = u + s n with
s = (1 - t) / t, and x_t = x + sigma n with sigma = s unit.

References: Y. Lipman et al., Flow matching for generative modeling, 2023. X. Liu, C. Gong, Q. Liu, Flow straight and
fast: learning to generate and transfer data with rectified flow, 2023.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from genprior.ambient import settled
from genprior.checks import OPEN_SHAPE, POSITIVE, OpenShape, check_arguments
from genprior.devices import state_of
from genprior.noise import Noise
from genprior.priors.base import as_level, autocast, shape_of_draws
from genprior.priors.chain import UNIT, ancestral_chain, posterior_variance, respaced
from genprior.priors.foreign.path import check_path
from genprior.priors.posterior_covariance import MeasuredCovariance
from genprior.priors.probability_flow import FlowDensity, flow_log_prob
from genprior.registry import lookup

STEPS = 1000  # levels, evenly spaced in t
SIDE = 64  # of the test image, along axes of any size

# Whether the model's time 0 is at noise, and the sign of its velocity v: sign v = E[u - n | z].
CONVENTIONS: dict[str, tuple[bool, int]] = {"noise-to-data": (True, 1), "data-to-noise": (False, -1)}


class Reading(NamedTuple):
    """The conventions of a model's time and values.

    Attributes:
        from_noise, sign: its convention, see `CONVENTIONS`.
        end: its time at the end of its path.
        zero, unit: the x of u = 0, and one unit of u in the units of x.
    """

    from_noise: bool
    sign: int
    end: float
    zero: float
    unit: float


class VelocityPrior(MeasuredCovariance):
    """A prior known only by its velocity; `from_velocity` builds it and explains the conventions.

    u_hat = z + (1 - t) v(z, t),   z = t u_t,   t = 1 / (1 + s).
    """

    centre = 0.5

    def __init__(self, velocity: Callable[[Tensor, Tensor], Tensor], image_shape: OpenShape, reading: Reading):
        super().__init__()
        self.velocity, self.image_shape, self.reading = velocity, image_shape, reading

    def denoise(self, x_t: Tensor, sigma: float | Tensor) -> Tensor:
        zero, unit = self.reading.zero, self.reading.unit
        s = as_level(sigma, x_t) / unit
        t = 1 / (1 + s)
        z = t * (x_t - zero) / unit
        u_hat = z + s * t * self.at(z, t)
        return zero + unit * u_hat

    def at(self, z: Tensor, t: Tensor) -> Tensor:
        """v(z, t) = E[u - n | z], (B, C, H, W), for z (B, C, H, W) and t (B, 1, 1, 1) from 0, noise, to 1, the image.

        Raises:
            TypeError: the model does not return a tensor.
            ValueError: it returns one of another shape.
        """
        time = self.reading.end * (t if self.reading.from_noise else 1 - t).flatten()
        dtype = next((p.dtype for p in self.parameters() if p.is_floating_point()), z.dtype)
        with autocast(z.device, self.autocast):
            v = self.velocity(z.to(dtype), time)
        if not isinstance(v, Tensor):
            raise TypeError(
                f"The velocity made a {type(v).__name__}: give a function of z and t that gives a tensor, such as "
                "lambda z, t: model(z, t).sample for a model of diffusers."
            )
        if v.shape != z.shape:
            raise ValueError(
                f"The velocity made {tuple(v.shape)} of images {tuple(z.shape)}: it has to be as they are."
            )
        return self.reading.sign * v.to(z.dtype)

    @torch.no_grad()
    def sample(self, n: int, *, seed: int = 0, size: tuple[int, int] | None = None, steps: int = 100) -> Tensor:
        """n draws by ancestral steps from sigma_max to sigma_min, evenly spaced in t, (n, C, H, W).

        Arguments:
            seed: keys the noise; draw k is the same whatever n is.
            size: (H, W), needed where the prior's images have any size.
            steps: at most 1000.

        Raises:
            ValueError: size is missing but needed, the prior does not have it, or steps is not 1 to 1000.
        """
        low, high = (1 / (1 + sigma / self.reading.unit) for sigma in (self.sigma_max, self.sigma_min))
        levels = torch.linspace(high, low, STEPS, dtype=torch.float64)
        s = self.reading.unit / UNIT * (1 - levels) / levels  # in the units of the chain
        noise = Noise.of_draws(n, seed)
        z = noise(state_of(self).new_empty(n, *shape_of_draws(self.image_shape, size)))
        alpha_bars = respaced((1 / (1 + s**2)).tolist(), steps)
        return ancestral_chain(self.denoise, z, alpha_bars, noise, posterior_variance, self.centre)

    def flow_log_prob(self, x: Tensor, *, seed: int = 0, steps: int = 100, probes: int = 4) -> FlowDensity:
        return flow_log_prob(self, x, seed=seed, steps=steps, probes=probes)


@settled
def from_velocity(
    velocity: Callable[[Tensor, Tensor], Tensor],
    image_shape: OpenShape,
    *,
    convention: str,
    end: float = 1.0,
    values: tuple[float, float] = (-1.0, 1.0),
    sigma_min: float = 0.001,
    sigma_max: float = 40.0,
    spread: float = 0.25,
) -> VelocityPrior:
    """Make a prior of a flow-matching model: any function (z, t) -> velocity, on the straight path.

    With u the image on the model's own scale and n ~ N(0, I), the model learned

        "noise-to-data":   z = t u + (1 - t) n,   v = E[u - n | z],   as Lipman et al. and torchcfm do, or
        "data-to-noise":   z = (1 - t) u + t n,   v = E[n - u | z],   as Stable Diffusion 3, FLUX and diffusers do.

    You have to state which, since only the model's author knows. Then any sampler for diffusion priors takes it. (For a
    `UNet2DModel` of diffusers with its FlowMatch scheduler, use `from_diffusers`.)

    Arguments:
        velocity: takes z (B, C, H, W) and the model's time (B,); a module keeps its mode, precision and device. Pass
            models that take the time first, as torchcfm's do, as lambda z, t: model(t, z).
        image_shape: (C, H, W), None for an axis of any size.
        convention: "noise-to-data" or "data-to-noise".
        end: the model's time at the end of its path: 1, or 1000 if it counts training steps.
        values: the model's values for black and white: (-1, 1), or (0, 1).
        sigma_min, sigma_max: the range of noise levels to use, in the units of x.
        spread: root mean square deviation of an image's values from 0.5; by default that of photographs.

    Raises:
        TypeError: the velocity cannot be called, or does not return a tensor.
        ValueError: there is no such convention, a number is not as described, or the velocity, evaluated on a small
            image, behaves like one of another convention, see `path`.
    """
    if not callable(velocity):
        raise TypeError(f"The velocity is a {type(velocity).__name__}: give a function of z and t.")
    check_arguments(locals(), image_shape=OPEN_SHAPE, end=POSITIVE, spread=POSITIVE)
    from_noise, sign = lookup("convention", convention, CONVENTIONS)
    black, white = values
    if not black < white:
        raise ValueError(f"values is {values}: give what black and white are to the model, such as (-1, 1).")
    if not 0 < sigma_min < sigma_max:
        raise ValueError(f"sigma_min is {sigma_min} and sigma_max {sigma_max}: give 0 < sigma_min < sigma_max.")
    reading = Reading(from_noise, sign, end, zero=-black / (white - black), unit=1 / (white - black))
    prior = VelocityPrior(velocity, tuple(image_shape), reading)
    prior.sigma_min, prior.sigma_max, prior.spread = sigma_min, sigma_max, spread
    check_path(prior, (image_shape[0], *(a or SIDE for a in image_shape[1:])))
    return prior
