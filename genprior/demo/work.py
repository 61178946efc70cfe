"""What the page does, without the page: a photograph and choices in; pictures, numbers and words out."""

from __future__ import annotations

import copy
import io
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

import genprior
from genprior import compression, images, record
from genprior.checks import UnsupportedError
from genprior.likelihoods import Likelihood
from genprior.measuring import as_grey
from genprior.operators.base import Operator
from genprior.operators.build import for_image, for_measurement
from genprior.operators.channelwise import Channelwise
from genprior.operators.linear import LinearOperator
from genprior.posteriors.amortized import is_learned
from genprior.priors.base import Prior
from genprior.priors.store import bundled, find_prior
from genprior.samplers import SAMPLERS, find_sampler
from genprior.scores.metrics import psnr

# Stand in for parameters that the user does not know, when asking what goes with an operator.
UNKNOWN = {"gaussian-deblur": {"width": 2.0}, "motion-deblur": {"length": 15.0, "angle": 0.0}}
LARGEST = 512  # pixels a side that the page takes: a photograph of that size takes minutes on a CPU
SAMPLE_SIDE = 256  # pixels of the longer side of the photographs to pick
SAMPLES = ("astronaut", "chelsea", "coffee", "rocket", "camera", "coins")


@dataclass(frozen=True, eq=False)
class Photo:
    """A picture as the page works on it.

    Attributes:
        image: RGB, or grey if its three channels are the same.
        holes: white where to fill, as large as the image.
        notices: what was done to the picture to make it fit.
        file: the one that the picture was read from, if any.
    """

    image: Image.Image
    holes: Image.Image
    notices: tuple[str, ...] = ()
    file: Path | None = None


@dataclass(frozen=True, eq=False)
class Outcome:
    """What is shown: 8-bit pictures, and facts by their names.

    `deviation` is None for a single sample, `truth` if it is unknown.
    """

    measured: Image.Image
    mean: Image.Image
    deviation: Image.Image | None
    samples: list[Image.Image]
    truth: Image.Image | None
    facts: dict[str, str]


def sample_photo(name: str) -> Image.Image:
    """One of the photographs of `SAMPLES`, which come with scikit-image."""
    import skimage.data

    image = Image.fromarray(getattr(skimage.data, name)())
    image.thumbnail((SAMPLE_SIDE, SAMPLE_SIDE), Image.Resampling.LANCZOS)
    return image


def as_photo(image: images.ImageLike, painted: Image.Image | None = None) -> Photo:
    """Convert an image of any kind to 8 bits; its holes are its transparent pixels and the opaque ones of `painted`.

    Raises:
        ValueError, TypeError, OSError: it cannot be read as one image, see `images.read`.
    """
    picture = images.read(image)
    x, alpha = picture.seen[0], picture.alpha
    x = x[:1] if bool((x == x[:1]).all()) else x
    holes = torch.zeros_like(x[:1]) if alpha is None else (alpha[0] == 0).float()
    file = Path(image) if isinstance(image, str) else None
    photo = Photo(images.to_pil(x), images.to_pil(holes), file=file)
    if painted is not None:
        strokes = painted.getchannel("A").point([0] + [255] * 255)
        photo.holes.paste(255, mask=strokes.resize(photo.image.size, Image.Resampling.NEAREST))
    return photo


def fit_clean(photo: Photo, scale: int = 1) -> Photo:
    """Shrink a clean photograph to `LARGEST` pixels a side, and cut it to a multiple of `scale`."""
    image, holes, notices = photo.image, photo.holes, list(photo.notices)
    if max(image.size) > LARGEST:
        image = image.copy()
        image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
        holes = holes.resize(image.size, Image.Resampling.NEAREST)
        notices.append(f"made smaller, from {_size(photo.image)} to {_size(image)}")
    width, height = (side - side % scale for side in image.size)
    if (width, height) != image.size and width and height:
        notices.append(f"cut to {width} x {height}, which {scale} divides")
        image, holes = (picture.crop((0, 0, width, height)) for picture in (image, holes))
    return Photo(image, holes, tuple(notices))


