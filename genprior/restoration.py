"""Degrade an image; restore one from its measurement, by draws from the posterior."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import math
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from genprior import images
from genprior.measuring import as_noise, as_operator, measure, simulation, stated_noise
from genprior.memory import rows_at_once
from genprior.noise import Noise
from genprior.operators.base import Measurement, as_integer
from genprior.operators.build import canonical, for_image
from genprior.operators.channelwise import Channelwise
from genprior.operators.inpaint import Inpaint
from genprior.priors.base import Prior
from genprior.priors.store import find_prior, load_prior
from genprior.samplers import find_sampler
from genprior.samplers.base import Sampler

# The sample number of a measurement's own noise: no draw has it, so draws of the same seed owe nothing to that noise.
MEASURED = 2**32 - 1


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
    x = images.read(img, role="image").x
    shape = tuple(x.shape[1:])
    if isinstance(op, str):
        operator = for_image(op, shape, **simulation(canonical(op), x, operator_parameters, seed))
    else:
        operator = as_operator(op, operator_parameters, shape)
    y = operator(x)
    n = Noise(seed, torch.arange(len(y)), torch.full((len(y),), MEASURED))(y)
    measurement = Measurement(y, operator, noise)
    return replace(measurement, y=y + _to(noise, y.device) * n)


def restore(
    img: Any,
    op: Any = "inpaint",
    prior: str | Path | Prior = "ddpm",
    *,
    sampler: str | Sampler = "auto",
    n: int = 1,
    noise: float | None = None,
    label: int | None = None,
    steps: int | None = None,
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
            A physics that does not say the size of its images takes `image_shape=(C, H, W)`, by default that of y.
        prior: name ("ddpm-photo"), folder of a trained prior, a prior, or a family ("ddpm", "vae", "nf", "gan",
            "gaussian"): its bundled prior of images of just this shape if there is one, as for digits of 28 x 28, else
            the one of photographs of any size.
        sampler: "auto", a name, or an object with its parameters, such as `DPS(zeta=0.5)`.
        n: how many samples of each image.
        noise: standard deviation of the measurement's noise in the units of x, [0, 1]; None to estimate it.
        label: class of the image, which makes of the prior p(x | label), see `Prior.given`; None for any.
        steps: of the sampler; None for its own.
        seed: keys all randomness; None for a fresh one, which the result names. Sample k of image i depends on
            (seed, i, k) only, to the rounding of the network (bfloat16 where the device is fast in it).
        device: "auto", "cpu", "cuda", …; auto takes the best there is, or where a given prior lies.
        progress: show a bar.
        operator_parameters: of a named operator.

    Returns:
        The samples, their mean and standard deviation, and the image in the kind that was given; see `Restoration`.

    Raises:
        ValueError, TypeError: one of the arguments is not as above; the message says what to do.
        UnsupportedError: prior, operator and sampler do not go together.
    """
    n = as_integer("n, the number of samples of each image,", n, 1, MEASURED)
    seed = secrets.randbits(32) if seed is None else seed
    noise = stated_noise(img, op, noise)
    measurement, give = measure(img, op, noise, operator_parameters)
    prior = as_prior(prior, device, measurement.operator.image_shape)
    prior = prior if label is None else prior.given(label)
    task, back = _fit_channels(measurement, prior)
    sampler = find_sampler(sampler, prior, steps)

    began = time.perf_counter()
    samples, diagnostics = _draw(prior, task, sampler, n, seed, progress)
    samples = _keep_known(back(samples), measurement)
    seconds = time.perf_counter() - began

    return Restoration(
        samples=samples if len(measurement.y) > 1 else samples[0],
        measurement=measurement,
        sampler=sampler,
        noise_was_estimated=noise is None,
        seed=seed,
        network_evaluations=sampler.cost(task, n),
        diagnostics=diagnostics if len(measurement.y) > 1 else {name: d[0] for name, d in diagnostics.items()},
        seconds=seconds,
        _give=give,
    )


