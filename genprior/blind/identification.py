"""The result of `identify`: the posterior of an operator's parameters and of the noise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from genprior.blind.cells import Cells
from genprior.blind.parameters import Parameter
from genprior.measuring import stacked
from genprior.noise import Noise
from genprior.operators.base import Operator
from genprior.operators.blur import Blur
from genprior.operators.build import for_measurement
from genprior.operators.measurement import Measurement

UNITS = {"length": " px", "width": " px", "angle": " degrees"}
FINE = 4001  # points of a cumulative distribution
ROUNDING = 1e-9  # of sums of probabilities
NEGLIGIBLE = 1e-6  # the share of a posterior that its cumulative distribution leaves out


@dataclass(frozen=True, eq=False)
class Identification:
    """p(theta, noise | y) for the parameters of an operator that were left out, and for the noise if it was.

    The posterior is computed on cells of theta, not by chains: there are no starts that could disagree, and no R-hat.

    Attributes:
        op: the operator's name.
        known: the operator's parameters that were given.
        unknown: those that were not, with what was known about them.
        measurement_shape: (C, h, w) of y.
        cells: the posterior, with `cells.log_likelihood` (n, L), the map of ln p(y | theta, noise) at
            `cells.centres` (n, d) and `cells.noise` (L,).
        noise_was_known: whether the noise was given.
        draws: name -> (n,) draws from the posterior, including "noise"; equal indices make one joint draw.
    """

    op: str
    known: dict[str, Any]
    unknown: tuple[Parameter, ...]
    measurement_shape: tuple[int, int, int]
    cells: Cells
    noise_was_known: bool
    draws: dict[str, Tensor] = field(repr=False)

    @property
    def parameters(self) -> dict[str, float]:
        """The posterior mean by name, "noise" last; for angles, which are circular, the mean direction in degrees."""
        return {name: self._marginal(name).mean() for name in self._names}

    @property
    def std(self) -> dict[str, float]:
        """The posterior standard deviation by name, about the mean; for an angle that y leaves open, 52 degrees."""
        return {name: self._marginal(name).std() for name in self._names}

    def interval(self, level: float = 0.9) -> dict[str, tuple[float, float]]:
        """The shortest interval, by name, that holds the share `level` of the posterior.

        Where there is one mode, it is the interval of highest density. Intervals of angles may end beyond 180:
        (176, 183) runs from 176 over 0 to 3 degrees.

        Raises:
            ValueError: the level is not in (0, 1).
        """
        if not 0 < level < 1:
            raise ValueError(f"level, the probability of the interval, is between 0 and 1; got {level!r}.")
        return {name: self._marginal(name).shortest(level) for name in self._names}

    @property
    def noise(self) -> float:
        """The posterior mean of the noise, or the given noise."""
        return self.parameters["noise"]

    @property
    def found(self) -> dict[str, float]:
        """The posterior mean of each parameter that was left out, by name."""
        means = self.parameters
        return {each.name: means[each.name] for each in self.unknown}

    @property
    def operator(self) -> Operator:
        """The operator with the posterior means of the parameters that were left out."""
        return for_measurement(self.op, self.measurement_shape, **self.known, **self.found)

    def copies(self, y: Tensor, n: int) -> Measurement:
        """n copies of y (1, C, h, w), as measured by the first n draws of the blur, with their noise."""
        drawn = [{each.name: float(self.draws[each.name][k]) for each in self.unknown} for k in range(n)]
        blurs = [for_measurement(self.op, self.measurement_shape, **self.known, **found) for found in drawn]
        assert all(isinstance(blur, Blur) for blur in blurs)
        kernels = stacked([blur.kernel[0] for blur in blurs])  # pyright: ignore[reportAttributeAccessIssue]
        A = Blur.for_measurement(kernels, self.measurement_shape, self.known.get("boundary", "valid"))
        noise = self.draws["noise"][:n].to(y).reshape(-1, 1, 1, 1)
        return Measurement(y.expand(n, -1, -1, -1), A, noise)

    @property
    def _names(self) -> list[str]:
        return [*(each.name for each in self.unknown), "noise"]

    def _marginal(self, name: str) -> Marginal:
        p = self.cells.probabilities
        if name == "noise":
            levels = self.cells.noise
            edges = torch.cat([levels[:1], (levels[1:] * levels[:-1]).sqrt(), levels[-1:]])
            return Marginal(edges[:-1], edges[1:], p.sum(0))
        k = [each.name for each in self.unknown].index(name)
        return Marginal(self.cells.low[:, k], self.cells.high[:, k], p.sum(1), self.unknown[k].period)

    @property
    def summary(self) -> dict[str, Any]:
        """For JSON: the operator, what was given, and the mean, deviation and 90 % interval of what was not."""
        mean, std, interval = self.parameters, self.std, self.interval()
        return {
            "op": self.op,
            "known": self.known | ({"noise": mean["noise"]} if self.noise_was_known else {}),
            "identified": {
                name: {"mean": mean[name], "std": std[name], "interval": list(interval[name])} for name in self._told
            },
        }

    @property
    def in_words(self) -> str:
        """What was identified, in one line."""
        mean, std = self.parameters, self.std
        found = (f"{each.name} {mean[each.name]:.3g} ± {std[each.name]:.2g}" for each in self.unknown)
        return f"identified {', '.join(found)}"

    def __str__(self) -> str:
        lines = [self.op]
        for name, told in self.summary["identified"].items():
            low, high = told["interval"]
            within = f"90 % in [{low:.4g}, {high:.4g}]"
            lines.append(f"  {name:9} {told['mean']:.4g} ± {told['std']:.2g}{UNITS.get(name, '')}, {within}")
        return "\n".join([*lines, *(f"  {name:9} {value}, as given" for name, value in self.summary["known"].items())])

    @property
    def _told(self) -> list[str]:
        """The names of what was not given."""
        return self._names[: -1 if self.noise_was_known else None]

    def plot(self):
        """A matplotlib figure: the posterior density of each number, and the joint density of two parameters."""
        import matplotlib.pyplot as plt

        names = self._told
        both = len(self.unknown) == 2
        figure, axes = plt.subplots(
            1, len(names) + both, figsize=(3.4 * (len(names) + both), 2.8), squeeze=False, layout="constrained"
        )
        for axis, name in zip(axes[0], names):
            values, density = self._marginal(name).density()
            axis.fill_between(values.numpy(), density.numpy(), alpha=0.4)
            axis.axvline(self.parameters[name])
            low, high = self._marginal(name).shortest(0.999)
            margin = (high - low) / 4
            axis.set(xlabel=name, yticks=[], ylim=(0, None), xlim=(low - margin, high + margin))
        if both:
            from matplotlib.collections import PatchCollection
            from matplotlib.patches import Rectangle

            axis, (low, high) = axes[0, -1], (self.cells.low, self.cells.high)
            density = self.cells.probabilities.sum(1) / (high - low).prod(1)
            sides = zip(low.tolist(), (high - low).tolist())
            boxes = PatchCollection([Rectangle(corner, *side) for corner, side in sides], cmap="magma")
            boxes.set_array((density / density.max()).clamp_min(1e-6).log().numpy())
            axis.add_collection(boxes)
            axis.set(xlim=(low[:, 0].min(), high[:, 0].max()), ylim=(low[:, 1].min(), high[:, 1].max()))
            axis.set(xlabel=self.unknown[0].name, ylabel=self.unknown[1].name)
            figure.colorbar(boxes, ax=axis, label="log density")
        return figure


@dataclass(frozen=True, eq=False)
class Marginal:
    """The law of one number, uniform within intervals, which may overlap.

    Attributes:
        low, high: their ends, (n,).
        p: their probabilities, (n,).
        period: of a number on a circle; else None.
    """

    low: Tensor
    high: Tensor
    p: Tensor
    period: float | None = None

    def mean(self) -> float:
        centre = (self.low + self.high) / 2
        if self.period is None:
            mean = (self.p * centre).sum()
            return float(mean.clamp(self.low.min(), self.high.max()))  # a known number is itself, to the last bit
        turn = 2 * torch.pi / self.period
        direction = torch.atan2((self.p * (turn * centre).sin()).sum(), (self.p * (turn * centre).cos()).sum())
        return float(direction / turn) % self.period

    def std(self) -> float:
        away, side = (self.low + self.high) / 2 - self.mean(), self.high - self.low
        if self.period is not None:
            away = (away + self.period / 2) % self.period - self.period / 2
        return float((self.p * (away**2 + side**2 / 12)).sum().sqrt())

    def shortest(self, level: float) -> tuple[float, float]:
        """The shortest interval of that probability; on a circle it may begin anywhere."""
        if (self.low == self.high).all():
            return float(self.low.min()), float(self.high.max())
        x, below = self._cumulative(turns=1 if self.period is None else 2)
        end = torch.searchsorted(below, (below + level - ROUNDING).contiguous())
        fits = end < len(x)
        length = torch.where(fits, x[end.clamp_max(len(x) - 1)] - x, torch.inf)
        begin = int(length.argmin())
        low, high = float(x[begin]), float(x[end[begin]])
        turns = 0.0 if self.period is None else self.period * ((low + high) / 2 // self.period)
        return low - turns, high - turns

    def density(self) -> tuple[Tensor, Tensor]:
        """Values, and the density there."""
        x, below = self._cumulative(turns=1)
        return (x[1:] + x[:-1]) / 2, below.diff() / x.diff()

    def _cumulative(self, turns: int) -> tuple[Tensor, Tensor]:
        """Points x, and the probability below each; on a circle, `turns` times around."""
        x = torch.linspace(float(self.low.min()), float(self.high.max()), FINE, dtype=torch.float64)
        heavy = self.p > NEGLIGIBLE / len(self.p)
        low, high, p = self.low[heavy, None], self.high[heavy, None], self.p[heavy] / self.p[heavy].sum()
        below = p @ ((x - low) / (high - low)).clamp(0, 1)
        if turns == 2:
            assert self.period is not None
            x, below = torch.cat([x, x[1:] + self.period]), torch.cat([below, below[1:] + 1])
        return x, below


def drawn(cells: Cells, unknown: tuple[Parameter, ...], n: int, seed: int) -> dict[str, Tensor]:
    """n draws of the numbers by name: a random cell and noise level, then theta uniform in the cell."""
    u = Noise.of_draws(n, seed).uniform(torch.zeros(n, 1 + len(unknown), dtype=torch.float64))
    p = cells.probabilities.flatten()
    at = torch.searchsorted(p.cumsum(0), u[:, 0].contiguous()).clamp_max(len(p) - 1)
    cell, level = at // len(cells.noise), at % len(cells.noise)
    theta = cells.low[cell] + u[:, 1:] * (cells.high - cells.low)[cell]
    found = {each.name: values for each, values in zip(unknown, theta.T)}
    return {**found, "noise": cells.noise[level]}