def fit_damaged(photo: Photo) -> Photo:
    """Cut to `LARGEST` pixels a side around the holes: if it shrank, blur and noise would no longer be as stated."""
    width, height = (min(side, LARGEST) for side in photo.image.size)
    if (width, height) == photo.image.size:
        return photo
    left, top, right, bottom = photo.holes.getbbox() or (0, 0, *photo.image.size)
    x = min(max((left + right - width) // 2, 0), photo.image.width - width)
    y = min(max((top + bottom - height) // 2, 0), photo.image.height - height)
    image, holes = (picture.crop((x, y, x + width, y + height)) for picture in (photo.image, photo.holes))
    notice = f"cut from {_size(photo.image)} to the {_size(image)} that begin at column {x}, row {y}"
    return Photo(image, holes, (*photo.notices, notice))


def read_file(photo: Photo) -> tuple[genprior.Measurement, Photo]:
    """The measurement in a photograph's JPEG file, cut to `LARGEST` pixels a side in its middle, and its photograph.

    Raises:
        ValueError: it is not from a JPEG file, or from one of a kind that is not supported.
        UnsupportedError: the package that reads coefficients is not installed.
    """
    kind = None if photo.file is None else Image.open(photo.file).format
    if photo.file is None or kind not in ("JPEG", "MPO"):
        raise ValueError(
            "JPEG is undone from the coefficients that a JPEG file holds: drop the .jpg file itself, not a copy of its "
            f"pixels; got {'no file' if photo.file is None else f'a file of the format {kind}'}."
        )
    whole = genprior.read_jpeg(photo.file.read_bytes())
    part = compression.cut(whole, LARGEST)
    (_, height, width), (_, H, W) = part.operator.image_shape, whole.operator.image_shape
    notices = () if (height, width) == (H, W) else (f"cut from {W} x {H} to {width} x {height} of its middle",)
    picture = images.to_pil(part.picture[0])
    return part, Photo(picture, Image.new("L", picture.size), (*photo.notices, *notices), photo.file)


def simulate(
    photo: Photo,
    op: str,
    parameters: dict[str, Any],
    *,
    noise: float | Likelihood,
    seed: int | None = None,
    **drawing: Any,
) -> Outcome:
    """Damage a clean photograph, restore it, and compare with the truth.

    Arguments:
        photo: its holes are those of "inpaint".
        op, parameters: what is done to it, see `genprior.degrade`.
        noise: standard deviation of the noise to add, in the units of the image, [0, 1], or its likelihood; 0 for
            "jpeg", which rounds.
        seed: of the damage and of the draws; None for a fresh one.
        drawing: prior, sampler, n, steps: see `genprior.restore`.

    Raises:
        ValueError: no hole is painted for "inpaint", or as below.
        ValueError, TypeError, UnsupportedError: as for `degrade` and `restore`.
    """
    seed = secrets.randbits(32) if seed is None else seed
    photo = fit_clean(photo, parameters.get("scale", 1))
    x = images.read(photo.image).x[0]
    measurement = genprior.degrade(x, op, noise=noise, seed=seed, **_with_holes(op, parameters, photo))
    result = genprior.restore(measurement, seed=seed, **drawing)
    return _outcome(result, photo, truth=measurement.operator.frame(x))


def restore_photo(
    photo: Photo,
    op: str,
    parameters: dict[str, Any],
    *,
    noise: float | Likelihood | str | None = None,
    seed: int | None = None,
    **drawing: Any,
) -> Outcome:
    """Restore a photograph that `op` damaged; arguments as for `simulate`, noise as for `genprior.restore`.

    For "jpeg", the photograph's file says everything, and noise is None.
    """
    if op == "jpeg":
        measurement, photo = read_file(photo)
        return _outcome(genprior.restore(measurement, noise=noise, seed=seed, **drawing), photo, truth=None)
    photo = fit_damaged(photo)
    result = genprior.restore(photo.image, op, noise=noise, seed=seed, **_with_holes(op, parameters, photo), **drawing)
    return _outcome(result, photo, truth=None)


def operator_of(photo: Photo, op: str, parameters: dict[str, Any], *, clean: bool) -> Operator:
    """The operator that `simulate` (clean) or `restore_photo` uses, to ask what goes with it; holes are left out.

    Raises:
        ValueError: the parameters are not those of the operator, or do not fit the photograph; or a photograph to be
            coloured has colours.
        ValueError, UnsupportedError: as for `read_file`, if a JPEG file is restored.
    """
    if op == "jpeg" and not clean:
        return read_file(photo)[0].operator
    photo = fit_clean(photo, parameters.get("scale", 1)) if clean else fit_damaged(photo)
    height, width = photo.image.height, photo.image.width
    channels = 1 if photo.image.mode == "L" or (op == "colorize" and not clean) else 3
    if op == "inpaint":
        parameters = {"mask": torch.zeros(height, width, dtype=torch.bool)}
    if op == "jpeg":
        parameters = {}  # its quality is a parameter of the noise
    if op == "colorize" and not clean and photo.image.mode != "L":
        as_grey(images.read(photo.image).x)
    return (for_image if clean else for_measurement)(
        op, (channels, height, width), **(UNKNOWN.get(op, {}) | parameters)
    )


def obstacle(photo: Photo, op: str, parameters: dict[str, Any], *, clean: bool) -> str | None:
    """Why `simulate` (clean) or `restore_photo` cannot work with these, in words; None if they can."""
    try:
        _with_holes(op, parameters, photo)
        operator = operator_of(photo, op, parameters, clean=clean)
    except (ValueError, TypeError, UnsupportedError) as error:
        return str(error)
    return None if priors_for(operator) else f"There is no prior of images of shape {operator.image_shape}."


def priors_for(operator: Operator) -> list[str]:
    """The bundled priors of the operator's images, one per family, the diffusion model first."""
    fitting = []
    for family in sorted({name.rsplit("-", 1)[0] for name in bundled()}, key=lambda family: (family != "ddpm", family)):
        try:
            fitting.append(find_prior(family, operator.image_shape).name)
        except ValueError:
            continue
    return fitting


def samplers_for(prior: Prior, operator: Operator, law: Likelihood | None = None) -> list[str]:
    """The samplers that draw from the posterior of that prior, operator and likelihood; law=None means Gaussian."""
    operator = _as_prior_sees(prior, operator)
    return [name for name, sampler in SAMPLERS.items() if sampler().lacks(prior, operator, law) is None]


def automatic_for(prior: Prior, operator: Operator, law: Likelihood | None = None) -> str | None:
    """The sampler of `samplers_for` that "auto" takes; None if it finds none."""
    operator = _as_prior_sees(prior, operator)
    measurement = genprior.Measurement(torch.zeros(1, *operator.measurement_shape), operator, law or 0.0)
    try:
        best = type(find_sampler("auto", prior, measurement=measurement))
    except UnsupportedError:
        return None
    return next(name for name, sampler in SAMPLERS.items() if sampler is best)


def _as_prior_sees(prior: Prior, operator: Operator) -> Operator:
    """The operator; if it is on grey images and the prior of colours, applied channel by channel."""
    if (prior.image_shape[0], operator.image_shape[0]) == (3, 1) and isinstance(operator, LinearOperator):
        return Channelwise(operator, 3)
    return operator


def listening(prior: Prior, listen: Callable[[], None]) -> Prior:
    """The prior, of one image size, calling `listen` before each evaluation: an error that it raises ends the work."""
    prior = copy.copy(prior)  # shares its networks

    def heard(method: Callable) -> Callable:
        def call(*arguments: Any, **named: Any) -> Any:
            listen()
            return method(*arguments, **named)

        return call

    evaluated = {"denoise_given"} if is_learned(prior) else prior.capabilities - {"posterior_covariance"}
    for name in evaluated:
        setattr(prior, name, heard(getattr(prior, name)))
    return prior


def _with_holes(op: str, parameters: dict[str, Any], photo: Photo) -> dict[str, Any]:
    if op != "inpaint":
        return parameters
    if photo.holes.getbbox() is None:
        raise ValueError("There are no holes to fill: paint them over the photograph, with the brush.")
    return {**parameters, "mask": photo.holes}


def _outcome(result: genprior.Restoration, photo: Photo, truth: Tensor | None) -> Outcome:
    n = result.n
    noise = record.noise_in_words(result.measurement.noise)
    facts = {
        "image": f"{result.mean.shape[-1]} x {result.mean.shape[-2]} pixels",
        "picture": "the mean of the samples" if result.estimator is None else f"by {result.estimator}",
        "samples": f"{n} by {result.sampler}" if n else "none",
        "network evaluations": str(result.network_evaluations),
        "time": f"{result.seconds:.1f} s",
        "noise": noise + (", estimated" if result.noise_was_estimated else ", as stated"),
        "seed": str(result.seed),
        **{name: f"{float(values.mean()):.3g}" for name, values in result.diagnostics.items()},
    }
    if result.identification is not None:
        told = result.identification.summary["identified"].items()
        facts["identified"] = "; ".join(f"{name} {each['mean']:.3g} ± {each['std']:.2g}" for name, each in told)
    if truth is not None:
        facts["PSNR of the picture"] = f"{float(psnr(result.mean, truth)):.2f} dB"
        if n:
            facts["PSNR of a sample"] = f"{float(psnr(result.samples, truth.expand_as(result.samples)).mean()):.2f} dB"
    if photo.notices:
        facts["photograph"] = "; ".join(photo.notices)
    return Outcome(
        measured=_measured(result.measurement),
        mean=images.to_pil(result.mean),
        deviation=_heat(result.std.mean(0)) if n > 1 else None,
        samples=[images.to_pil(sample) for sample in (result.samples if n else ())],
        truth=None if truth is None else images.to_pil(truth),
        facts=facts,
    )


def _measured(measurement: genprior.Measurement) -> Image.Image:
    """y with white holes: the noise in them means nothing."""
    y, mask = measurement.picture[0], getattr(measurement.operator, "mask", None)
    return images.to_pil(y if mask is None else y.masked_fill(mask[0].to(y.device), 1))


def _heat(deviation: Tensor) -> Image.Image:
    """(H, W) in colours, with a colour bar."""
    from matplotlib.figure import Figure

    height, width = deviation.shape
    figure = Figure(figsize=(4.6, 4 * height / width + 0.2), dpi=120, layout="constrained")
    axis = figure.add_subplot()
    axis.set_axis_off()
    figure.colorbar(axis.imshow(deviation.numpy(), cmap="magma", vmin=0), ax=axis)
    with io.BytesIO() as buffer:
        figure.savefig(buffer, format="png")
        return Image.open(buffer).convert("RGB")


def _size(image: Image.Image) -> str:
    return f"{image.width} x {image.height}"
