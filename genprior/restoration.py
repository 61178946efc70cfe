"""Degrade an image; restore one from its measurement, by draws from the posterior."""

from __future__ import annotations

import contextlib
import copy
import functools
import math
import secrets
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from genprior import images, plausible
from genprior.ambient import differentiable, settled
from genprior.checks import UnsupportedError, as_integer
from genprior.devices import pick_device, rows_at_once, state_of, tile_side
from genprior.known import giving_back, keep, known_pixels
from genprior.measuring import as_noise, as_operator, measure, simulation, stated_noise
from genprior.nets.wrapped import unwrapped
from genprior.noise import Noise
from genprior.operators.base import Measurement
from genprior.operators.build import canonical, for_image
from genprior.operators.channelwise import Channelwise
from genprior.operators.check import check_foreign
from genprior.operators.masking import is_identity
from genprior.priors.base import Prior
from genprior.priors.foreign.denoiser import from_denoiser
from genprior.priors.foreign.diffusers import from_diffusers, is_of_diffusers
from genprior.priors.foreign.weights import ADVICE
from genprior.priors.store import find_prior, load_prior, resolved_name
from genprior.priors.wrappers.tiled import Tiled
from genprior.result import Restoration
from genprior.samplers import SAMPLERS, find_sampler, refuse_parameters
from genprior.samplers.base import Sampler
from genprior.samplers.posterior_mean import PosteriorMean, denoises
from genprior.scale import warn_of_scale, warn_of_sum

# The sample number of a measurement's own noise: no draw has it, so draws of the same seed owe nothing to that noise.
MEASURED = 2**32 - 1


@settled
def degrade(
    img: Any, op: Any, *, noise: float = 0.0, seed: int | None = None, **operator_parameters: Any
) -> Measurement:
    """Measure an image: y = A x + noise n.

    Arguments:
        img: path, PIL image, numpy array, torch tensor, or a list of them, with values in [0, 1] (integers are scaled).
        op: name of an operator, an operator, or a deepinv physics; see `restore`. For "inpaint", `mask` may also be
            "random" (with `fraction`), "box" (with `size`) or "stroke" (with `fraction`).
        noise: standard deviation in the units of x, [0, 1].
        seed: keys noise and simulated masks, of which each image has its own; None for a fresh one.
        operator_parameters: of a named operator.

    Returns:
        The measurement, never clipped. A blur with `boundary="valid"`, the default, measures a smaller frame.

    Raises:
        ValueError, TypeError: one of the arguments is not as above.
    """
    seed = secrets.randbits(32) if seed is None else seed
    noise = as_noise(noise)
    x = images.read(img, role="image").seen
    shape = tuple(x.shape[1:])
    if isinstance(op, str):
        parameters = simulation(canonical(op), x, operator_parameters, seed)
        operator = for_image(op, shape, **parameters)
        warn_of_sum(parameters.get("kernel"))
    else:
        operator = as_operator(op, operator_parameters, shape)
    check_foreign(operator, x)
    y = operator(x)
    n = Noise(seed, torch.arange(len(y)), torch.full((len(y),), MEASURED))(y)
    measurement = Measurement(y, operator, noise)
    return replace(measurement, y=y + _to(noise, y.device) * n)