@dataclass(frozen=True, eq=False)
class Restoration:
    """Draws from p(x | y), float32 on the CPU, never clipped; `image` is what to look at.

    Attributes:
        samples: (n, C, H, W); (B, n, C, H, W) for B > 1 images.
        measurement: y, its operator and noise, as used.
        sampler: with its parameters, as used.
        noise_was_estimated: whether `measurement.noise` was estimated from y.
        seed: gives the same result again.
        network_evaluations: forward and backward passes of the network for each sample.
        diagnostics: what the sampler can tell about how well it went, such as the acceptance rate of a Markov chain:
            name -> one number per sample, (n,); (B, n) for B > 1 images.
        seconds: spent drawing all samples.
    """

    samples: Tensor
    measurement: Measurement
    sampler: Sampler
    noise_was_estimated: bool
    seed: int
    network_evaluations: int
    diagnostics: dict[str, Tensor]
    seconds: float
    _give: Callable[[Tensor], Any] = field(repr=False)

    @property
    def mean(self) -> Tensor:
        """Mean of the samples, the estimate of least squared error: (C, H, W), B first for several images."""
        return self.samples.mean(dim=-4)

    @property
    def std(self) -> Tensor:
        """Standard deviation of the samples, pixel by pixel, shaped like the mean; 0 for n = 1."""
        return self.samples.std(dim=-4, correction=min(1, self.samples.shape[-4] - 1))

    @property
    def image(self) -> Any:
        """The mean (for n = 1 the sample), clipped to [0, 1], in the kind and layout of the measurement given."""
        return self._give(self._batch(self.mean).clamp(0, 1))

    def __array__(self, dtype=None, copy=None):
        """`image` as an array, in its layout; the items of a list are stacked."""
        array = _as_array(self.image)
        return array if dtype is None else array.astype(dtype)

    def _repr_png_(self) -> bytes | None:
        if self.mean.shape[-3] not in (1, 3):
            return None
        buffer = io.BytesIO()
        images.to_pil(images.grid(self._batch(self.mean))).save(buffer, "PNG")
        return buffer.getvalue()

    def save(self, path: str | Path, *, overwrite: bool = False) -> list[Path]:
        """Write `image` to a file; several images to a folder, as 0.png, 1.png, …

        Raises:
            FileExistsError: something is there, and `overwrite` is False; nothing is written.
        """
        path = Path(path)
        image, means = self.image, self._batch(self.mean)
        given = image if isinstance(image, list) else [image] * len(means)
        targets = [path] if len(means) == 1 else [path / f"{i}.png" for i in range(len(means))]
        outputs = {target: _to_write(*each, target) for *each, target in zip(given, means, targets)}
        there = [str(p) for p in outputs if p.exists()]
        if there and not overwrite:
            raise FileExistsError(f"{', '.join(there)} exists; choose another path or pass overwrite=True.")
        for target, image in outputs.items():
            images.save(image, target)
        return list(outputs)

    def plot(self, samples: int = 3):
        """A matplotlib figure, a row per image: measurement, some samples, mean, standard deviation."""
        import matplotlib.pyplot as plt

        rows = self._batch(self.samples) if self.samples.dim() == 5 else self.samples[None]
        shown = min(samples, rows.shape[1])
        figure, axes = plt.subplots(
            len(rows), shown + 3, figsize=(2.4 * (shown + 3), 2.6 * len(rows)), squeeze=False, layout="constrained"
        )
        for row, draws, y in zip(axes, rows, self.measurement.y):
            deviation = draws.std(dim=0, correction=min(1, len(draws) - 1)).mean(0)
            # What is no picture is shown as its channels, one below the other.
            y = y if len(y) in (1, 3) else y.flatten(0, 1)[None]
            panels = {"measurement": y, **{f"sample {k}": draws[k] for k in range(shown)}, "mean": draws.mean(0)}
            for axis, (title, panel) in zip(row, panels.items()):
                axis.set_title(title)
                axis.imshow(panel.clamp(0, 1).movedim(0, -1).squeeze(-1).cpu().numpy(), cmap="gray", vmin=0, vmax=1)
            row[-1].set_title("standard deviation")
            figure.colorbar(row[-1].imshow(deviation.numpy(), cmap="magma", vmin=0), ax=row[-1], shrink=0.8)
            for axis in row:
                axis.set_axis_off()
        return figure

    def __str__(self) -> str:
        noise = torch.as_tensor(self.measurement.noise).flatten().tolist()
        level = ", ".join(f"{level:.4g}" for level in sorted(set(noise)))
        told = "".join(f"; {name} {float(figures.mean()):.3g}" for name, figures in self.diagnostics.items())
        return (
            f"{tuple(self.samples.shape)} samples by {self.sampler}; noise {level}"
            f"{' (estimated)' if self.noise_was_estimated else ''}; seed {self.seed}; "
            f"{self.network_evaluations} network evaluations a sample; {self.seconds:.1f} s{told}"
        )

    def _batch(self, x: Tensor) -> Tensor:
        return x if len(self.measurement.y) > 1 else x[None]


