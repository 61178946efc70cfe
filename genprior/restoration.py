"""Degrade an image; restore one from its measurement, by draws from the posterior."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genprior import images, plausible
from genprior.ambient import settled
from genprior.blind.identify import DRAWS, identify
from genprior.blind.parameters import left_out
from genprior.checks import as_integer
from genprior.compression import compressed
from genprior.drawing import draw, in_tiles
from genprior.known import giving_back, keep, known_pixels
from genprior.likelihoods import Likelihood
from genprior.measuring import as_noise, as_operator, measure, simulation, stated_noise
from genprior.noise import Noise
from genprior.operators.build import canonical, for_image
from genprior.operators.channelwise import in_channels
from genprior.operators.check import check_foreign
from genprior.operators.linear import LinearOperator
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.priors.find import as_prior
from genprior.priors.store import resolved_name
from genprior.priors.wrappers.tiled import Tiled
from genprior.result import Restoration
from genprior.samplers import SAMPLERS, find_estimator, find_sampler, refuse_parameters
from genprior.samplers.base import Sampler
from genprior.scale import warn_of_scale, warn_of_sum

# The sample number of a measurement's own noise: no draw has it, so draws with the same seed are independent of it.
MEASURED = 2**32 - 1
SEVERAL = 4  # samples if the operator is not linear; the picture is the best of them


@settled
def degrade(
    img: Any,
    op: Any,
    *,
    noise: float | Sequence[float] | Tensor | Likelihood = 0.0,
    seed: int | None = None,
    **operator_parameters: Any,
) -> Measurement:
    """Measure an image: y = A x + noise n, or y ~ p(y | A x) for another likelihood.

    Arguments:
        img: path, PIL image, numpy array, torch tensor, or a list of them, with values in [0, 1] (integers are scaled).
        op: name of an operator, an operator, or a deepinv physics; see `restore`. For "inpaint", `mask` may also be
            "random" (with `fraction`), "box" (with `size`) or "stroke" (with `fraction`). For "jpeg", `quality` is that
            of Pillow's encoder, 1 to 100, and `subsampling` "4:4:4", "4:2:2" or "4:2:0".
        noise: standard deviation in the units of x, [0, 1], or a list with one for each image; or a likelihood,
            such as `Poisson(1 / 30)`, see `genprior.likelihoods`.
        seed: keys noise and simulated masks, which differ from image to image; None for a fresh one.
        operator_parameters: of a named operator.

    Returns:
        The measurement, never clipped. A blur with `boundary="valid"`, the default, measures a smaller frame.

    Raises:
        ValueError, TypeError: an argument is not as above.
    """
    seed = secrets.randbits(32) if seed is None else seed
    noise = as_noise(noise)
    x = images.read(img, role="image").seen
    shape = tuple(x.shape[1:])
    if isinstance(op, str) and canonical(op) == "jpeg":
        return compressed(x, noise, operator_parameters)
    if isinstance(op, str):
        parameters = simulation(canonical(op), x, operator_parameters, seed)
        operator = for_image(op, shape, **parameters)
        warn_of_sum(parameters.get("kernel"))
    else:
        operator = as_operator(op, operator_parameters, shape)
    check_foreign(operator, x)
    y = operator(x)
    n = Noise(seed, torch.arange(len(y)), torch.full((len(y),), MEASURED))
    likelihood = noise if isinstance(noise, Likelihood) else Measurement(y, operator, noise).likelihood
    return Measurement(likelihood.to(y).sample(y, n), operator, noise)


@settled
def restore(
    img: Any,
    op: Any = "inpaint",
    prior: str | Path | Prior | Callable[[Tensor, float], Tensor] = "ddpm",
    *,
    sampler: str | Sampler = "auto",
    n: int | None = None,
    noise: float | Sequence[float] | Tensor | Likelihood | str | None = None,
    label: int | str | None = None,
    steps: int | None = None,
    tile: int | None = None,
    seed: int | None = None,
    device: str | torch.device = "auto",
    progress: bool = True,
    **operator_parameters: Any,
) -> Restoration:
    """Draw from the posterior p(x | y) of the image given its measurement, and estimate its mean.

    Arguments:
        img: the measurement y: path, PIL image, numpy array, torch tensor, or a list of them; or a `Measurement`, which
            brings its operator and noise. Floating-point arrays and tensors may hold any finite values.
        op: what happened to the image: "inpaint" (`mask`: white, True or 1 marks the holes; NaN and, without a mask,
            alpha 0 mark holes too), "super-resolution" (`scale`, `antialias`), "gaussian-deblur" (`width`, `boundary`),
            "motion-deblur" (`length`, `angle`, `boundary`), "deblur" (`kernel`, `boundary`), "colorize", "denoise",
            "phase-retrieval" (`oversample`), "jpeg" (`img` is the JPEG file: its path, its bytes, or the PIL image
            opened from it; the file holds the rest); or an operator or deepinv physics, which take `img` as it is, in
            their measurement shape, batch axis optional.
            For several images, `mask` and `kernel` may be lists with one for each; kernels may differ in size.
            A physics that does not state its image size takes `image_shape=(C, H, W)`, by default that of A^T y.
        prior: name ("ddpm-photo"), folder of a trained prior or of a diffusers model, a checkpoint such as
            "ffhq_10m.pt" (see `load_prior`), a prior, or a family ("ddpm", "vae", "nf", "gan", "gaussian"): its bundled
            prior for images of exactly this shape if there is one, as for digits of 28 x 28, else the one for
            photographs of any size. Or a denoiser, any function of (x_t, sigma) or one of deepinv, for the image's
            channels and noise up to 50 / 255; see `from_denoiser` for others.
        sampler: "auto", a name, or an object with its parameters, such as `DPS(zeta=0.5)`. "auto" chooses two methods
            if it can: one for the samples, for the right spread, and one for the picture, for the least squared error;
            see `Restoration.mean` and docs/samplers.md.
        n: how many samples of each image. None for the picture alone; 1 if the picture is made of samples, and 4 if
            the operator is not linear: the picture is then the sample that fits y best.
        noise: standard deviation of the measurement's noise in the units of x, [0, 1], or a list with one for each
            image, or a likelihood, see `genprior.likelihoods`. None to estimate one level from y; "poisson" to
            estimate the gain of photon noise and the sd of the rest, see `photon_noise`.
        label: class of the image, a number or a name such as "sunflowers" (see `class_names` of the prior), to restore
            with p(x | label), see `Prior.given`; None for any.
        steps: of the sampler; None for its own.
        tile: side in pixels of the tiles in which the network sees a larger image, for less memory; see `priors.Tiled`.
            None takes tiles if the image exceeds the device's memory (on the CPU, 1024 x 1024) and tiles make no
            difference, as with our own networks.
        seed: keys all randomness; None for a fresh one, which the result states. Sample k of image i depends on
            (seed, i, k) only, up to the rounding of the network (bfloat16 where the device is fast in it).
        device: "auto", "cpu", "cuda", …; auto takes the fastest device, or that of a given prior.
        progress: show a progress bar.
        operator_parameters: of a named operator. A width, length or angle of a blur that is left out, or given by a
            range or law, is identified from the photograph, see `identify`: the picture uses its posterior mean, and
            every sample its own draw of it, and of the noise too if that is left out.

    Returns:
        The samples, their standard deviation, the estimate of the mean, and the image in the kind of the input; see
        `Restoration`. Inpainting returns known pixels bit for bit, unless a noise above 0 was stated.

    Warns:
        UserWarning: the samples do not fit y, lie outside the range of the prior, or come from Markov chains that have
            not mixed; see `Restoration.diagnostics`.

    Raises:
        ValueError, TypeError: an argument is not as above; the message says what to do.
        UnsupportedError: prior, operator and sampler do not go together.
    """
    refuse_parameters(operator_parameters, sampler, SAMPLERS)
    if n is not None:
        n = as_integer("n, the number of samples of each image,", n, 1, MEASURED)
    seed = secrets.randbits(32) if seed is None else seed
    noise = stated_noise(img, op, noise)
    identification = None
    if left_out(op, operator_parameters):
        draws = max(DRAWS, n or 1)
        identification = identify(
            img,
            op,
            noise=noise,  # pyright: ignore[reportArgumentType]
            draws=draws,
            seed=seed,
            **operator_parameters,
        )
        operator_parameters = {**identification.known, **identification.found}
    level = noise if noise is not None or identification is None else identification.noise
    measurement, give = measure(img, op, level, operator_parameters)
    shape = measurement.operator.image_shape
    if n is None and not isinstance(measurement.operator, LinearOperator):
        n = SEVERAL
    name = resolved_name(prior, shape) if isinstance(prior, str | Path) else None
    prior = as_prior(prior, device, shape)
    target = prior if label is None else prior.given(label)
    warn_of_scale(measurement, target)
    task, back = in_channels(measurement, target.image_shape[0])
    law = task.noise if isinstance(task.noise, Likelihood) else None
    estimator = find_estimator(target, task.operator, steps, law) if sampler == "auto" else None
    sampler = find_sampler(sampler, target, steps, task)

    began = time.perf_counter()
    known = known_pixels(measurement, noise)
    target = in_tiles(target, tile, sampler, task.operator.image_shape)

    def drawn(task: Measurement, sampler: Sampler, n: int) -> tuple[Tensor, dict[str, Tensor]]:
        nonlocal target
        x, diagnostics, target = draw(target, task, sampler, n, seed, progress)
        x = back(x)
        return (x if known is None else keep(x, measurement.y.cpu(), known)), diagnostics

    picture, diagnostics = (None, {}) if estimator is None else drawn(task, estimator, 1)
    samples = None
    if n is not None or estimator is None:
        if identification is None:
            samples, diagnostics = drawn(task, sampler, n or 1)
        else:
            copies, _ = in_channels(identification.copies(measurement.y, n or 1), target.image_shape[0])
            samples, diagnostics = drawn(copies, sampler, 1)
            # the copies of one image are its samples
            samples = samples.transpose(0, 1)
            diagnostics = {figure: told.T for figure, told in diagnostics.items()}
    plausible.warn(diagnostics, task, target, stacklevel=3)
    if known is not None:
        give = giving_back(give, img, measurement.y, known)
    seconds = time.perf_counter() - began

    def alone(each: Tensor) -> Tensor:
        return each if len(measurement.y) > 1 else each[0]

    spent = 0 if estimator is None else estimator.cost(task, 1)
    return Restoration(
        measurement=measurement,
        sampler=None if samples is None else sampler,
        estimator=estimator,
        prior=prior,
        prior_name=name,
        label=label,
        tile=target.tile if isinstance(target, Tiled) and sampler.needs == "denoise" else None,
        identification=identification,
        noise_was_estimated=isinstance(noise, str) or (noise is None and not isinstance(measurement.noise, Likelihood)),
        seed=seed,
        network_evaluations=spent if samples is None else spent + samples.shape[1] * sampler.cost(task, n or 1),
        diagnostics={figure: alone(each) for figure, each in diagnostics.items()},
        seconds=seconds,
        _samples=None if samples is None else alone(samples),
        _picture=None if picture is None else alone(picture[:, 0]),
        _give=give,
    )