@settled
def restore(
    img: Any,
    op: Any = "inpaint",
    prior: str | Path | Prior | Callable[[Tensor, float], Tensor] = "ddpm",
    *,
    sampler: str | Sampler = "auto",
    n: int = 1,
    noise: float | None = None,
    label: int | str | None = None,
    steps: int | None = None,
    tile: int | None = None,
    seed: int | None = None,
    device: str = "auto",
    progress: bool = True,
    **operator_parameters: Any,
) -> Restoration:
    """Draw from the posterior p(x | y) of the image given its measurement.

    Arguments:
        img: the measurement y: path, PIL image, numpy array, torch tensor, or a list of them; or a `Measurement`, which
            brings its operator and noise. Floating-point arrays and tensors may hold any finite values.
        op: what was done to the image: "inpaint" (`mask`: white, True or 1 marks the holes; NaN and, without a mask,
            alpha 0 mark holes too), "super-resolution" (`scale`, `antialias`), "gaussian-deblur" (`width`, `boundary`),
            "motion-deblur" (`length`, `angle`, `boundary`), "deblur" (`kernel`, `boundary`), "colorize", "denoise"; or
            an operator or deepinv physics, which take `img` as it is, in their measurement shape, batch axis optional.
            For several images, `mask` and `kernel` may be lists with one for each; kernels may differ in size.
            A physics that does not say the size of its images takes `image_shape=(C, H, W)`, by default that of y.
        prior: name ("ddpm-photo"), folder of a trained prior or of a diffusers model, a prior, or a family ("ddpm",
            "vae", "nf", "gan", "gaussian"): its bundled prior of images of just this shape if there is one, as for
            digits of 28 x 28, else the one of photographs of any size. Or a denoiser, any function of (x_t, sigma) or
            one of deepinv, of the image's channels and for noise up to 50 / 255; see `from_denoiser` for others.
        sampler: "auto", a name, or an object with its parameters, such as `DPS(zeta=0.5)`. For "denoise", "auto"
            without `steps` gives E[x | y], one evaluation of the denoiser, as the picture: see `Restoration.mean`.
        n: how many samples of each image.
        noise: standard deviation of the measurement's noise in the units of x, [0, 1], or a list of those of several
            images; None to estimate it.
        label: class of the image, a number or a name such as "sunflowers" (see `class_names` of the prior), which makes
            of the prior p(x | label), see `Prior.given`; None for any.
        steps: of the sampler; None for its own.
        tile: side in pixels of the tiles in which the network sees a larger image, for less memory; see `priors.Tiled`.
            None takes tiles where the image is beyond the device's memory (on the CPU, 1024 x 1024) and they make no
            difference, as with our own networks.
        seed: keys all randomness; None for a fresh one, which the result names. Sample k of image i depends on
            (seed, i, k) only, to the rounding of the network (bfloat16 where the device is fast in it).
        device: "auto", "cpu", "cuda", …; auto takes the best there is, or where a given prior lies.
        progress: show a bar.
        operator_parameters: of a named operator.

    Returns:
        The samples, their mean and standard deviation, and the image in the kind that was given; see `Restoration`.
        Known pixels of inpainting are as they were given, bit for bit, unless a noise above 0 was stated.

    Warns:
        UserWarning: what the samples leave of y, how far they lie outside the prior's range, or the R-hat of Markov
            chains, see `Restoration.diagnostics`, is beyond what is plausible.

    Raises:
        ValueError, TypeError: one of the arguments is not as above; the message says what to do.
        UnsupportedError: prior, operator and sampler do not go together.
    """
    refuse_parameters(operator_parameters, sampler, SAMPLERS)
    n = as_integer("n, the number of samples of each image,", n, 1, MEASURED)
    seed = secrets.randbits(32) if seed is None else seed
    noise = stated_noise(img, op, noise)
    measurement, give = measure(img, op, noise, operator_parameters)
    name = resolved_name(prior, measurement.operator.image_shape) if isinstance(prior, str | Path) else None
    prior = as_prior(prior, device, measurement.operator.image_shape)
    target = prior if label is None else prior.given(label)
    warn_of_scale(measurement, target)
    task, back = _fit_channels(measurement, target)
    at_once = sampler == "auto" and steps is None and is_identity(task.operator, task.y) and denoises(target)
    sampler = PosteriorMean() if at_once and n == 1 else find_sampler(sampler, target, steps)

    began = time.perf_counter()
    target = _in_tiles(target, tile, sampler, task.operator.image_shape)
    samples, diagnostics, target = _draw_or_halve(target, task, sampler, n, seed, progress)
    samples = back(samples)
    picture = None
    if at_once and n > 1:
        means, _, _ = _draw_or_halve(target, task, PosteriorMean(), 1, seed, progress)
        picture = back(means)[:, 0]
    plausible.warn(diagnostics, task, target, stacklevel=3)
    known = known_pixels(measurement, noise)
    if known is not None:
        samples = keep(samples, measurement.y.cpu(), known)
        give = giving_back(give, img, measurement.y, known)
    seconds = time.perf_counter() - began

    return Restoration(
        samples=samples if len(measurement.y) > 1 else samples[0],
        measurement=measurement,
        sampler=sampler,
        prior=prior,
        prior_name=name,
        label=label,
        tile=target.tile if isinstance(target, Tiled) and sampler.needs == "denoise" else None,
        noise_was_estimated=noise is None,
        seed=seed,
        network_evaluations=sampler.cost(task, n),
        diagnostics=diagnostics if len(measurement.y) > 1 else {name: d[0] for name, d in diagnostics.items()},
        seconds=seconds,
        _mean=picture if picture is None or len(picture) > 1 else picture[0],
        _give=give,
    )