def pick_device(device: str | torch.device) -> torch.device:
    """The device of that name, "auto" for the fastest there is.

    Raises:
        ValueError: there is no such device here.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.zeros(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:  # AssertionError: a torch that was built without CUDA
        raise ValueError(f'device={device!r} cannot be used here ({error}); "auto" takes the best there is.') from None


def as_prior(prior: str | Path | Prior, device: str | torch.device, image_shape: tuple[int, int, int]) -> Prior:
    """The prior that `restore` takes for that argument, on that device."""
    if isinstance(prior, Prior):
        return prior if device == "auto" else prior.to(pick_device(device))
    if not isinstance(prior, str | Path):
        raise TypeError(f"prior is a name, a folder or a Prior, not {images.kind_of(prior)}.")
    folder = find_prior(prior, image_shape).resolve()
    # A folder that is trained again is replaced as a whole.
    return _loaded(folder, folder.stat().st_mtime_ns, pick_device(device))


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
    total = len(measurement.y) * sampler.chains(n) * sampler.calls
    with torch.no_grad(), _watched(prior, sampler.needs, total, progress) as prior:
        for rows in chunks:
            part = measurement.select(image[rows])
            part = Measurement(part.y.to(state), part.operator, _to(part.noise, device))
            # Image 0 is left to `prior.sample`, whose draws of the same seed are then no relatives of these.
            x, diagnostics = sampler.draw(prior, part, Noise(seed, image[rows] + 1, sample[rows]))
            if not torch.isfinite(x).all():
                raise FloatingPointError(
                    f"{sampler} diverged: its samples are not finite. Check noise={measurement.noise}, or try more "
                    "steps or another sampler."
                )
            draws.append(A.frame(x).float().cpu())
            told.append(diagnostics)
    figures = {name: torch.cat([each[name].float().cpu() for each in told]).unflatten(0, (-1, n)) for name in told[0]}
    return torch.cat(draws).unflatten(0, (-1, n)), figures


def _keep_known(samples: Tensor, measurement: Measurement) -> Tensor:
    """Without noise, what inpainting was given comes back as it was."""
    A = measurement.operator
    if not isinstance(A, Inpaint) or not bool((torch.as_tensor(measurement.noise) == 0).all()):
        return samples
    y = measurement.y.float().cpu()
    keep = A(torch.ones_like(y)).bool()
    return torch.where(keep[:, None], y[:, None], samples)


@contextlib.contextmanager
def _watched(prior: Prior, method: str, total: int, shown: bool) -> Iterator[Prior]:
    """The prior, with a bar that moves with every call of `method`."""
    with tqdm(total=total, desc="restore", disable=None if shown and total else True, leave=False) as bar:

        def call(*arguments: Any) -> Any:
            result = getattr(prior, method)(*arguments)
            bar.update(len(arguments[0]))
            return result

        watched = copy.copy(prior)  # shares its networks; the user's prior is left alone
        setattr(watched, method, call)
        yield watched


def state_of(prior: Prior) -> Tensor:
    """A tensor where the prior lives and in its precision, float32 at least, as operators need."""
    state = next((t for t in (*prior.parameters(), *prior.buffers()) if t.is_floating_point()), torch.empty(0))
    return torch.empty(0, dtype=torch.promote_types(state.dtype, torch.float32), device=state.device)


def _to(noise: float | Tensor, device: torch.device) -> float | Tensor:
    return noise.to(device) if isinstance(noise, Tensor) else noise


def _as_array(image: Any) -> np.ndarray:
    if isinstance(image, list):
        return np.stack([_as_array(item) for item in image])
    return image.cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)


def _to_write(image: Any, mean: Tensor, path: Path) -> Tensor | Image.Image:
    """The mean, or for what has more than 8 bits of it, alpha or a colour profile, the PIL image that has them."""
    if isinstance(image, np.ndarray) and image.dtype == np.uint16 and image.ndim == 2:
        return Image.fromarray(image) if path.suffix.lower() in (".png", ".tif", ".tiff") else mean
    return image if isinstance(image, Image.Image) else mean
