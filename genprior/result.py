"""The result of `restore`: samples, their statistics, images and files."""

from __future__ import annotations

import io
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from genprior import images, record
from genprior.blind.identification import Identification
from genprior.checks import UnsupportedError
from genprior.files import refuse_existing, replacing
from genprior.operators.linear import LinearOperator
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.samplers.base import Sampler


@dataclass(frozen=True, eq=False)
class Restoration:
    """Draws from p(x | y) and an estimate of its mean; `image` is the one to look at.

    Both are float32 on the CPU, never clipped. A result can be pickled, copied and sent between processes. Its networks
    stay behind: `prior` is then None, but `save` still writes what they were.

    Attributes:
        measurement: y, its operator and noise, as used.
        sampler: of the samples, with its parameters, as used; None if there are none.
        estimator: of the picture, with its parameters, as used; None if the picture is made of the samples.
        prior: as used, without the label; None in a copied or pickled result.
        prior_name: its name, that of the bundled prior for a family, or its folder; None for a prior given as an
            object.
        label: the class that was given, its number or name, or None.
        tile: side in pixels of the tiles in which the network saw the image, None if it saw it whole; see `restore`.
        identification: the posterior of the parameters that were left out, if any, else None; the picture is then that
            of `measurement.operator`, at the posterior mean, and sample k is that of draw k.
        noise_was_estimated: whether `measurement.noise` was estimated from y.
        seed: reproduces the result.
        network_evaluations: forward and backward passes of the network per image, for all its samples and its picture.
        diagnostics: how well it went: name -> one number per sample, (n,), or (1,) for the picture if there are no
            samples; (B, n) for B > 1 images. "residual" is the root mean square of (y - A x) / noise, near 1 if
            operator and noise are right, before known pixels are put back; "excess" is the root mean square distance
            of values beyond 2.5 spreads of the prior, in spreads; see `plausible`. Samplers add their own, such as the
            acceptance rate.
        seconds: spent on all samples and the picture.
    """

    measurement: Measurement
    sampler: Sampler | None
    estimator: Sampler | None
    prior: Prior | None
    prior_name: str | None
    label: int | str | None
    tile: int | None
    identification: Identification | None
    noise_was_estimated: bool
    seed: int
    network_evaluations: int
    diagnostics: dict[str, Tensor]
    seconds: float
    _samples: Tensor | None = field(repr=False)
    _picture: Tensor | None = field(repr=False)
    _give: Callable[[Tensor], Any] = field(repr=False)
    _prior_record: dict[str, Any] | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "prior": None, "_prior_record": self._record_of_prior()}

    def _record_of_prior(self) -> dict[str, Any]:
        return self._prior_record or {} if self.prior is None else record.of_prior(self.prior)

    @property
    def samples(self) -> Tensor:
        """Draws from p(x | y), (n, C, H, W); (B, n, C, H, W) for B > 1 images.

        Raises:
            UnsupportedError: `restore` drew none.
        """
        if self._samples is None:
            raise UnsupportedError(
                f"This result has a picture only, an estimate of the mean by {self.estimator}, and no draws, which "
                "samples, std, quantile and interval need: pass n, as in restore(…, n=8)."
            )
        return self._samples

    @property
    def mean(self) -> Tensor:
        """The estimate of E[x | y], with the least expected squared error: (C, H, W), B first for several images.

        If `restore` chose the method, the mean does not depend on n: a separate method, `estimator`, computes it. For
        "denoise", and for priors in closed form, it is E[x | y] itself. Otherwise it is the mean of the samples, which
        for n exact draws has 1 + 1/n times the squared error of E[x | y].
        """
        if self._picture is not None:
            return self._picture
        # in float64, where the mean of equal values is that value
        return self.samples.mean(dim=-4, dtype=torch.float64).float()

    @property
    def best(self) -> Tensor:
        """The sample that fits y best, by the "residual" of `diagnostics`, shaped like the mean."""
        residual = self.diagnostics["residual"]
        if residual.ndim == 1:
            return self.samples[residual.argmin()]
        return self.samples[torch.arange(len(residual)), residual.argmin(dim=1)]

    @property
    def picture(self) -> Tensor:
        """What `image` shows, shaped like the mean: the mean, or `best` if the operator is not linear.

        The mean of a posterior with several modes may lie in none of them. The best sample is not a draw from the
        posterior, because it also fits the noise better than other samples do.
        """
        return self.mean if isinstance(self.measurement.operator, LinearOperator) else self.best

    @property
    def n(self) -> int:
        """The number of samples of each image."""
        return 0 if self._samples is None else self._samples.shape[-4]

    @property
    def methods(self) -> dict[str, Any]:
        """The methods that drew the samples and estimated the picture, with their parameters, for JSON."""
        given = {"sampler": self.sampler, "estimator": self.estimator}
        return {role: None if method is None else record.of_sampler(method) for role, method in given.items()}

    @property
    def std(self) -> Tensor:
        """Standard deviation of the samples, pixel by pixel, shaped like the mean; 0 for n = 1."""
        return self.samples.std(dim=-4, correction=min(1, self.samples.shape[-4] - 1))

    def quantile(self, q: float | Sequence[float]) -> Tensor:
        """The q-quantile, pixel by pixel, shaped like the mean; for several q, stacked along a first axis.

        The k-th smallest of n samples is their k / (n + 1) quantile, with linear interpolation between them: if the
        samples are draws from the posterior, the true value of a pixel lies below it with probability q. q outside
        [1 / (n + 1), n / (n + 1)] gives the smallest or the largest sample.

        Raises:
            ValueError: q is not in [0, 1].
        """
        levels = np.asarray(q, dtype=float)
        if levels.ndim > 1 or not ((levels >= 0) & (levels <= 1)).all():
            raise ValueError(f"q, the share of the posterior that lies below, is in [0, 1], or several; got {q!r}.")
        return torch.from_numpy(np.quantile(self.samples.numpy(), levels, axis=-4, method="weibull")).float()

    def interval(self, coverage: float = 0.9) -> tuple[Tensor, Tensor]:
        """Lower and upper ends, pixel by pixel, of an interval containing the truth with that probability.

        Both are shaped like the mean. This needs (1 + coverage) / (1 - coverage) samples, 19 for 0.9. Fewer samples
        give the narrower interval from the smallest to the largest, which contains the truth with probability
        (n - 1) / (n + 1).

        Raises:
            ValueError: the coverage is not in (0, 1).
        """
        if not 0 < coverage < 1:
            raise ValueError(f"coverage, the probability of the interval, is between 0 and 1; got {coverage!r}.")
        low, high = self.quantile([(1 - coverage) / 2, (1 + coverage) / 2])
        return low, high

    @property
    def image(self) -> Any:
        """The picture, clipped to [0, 1], in the kind and layout of the input."""
        return self.like(self.picture)

    def like(self, x: Tensor) -> Any:
        """x, shaped like the mean, clipped to [0, 1], in the kind and layout of the input."""
        return self._give(self._batch(x).clamp(0, 1))

    def __array__(self, dtype=None, copy=None):
        """`image` as an array, in its layout; the items of a list are stacked."""
        array = _as_array(self.image)
        return array if dtype is None else array.astype(dtype)

    def _repr_png_(self) -> bytes | None:
        if self.picture.shape[-3] not in (1, 3):
            return None
        buffer = io.BytesIO()
        images.to_pil(images.grid(self._batch(self.picture))).save(buffer, "PNG")
        return buffer.getvalue()

    def save(self, path: str | Path, *, overwrite: bool = False) -> list[Path]:
        """Write `image` to a file; several images to a folder, as 0.png, 1.png, …

        A path that ends in .npz gets everything about all images, and what is needed to repeat the run, for `np.load`:
        `samples` and `std`, if there are any, `mean`, `y` and `noise` as in the attributes, `noise.PARAMETER` for a
        likelihood; the arrays of the operator, such as `operator.mask` or `operator.kernel`; `diagnostics.NAME`; and
        `run`, a JSON text: the versions, prior (name, label, hash of its weights), operator, noise, both methods and
        their parameters, n, tile and seed.

        Raises:
            FileExistsError: the path exists, and `overwrite` is False; nothing is written.
        """
        path = Path(path)
        if path.suffix.lower() == ".npz":
            refuse_existing([path], overwrite)
            with replacing(path) as file:
                np.savez(file, **self._arrays())  # pyright: ignore[reportArgumentType]
            return [path]
        image, pictures = self.image, self._batch(self.picture)
        each = isinstance(image, list) or (isinstance(image, np.ndarray) and len(pictures) > 1)
        given = image if each else [image] * len(pictures)
        targets = [path] if len(pictures) == 1 else [path / f"{i}.png" for i in range(len(pictures))]
        outputs = {target: images.writable(*each) for *each, target in zip(given, pictures, targets)}
        refuse_existing(list(outputs), overwrite)
        for target, image in outputs.items():
            images.save(image, target)
        return list(outputs)

    def _arrays(self) -> dict[str, np.ndarray]:
        operator, arrays = record.of_operator(self.measurement.operator)
        noise, levels = record.of_noise(self.measurement.noise)
        run = {
            "versions": {**record.versions("torch", "numpy"), "python": platform.python_version()},
            "prior": {"name": self.prior_name, "label": self.label, **self._record_of_prior()},
            "operator": operator,
            **self.methods,
            "n": self.n,
            "tile": self.tile,
            "seed": self.seed,
            "noise": noise,
            "identified": None if self.identification is None else self.identification.summary,
            "noise_was_estimated": self.noise_was_estimated,
            "network_evaluations": self.network_evaluations,
            "seconds": self.seconds,
        }
        drawn = {} if self._samples is None else {"samples": self.samples, "std": self.std}
        tensors = {
            **drawn,
            "mean": self.mean,
            "y": self.measurement.y,
            **{f"diagnostics.{name}": figures for name, figures in self.diagnostics.items()},
        }
        return {
            **{name: tensor.cpu().numpy() for name, tensor in tensors.items()},
            **{f"operator.{name}": array for name, array in arrays.items()},
            **levels,
            "run": np.array(json.dumps(run, default=str)),
        }

    def plot(self, samples: int = 3):
        """A matplotlib figure, a row per image: measurement, mean, some samples and their standard deviation."""
        import matplotlib.pyplot as plt

        # A measurement that is not a picture is shown as its channels, one below the other.
        y = [y if len(y) in (1, 3) else y.flatten(0, 1)[None] for y in self.measurement.picture]
        what = "mean" if isinstance(self.measurement.operator, LinearOperator) else "best"
        panels = {"measurement": y, what: self._batch(self.picture)}
        for k in range(min(samples, self.n)):
            panels[f"sample {k}"] = self._batch(self.samples[..., k, :, :, :])
        columns = len(panels) + (self.n > 0)
        figure, axes = plt.subplots(
            len(y), columns, figsize=(2.4 * columns, 2.6 * len(y)), squeeze=False, layout="constrained"
        )
        for i, row in enumerate(axes):
            for axis, (title, panel) in zip(row, panels.items()):
                axis.set_title(title)
                pixels = rearrange(panel[i].clamp(0, 1), "c h w -> h w c").squeeze(-1)
                axis.imshow(pixels.cpu().numpy(), cmap="gray", vmin=0, vmax=1)
            if self.n:
                row[-1].set_title("standard deviation")
                deviation = self._batch(self.std)[i].mean(0).numpy()
                figure.colorbar(row[-1].imshow(deviation, cmap="magma", vmin=0), ax=row[-1], shrink=0.8)
            for axis in row:
                axis.set_axis_off()
        return figure

    def __str__(self) -> str:
        told = "".join(f"; {name} {float(figures.mean()):.3g}" for name, figures in self.diagnostics.items())
        size = " x ".join(map(str, self.mean.shape))
        if self.estimator is not None:
            picture = f"an estimate of E[x | y] by {self.estimator}"
        elif isinstance(self.measurement.operator, LinearOperator):
            picture = "the mean of the draws"
        else:
            picture = "the draw that fits y best"
        draws = f"{self.n} draws from p(x | y) by {self.sampler}" if self.n else "no draws (n=8 gives some)"
        noise = record.noise_in_words(self.measurement.noise) + " (estimated)" * self.noise_was_estimated
        found = "" if self.identification is None else f"{self.identification.in_words}; "
        return (
            f"picture {size}: {picture}; {draws}; {found}noise {noise}; "
            f"seed {self.seed}; {self.network_evaluations} network evaluations; {self.seconds:.1f} s{told}"
        )

    def _batch(self, x: Tensor) -> Tensor:
        return x if len(self.measurement.y) > 1 else x[None]


def _as_array(image: Any) -> np.ndarray:
    if isinstance(image, list):
        return np.stack([_as_array(item) for item in image])
    return image.cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