def as_prior(prior: Any, device: str | torch.device, image_shape: tuple[int, int, int]) -> Prior:
    """The prior that `restore` takes for that argument, on that device."""
    if isinstance(unwrapped(prior), Prior):
        prior = unwrapped(prior)
    if isinstance(prior, Prior):
        return differentiable(prior if device == "auto" else prior.to(pick_device(device)))
    if not isinstance(prior, str | Path):
        return as_prior(_foreign(prior, image_shape), device, image_shape)
    folder = find_prior(prior, image_shape).resolve()
    # A folder that is trained again is replaced as a whole; diffusers writes into the one that is there.
    written = max(path.stat().st_mtime_ns for path in (folder, *folder.glob("unet/*")))
    return _loaded(folder, written, pick_device(device))


def _foreign(given: Any, image_shape: tuple[int, int, int]) -> Prior:
    """The prior of a pipeline of diffusers, or of a denoiser of images of so many channels."""
    if is_of_diffusers(given):
        return from_diffusers(given)
    if callable(given) and not isinstance(given, type):
        denoiser = from_denoiser(given, (image_shape[0], None, None))
        denoiser.check(*image_shape[1:])  # of a network that takes images of one size only
        return denoiser
    advice = f" {ADVICE}" if isinstance(given, Mapping) else ""
    raise TypeError(f"prior is a name, a folder, a Prior or a denoiser, not {images.kind_of(given)}.{advice}")


@functools.lru_cache(maxsize=2)
def _loaded(folder: Path, written: int, device: torch.device) -> Prior:
    """The prior in a folder, kept for the next image: nobody but `restore` holds it, and `restore` changes nothing."""
    return load_prior(folder, device)


def _fit_channels(measurement: Measurement, prior: Prior) -> tuple[Measurement, Callable[[Tensor], Tensor]]:
    """A grey measurement for a prior of colour images: three equal channels, of which the mean is taken back.

    For x grey, three copies of y with noise sqrt(3) sd each say about x just what y says, and that x is grey.
    """
    A = measurement.operator
    channels = prior.image_shape[0]
    if A.image_shape[0] != 1 or channels != 3:
        return measurement, lambda x: x
    colour = Measurement(
        measurement.y.repeat(1, channels, 1, 1), Channelwise(A, channels), math.sqrt(channels) * measurement.noise
    )
    return colour, lambda x: x.mean(dim=-3, keepdim=True)


def _in_tiles(prior: Prior, tile: int | None, sampler: Sampler, image_shape: tuple[int, int, int]) -> Prior:
    """The prior that denoises in tiles of that side; for None, of the largest that fits, if the image is larger."""
    if tile is not None:
        tile = as_integer("tile, the side of the tiles in pixels,", tile, 1, math.inf)
        if sampler.needs != "denoise":
            raise UnsupportedError(
                f"{type(sampler).__name__} does not denoise, so that nothing is there to tile: leave tile={tile} out."
            )
        return Tiled(prior.prior, tile, prior.overlap) if isinstance(prior, Tiled) else Tiled(prior, tile)
    largest = tile_side(state_of(prior).device)
    small = image_shape[1] * image_shape[2] <= largest**2
    return prior if small or isinstance(prior, Tiled) or not _is_local(prior, sampler) else Tiled(prior, largest)


