"""The truth suites by name, and their results as Markdown, CSV and a figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genprior.bits import dequantize
from genprior.files import replacing, write_text
from genprior.noise import Noise
from genprior.priors.store import bundled, load_prior
from genprior.registry import lookup
from genprior.samplers import SAMPLERS
from genprior.samplers.base import Sampler
from genprior.table import Estimate, Table
from genprior.training.data import Arrays, first
from genprior.truth import gaussian as truth
from genprior.truth import referee, supported
from genprior.truth.calibration import calibrate
from genprior.truth.mixture import mixture_suite, problem

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMED: dict[str, Callable[[], Sampler]] = {**SAMPLERS, **{name: lambda s=s: s for name, s in truth.CONVERGED.items()}}
# Settings of the quick form, where defaults take minutes: just enough work to show whether a sampler is broken.
QUICK: dict[str, dict[str, Any]] = {
    "tds-moments": {"steps": 10, "particles": 50},
    "csgm": {"steps": 100, "restarts": 2},
    "latent": {"steps": 4, "anneal": 12, "burn_in": 4, "leapfrog": 4},
    "fisher-hmc": {"steps": 4, "descend": 40, "burn_in": 8, "probes": 4, "leapfrog": 4},
}


@dataclass(frozen=True)
class Options:
    """The options of a run of the suites.

    Attributes:
        quick: fewer problems and draws, and `QUICK` for the samplers in it: minutes for all suites.
        seed: of the draws; the mixture suite has its own.
        data: .npz file with `train_images`, the last of which are the flow suite's truths; None for its own draws.
    """

    quick: bool = False
    seed: int = 0
    data: Path | None = None


@dataclass(frozen=True)
class Panel:
    """A part of a suite's figure.

    Attributes:
        columns: of the table; empty for all that hold figures.
        ideal: the value of an exact sampler.
        scale: "linear", "log" or "symlog".
    """

    columns: tuple[str, ...] = ()
    ideal: float | None = None
    scale: str = "linear"


@dataclass(frozen=True)
class Suite:
    """A table computed on demand.

    Attributes:
        heading: of the table.
        run: computes the table.
        samplers: names of the samplers it judges; empty if it needs none.
        quick: their names in the quick form.
        label: column whose values the figure names.
        panels: of the figure; empty for no figure.
    """

    heading: str
    run: Callable[[Mapping[str, Sampler], Options], Table]
    samplers: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()
    label: str = "sampler"
    panels: tuple[Panel, ...] = ()


@dataclass(frozen=True)
class Report:
    """The result of a suite.

    Attributes:
        name: of the suite.
        table: its results.
        samplers: with their parameters.
        options: of the run.
    """

    name: str
    table: Table
    samplers: Mapping[str, Sampler]
    options: Options

    def markdown(self) -> str:
        """Heading, the command that reproduces it, the table, and the samplers with their parameters."""
        suite, options = SUITES[self.name], self.options
        command = ["genprior evaluate truth --suite", self.name]
        command += ["--samplers", ",".join(self.samplers)] if self.samplers else []
        command += ["--quick"] * options.quick + ["--seed", str(options.seed)]
        command += ["--data", options.data.name] if options.data else []
        settings = "".join(f"- `{name}`: `{sampler}`\n" for name, sampler in self.samplers.items())
        defaults = ['Samplers are at their defaults, except for the column "settings".', ""]
        lines = [f"## {suite.heading}", "", f"`{' '.join(command)}`", "", self.table.markdown()]
        return "\n".join([*lines, *(defaults if "settings" in self.table.columns else []), settings])

    def save(self, folder: Path) -> list[Path]:
        """Write NAME.md, NAME.csv and, if the suite has panels, NAME.png."""
        paths = [folder / f"{self.name}.{suffix}" for suffix in ("md", "csv", "png")]
        write_text(paths[0], self.markdown())
        write_text(paths[1], self.table.csv())
        suite = SUITES[self.name]
        if not suite.panels:
            return paths[:2]
        with replacing(paths[2]) as file:
            plot(self.table, suite.label, suite.panels).savefig(file, dpi=120, format="png")
        return paths


def run(name: str, samplers: Sequence[str] = (), options: Options = Options()) -> Report:
    """Run one of `SUITES`.

    Arguments:
        name: of the suite.
        samplers: names of those to judge; empty for the suite's own.
        options: of the run.

    Raises:
        ValueError: there is no such suite or sampler.
    """
    suite = lookup("suite", name, SUITES)
    names = samplers or (suite.quick if options.quick else suite.samplers)
    chosen = {each: _sampler(each, options.quick) for each in names} if suite.samplers else {}
    table = suite.run(chosen, options)
    return Report(name, _told(table, suite.label) if options.quick else table, chosen, options)


def plot(table: Table, label: str, panels: Sequence[Panel]) -> Figure:
    """Plot dots with error bars, a row for each value of `label`, and a vertical line at the ideal."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row[label] for row in table.rows))
    groups = {name: [row for row in table.rows if row[label] == name] for name in names}
    figure = Figure(figsize=(3.2 * len(panels) + 1.6, 0.32 * len(names) + 1.4), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, panel in zip(axes, panels):
        columns = panel.columns or [c for c in table.columns if any(isinstance(r.get(c), Estimate) for r in table.rows)]
        for k, column in enumerate(columns):
            # The table's rows of one label side by side, and the columns within each.
            dots = [
                (place + 0.7 * ((i + (k + 0.5) / len(columns)) / len(rows) - 0.5), cell)
                for place, rows in enumerate(groups.values())
                for i, row in enumerate(rows)
                if isinstance(cell := row.get(column), Estimate)
            ]
            axis.errorbar(
                [cell.value for _, cell in dots],
                [y for y, _ in dots],
                xerr=[cell.error or 0 for _, cell in dots],
                fmt="o",
                markersize=2.5,
                elinewidth=0.8,
                color=f"C{k}",
                label=column,
            )
        if panel.ideal is not None:
            axis.axvline(panel.ideal, color="black", linewidth=0.8)
        axis.set_xscale(panel.scale, **({"linthresh": 0.1} if panel.scale == "symlog" else {}))
        if panel.ideal == 0:
            axis.set_xlim(left=-0.02)
        axis.grid(axis="y", alpha=0.3)
        axis.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    return figure


def _told(table: Table, label: str) -> Table:
    """The table, with a column "settings" for samplers run below their defaults, if there are any."""

    def settings(row: dict[str, Any]) -> str | None:
        changed = {key: value for key, value in QUICK.get(row[label], {}).items() if key not in row}
        return ", ".join(f"{key}={value}" for key, value in changed.items()) or None

    rows = [{label: row[label], "settings": settings(row), **row} for row in table.rows]
    return Table(rows) if any(row["settings"] for row in rows) else table


def _sampler(name: str, quick: bool) -> Sampler:
    sampler = lookup("sampler", name, NAMED)()
    return replace(sampler, **QUICK.get(name, {})) if quick else sampler


def _mixture(samplers: Mapping[str, Sampler], options: Options) -> Table:
    few = {"steps": (20,), "cells": ((8, 1), (8, 4), (80, 4)), "seeds": 3, "draws": 500}
    prior, one = problem(8, 4, 0)
    taken = {name: s for name, s in samplers.items() if s.lacks(prior, one.operator) is None}
    return mixture_suite(taken, **(few if options.quick else {}))


def _flow(samplers: Mapping[str, Sampler], options: Options) -> Table:
    effort = referee.QUICK if options.quick else referee.FULL
    truths = None
    if options.data:
        digits = Arrays(options.data, "train_images", keep=slice(-effort.truths, None), seed=None)
        x = first(digits, effort.truths)
        truths = dequantize(x, Noise(options.seed, range(len(x))))
    return referee.flow_suite(samplers, load_prior("nf-mnist"), truths=truths, effort=effort, seed=options.seed)


def _calibration(samplers: Mapping[str, Sampler], options: Options) -> Table:
    images, draws = (40, 19) if options.quick else (200, 199)
    operator = truth.operators()["inpaint"]
    rows = []
    for name, sampler in samplers.items():
        for prior_name, make in truth.PRIORS.items():
            if sampler.lacks(make(), operator) is None:
                found = calibrate(make(), sampler, operator, 0.1, images, draws, options.seed)
                rows.append({"sampler": name, "prior": prior_name, **found.figures})
    return Table(rows)


# Without those that take as long as all the others together.
_ON_GAUSSIANS = tuple(
    name
    for name, sampler in SAMPLERS.items()
    if sampler.takes(truth.independent()) and name not in ("csgm", "tds-moments")
)
_PARTS = tuple((f"{what}, seen", f"{what}, unseen") for what in ("error", "ratio"))

SUITES: dict[str, Suite] = {
    "gaussian": Suite(
        "Gaussian posteriors",
        lambda samplers, options: truth.gaussian_suite(samplers, quick=options.quick, seed=options.seed),
        ("mmps-converged", "hmc-long", "tds-long", *_ON_GAUSSIANS),
        ("exact", "mmps-converged", "hmc-long", *(n for n in _ON_GAUSSIANS if SAMPLERS[n].needs == "denoise")),
        panels=(
            Panel(_PARTS[0], 0, "symlog"),
            Panel(_PARTS[1], 1, "log"),
            Panel(("covariance error", "blind covariance error"), 0, "symlog"),
        ),
    ),
    "mixture": Suite(
        "The mixture of 25 Gaussians, steps as in the table",
        _mixture,
        ("dps", "ddrm", "pigdm", "mmps", "mcgdiff", "tds", "tds-moments", "smc"),
        ("dps", "ddrm", "mmps", "mcgdiff"),
        label="method",
        panels=(Panel((), None, "log"),),
    ),
    "flow": Suite(
        "Digits of a normalizing flow",
        _flow,
        ("latent", "fisher-hmc", "csgm", "mala", "map"),
        ("latent", "fisher-hmc"),
        panels=(
            Panel(("error",), 0, "symlog"),
            Panel(("ratio",), 1, "symlog"),
            Panel(("sliced Wasserstein", "its floor"), None, "log"),
        ),
    ),
    "calibration": Suite(
        "Calibration on Gaussian priors, half of the pixels missing, noise 0.1",
        _calibration,
        ("exact", "mmps", "pigdm", "tmpd", "daps", "gibbs", "ddrm", "ddnm", "diffpir", "repaint", "dps", "smc"),
        ("exact", "mmps", "ddrm", "diffpir"),
        panels=(
            *(Panel((f"coverage {level:.0%}",), level) for level in (0.5, 0.9, 0.99)),
            Panel(("spread-error correlation",)),
            Panel(("SBC p", "TARP p"), None, "log"),
        ),
    ),
    "supported": Suite(
        "What goes together", lambda *_: supported.table({name: load_prior(name) for name in bundled()})
    ),
}