def _is_local(prior: Prior, sampler: Sampler) -> bool:
    """Whether tiles make no difference."""
    return sampler.needs == "denoise" and prior.reach is not None and None in prior.image_shape[1:]


def _draw_or_halve(
    prior: Prior, measurement: Measurement, sampler: Sampler, n: int, seed: int, progress: bool
) -> tuple[Tensor, dict[str, Tensor], Prior]:
    """`_draw`, once again with half the tile where the memory of a GPU did not suffice; and the prior that it took."""
    try:
        return *_draw(prior, measurement, sampler, n, seed, progress), prior
    except torch.OutOfMemoryError:
        prior = _halved(prior, sampler, measurement.operator.image_shape)
        if prior is None:
            raise
        warnings.warn(
            f"The device ran out of memory. Once more, with tiles of {prior.tile} x {prior.tile}: give tile="
            f"{prior.tile} to have them at once.",
            stacklevel=3,
        )
    torch.cuda.empty_cache()  # out here, where nothing holds on to what the first attempt had made
    return *_draw(prior, measurement, sampler, n, seed, progress), prior


def _halved(prior: Prior, sampler: Sampler, image_shape: tuple[int, int, int]) -> Tiled | None:
    """The prior with half the tile, of an image that is denoised whole half the image; None if that cannot be."""
    try:
        if isinstance(prior, Tiled):
            return Tiled(prior.prior, prior.side(*image_shape[1:]) // 2, prior.overlap)
        return Tiled(prior, max(image_shape[1:]) // 2) if _is_local(prior, sampler) else None
    except ValueError:
        return None


def _draw(
    prior: Prior, measurement: Measurement, sampler: Sampler, n: int, seed: int, progress: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """n samples of every image, (B, n, C, H, W), and their diagnostics, (B, n), in chunks that fit the memory."""
    A, state = measurement.operator, state_of(prior)
    device = state.device
    image = torch.arange(len(measurement.y)).repeat_interleave(n)
    sample = torch.arange(n).repeat(len(measurement.y))
    at_once = n if sampler.clouds else max(1, rows_at_once(A.image_shape, device) // sampler.chains(1))
    chunks = torch.arange(len(image)).split(at_once)
    draws, told = [], []
    prior = prior.sized(*A.image_shape[1:])
    tiles = prior.tiles(*A.image_shape[1:]) if isinstance(prior, Tiled) else 1
    total = len(measurement.y) * sampler.chains(n) * sampler.calls * tiles
    with torch.no_grad(), _watched(prior, sampler.needs, total, progress) as prior:
        for rows in chunks:
            part = measurement.select(image[rows]).to(state)
            # Image 0 is left to `prior.sample`, whose draws of the same seed are then no relatives of these.
            x, diagnostics = sampler.draw(prior, part, Noise(seed, image[rows] + 1, sample[rows]))
            if not torch.isfinite(x).all():
                raise FloatingPointError(
                    f"{sampler} diverged: its samples are not finite. Check noise={measurement.noise}, or try more "
                    "steps or another sampler."
                )
            draws.append(A.frame(x).float().cpu())
            told.append(plausible.figures(x, part, prior) | diagnostics)
    figures = {name: torch.cat([each[name].float().cpu() for each in told]).unflatten(0, (-1, n)) for name in told[0]}
    return torch.cat(draws).unflatten(0, (-1, n)), figures


@contextlib.contextmanager
def _watched(prior: Prior, method: str, total: int, shown: bool) -> Iterator[Prior]:
    """The prior, with a bar that moves with every call of `method`, and with every tile."""
    with tqdm(total=total, desc="restore", disable=None if shown and total else True, leave=False) as bar:

        def call(*arguments: Any) -> Any:
            result = getattr(prior, method)(*arguments)
            bar.update(len(arguments[0]))
            return result

        watched = copy.copy(prior)  # shares its networks; the user's prior is left alone
        if isinstance(prior, Tiled):
            watched.watch = bar.update
        else:
            setattr(watched, method, call)
        yield watched


def _to(noise: float | Tensor, device: torch.device) -> float | Tensor:
    return noise.to(device) if isinstance(noise, Tensor) else noise
