"""Photographs restored side by side: our samplers, those of deepinv and azula with the same network, classical methods.

    python recipes/benchmarks/restoration.py --data CBSD68 SET14 --budget 20 100 --out restoration.csv
    python recipes/benchmarks/restoration.py --data CBSD68 SET14 --budget 1000 --crops 2 --out restoration.csv

Crops of 128 x 128, five tasks, noise 0.025 on [0, 1], circular blurs. Every method gets the same measurement, its noise
level, and the same number of network evaluations; a forward or backward pass counts one. Needs `pip install azula`.

Every result becomes a line of the CSV file at once: an interrupted run resumes. Lines of other weights, measurements
(identified by a fingerprint of y) or numbers of samples are left alone, and not in the table. A cell: PSNR in dB of one
sample / of the mean of the samples ± standard error over crops (SSIM of the mean); – where the method does not apply to
the task. Methods called oracles are tuned on the truth, which is not available in practice.

With --n 32 a second table says how close the samples are to draws of p(x | y): coverage of their central 50 % and 90 %
intervals; their variance over 1 / (1 + 1/n) of the squared error of their mean, 1 for draws; CRPS in thousandths.
"""

import argparse
import csv
import math
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import torch
from common import counted, crops, machine
from peers import METHODS, TooFew

import genprior
from genprior.benchmark.baselines import BASELINES
from genprior.checks import UnsupportedError
from genprior.files import sha256
from genprior.operators import Inpaint, Measurement
from genprior.priors.folder import read_card
from genprior.priors.store import find_prior
from genprior.scores.metrics import psnr, ssim
from genprior.scores.uncertainty import coverage, crps
from genprior.table import Estimate, Table

LEAST = 19  # samples that a 90 % interval needs
FIGURES = ("psnr_sample", "ssim_sample", "psnr_mean", "ssim_mean")
SPREAD = ("coverage_50", "coverage_90", "variance", "squared_error", "crps")
KEY = ("weights", "measurement", "samples", "crop", "task", "method", "budget")
COLUMNS = (*KEY, "evaluations", *FIGURES, *SPREAD, "seconds", "note")
TASKS = {
    "70 % missing": lambda k, side: ("inpaint", {"mask": "random", "fraction": 0.7}),
    "box": lambda k, side: ("inpaint", {"mask": "box", "size": 3 * side // 8}),
    "super-resolution x4": lambda k, side: ("super-resolution", {"scale": 4}),
    "Gaussian blur 1.5 - 2": lambda k, side: ("gaussian-deblur", {"width": 1.5 + k / 18, "boundary": "circular"}),
    "motion blur 15": lambda k, side: ("motion-deblur", {"length": 15, "angle": 18.0 * k, "boundary": "circular"}),
}
Row = dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", type=Path, required=True, help="folders of photographs")
    parser.add_argument("--out", type=Path, default=Path("restoration.csv"))
    parser.add_argument("--budget", nargs="+", type=int, default=[20, 100], help="evaluations of the network")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, *BASELINES], default=[*METHODS, *BASELINES])
    parser.add_argument("--crops", type=int, default=10)
    parser.add_argument("--each", type=int, default=5, help="crops of every folder")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--noise", type=float, default=0.025)
    parser.add_argument("--n", type=int, default=4, help="samples of every crop")
    parser.add_argument("--prior", default="ddpm-photo")
    parser.add_argument("--by", choices=FIGURES, default="psnr_mean", help="what the best are chosen by")
    options = parser.parse_args()

    missing = [package for package in ("deepinv", "azula") if find_spec(package) is None]
    methods = [method for method in options.methods if method.split()[0] not in missing]
    prior = genprior.load_prior(options.prior)
    weights = read_card(find_prior(options.prior))["sha256"][:12]
    pictures = list(crops(options.data, options.each, options.side).items())[: options.crops]
    rows = stored(options.out)
    done = {tuple(row[name] for name in KEY) for row in rows}
    asked = set()
    with options.out.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        for budget in options.budget:
            for k, (name, x) in enumerate(pictures):
                for task in options.tasks:
                    op, parameters = TASKS[task](k, options.side)
                    measurement = genprior.degrade(x, op, noise=options.noise, seed=k, **parameters)
                    if isinstance(measurement.operator, Inpaint):
                        # values in the holes mean nothing: 0 for all methods
                        measurement = replace(measurement, y=measurement.operator(measurement.y))
                    for method in methods:
                        spent = budget if method in METHODS else 0
                        key = (weights, fingerprint(measurement), str(options.n), name, task, method, str(spent))
                        asked.add(key[:-1])
                        if key not in done:
                            done.add(key)
                            found = run(method, prior, measurement, x, spent, options.n, seed=k)
                            rows.append(dict.fromkeys(COLUMNS, "") | dict(zip(KEY, key)) | found)
                            if "evaluations" in found:
                                writer.writerow(rows[-1])
                                file.flush()

    rows = [row for row in rows if tuple(row[name] for name in KEY[:-1]) in asked]
    report(rows, options, machine(torch.device("cpu")))


def fingerprint(measurement: Measurement) -> str:
    return sha256(measurement.y)[:8]


def run(method: str, prior, measurement: Measurement, x: torch.Tensor, budget: int, n: int, seed: int) -> Row:
    """Return the scores of the method on this measurement; a note where it fails."""
    watched, passes = counted(prior)
    began = time.perf_counter()
    try:
        if method in METHODS:
            copies = measurement.select(torch.zeros(n, dtype=torch.long))
            samples = METHODS[method](watched, copies, budget, seed).cpu()
        else:
            samples = BASELINES[method](measurement, x)[None]
    except TooFew as error:
        return {"note": str(error)}
    except UnsupportedError:
        return {"note": "–"}
    except ArithmeticError as error:
        return {"note": str(error)}
    found = {"evaluations": str(sum(passes.values()) // n), "seconds": f"{time.perf_counter() - began:.2f}"}
    if not torch.isfinite(samples).all():
        return found | {"note": "not finite"}
    kinds = {"sample": samples, "mean": samples.mean(0, keepdim=True)}
    for kind, draws in kinds.items():
        found[f"psnr_{kind}"] = f"{float(psnr(draws, x.expand_as(draws)).mean()):.4f}"
        found[f"ssim_{kind}"] = f"{sum(ssim(draw, x) for draw in draws) / len(draws):.5f}"
    return found | (spread(samples, x) if len(samples) > 1 else {})


def spread(samples: torch.Tensor, x: torch.Tensor) -> Row:
    """Measure how close samples (n, C, H, W) are to draws of the law that x (C, H, W) was drawn from."""
    n = len(samples)
    error = (samples.mean(0) - x).square().mean() / (1 + 1 / n)
    found = {
        **{f"coverage_{level}": coverage(samples[None], x[None], level / 100) for level in (50, 90)},
        "variance": samples.var(0).mean(),
        "squared_error": error,
        "crps": crps(samples[None], x[None]),
    }
    return {name: f"{float(figure):.6g}" for name, figure in found.items()}


def stored(path: Path) -> list[Row]:
    """Return the complete lines of the file, creating it if it is missing and dropping a line that was cut short."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith("\n")] or [",".join(COLUMNS) + "\n"]
    if whole[0].strip() != ",".join(COLUMNS):
        raise ValueError(f"{path} has other columns than {','.join(COLUMNS)}: give another --out.")
    path.write_text("".join(whole))
    return list(csv.DictReader(whole))


def report(rows: list[Row], options: argparse.Namespace, where: str) -> None:
    """Print the table, then by how much our best exceeds the best of the others for every task and budget."""
    table, best = [], []
    for budget in [0, *options.budget]:
        here = [row for row in rows if row["budget"] == str(budget)]
        for method in dict.fromkeys(row["method"] for row in here):
            cells = {
                task: cell([r for r in here if (r["method"], r["task"]) == (method, task)]) for task in options.tasks
            }
            spent = {r["evaluations"] for r in here if r["method"] == method and r["evaluations"]}
            table.append({"budget": budget, "method": method, "evaluations": ", ".join(sorted(spent)), **cells})
    for budget in options.budget:
        for task in options.tasks:
            here = [r for r in rows if r["task"] == task and r["budget"] in (str(budget), "0")]
            best.append({"budget": budget, "task": task, **compare(here, options.by)})
    if options.n >= LEAST:
        print(f"{Table(calibration(rows, options))}\n")
    print(f"{Table(table)}\n{options.n} samples; noise {options.noise}; prior {options.prior}; {where}\n")
    print(f"Difference of our best to the best of the others, by {options.by}, over the same crops:\n\n{Table(best)}")


def calibration(rows: list[Row], options: argparse.Namespace) -> list[dict[str, str]]:
    """Return a line for each method and budget: per task the coverages, the ratio of means over crops, and the CRPS."""
    lines = []
    drawn = [row for row in rows if row["crps"] and float(row["variance"]) > 0]
    for budget, method in dict.fromkeys((row["budget"], row["method"]) for row in drawn):
        line = {"budget": budget, "method": method}
        for task in options.tasks:
            here = [r for r in drawn if (r["budget"], r["method"], r["task"]) == (budget, method, task)]
            mean = {name: sum(float(row[name]) for row in here) / max(len(here), 1) for name in SPREAD}
            line[task] = here and (
                f"{mean['coverage_50']:.0%}, {mean['coverage_90']:.0%}; "
                f"{mean['variance'] / mean['squared_error']:.2f}; {1000 * mean['crps']:.2f}"
            )
        lines.append(line)
    return lines


def cell(rows: list[Row]) -> str:
    figures = [row for row in rows if row["psnr_mean"]]
    if not figures:
        return rows[0]["note"] if rows else ""
    sample, mean = ([float(row[f"psnr_{kind}"]) for row in figures] for kind in ("sample", "mean"))
    similarity = sum(float(row["ssim_mean"]) for row in figures) / len(figures)
    failed = f", {len(rows) - len(figures)} failed" if len(figures) < len(rows) else ""
    return f"{sum(sample) / len(sample):.2f} / {Estimate.mean(mean)} ({similarity:.3f}){failed}"


def compare(rows: list[Row], by: str) -> dict[str, str | int]:
    """Return our best method of a task and budget, and its mean difference to the best of each other group."""
    values: dict[str, dict[str, float]] = {}
    for row in rows:
        values.setdefault(row["method"], {})[row["crop"]] = float(row[by] or math.nan)
    complete = set.intersection(*(set(found) for found in values.values())) if values else set()
    groups: dict[str, dict[str, torch.Tensor]] = {}
    for method, found in values.items():
        figures = torch.tensor([found[crop] for crop in sorted(complete)], dtype=torch.float64)
        peer = method.split()[0] if method.startswith(("deepinv", "azula")) else "ours"
        classical = "tuned on the truth" if method.endswith("-oracle") else "classical"
        group = classical if method in BASELINES else peer
        if len(figures) and figures.isfinite().all():
            groups.setdefault(group, {})[method] = figures
    if "ours" not in groups:
        return {}
    bests = {group: max(methods, key=lambda m: float(methods[m].mean())) for group, methods in groups.items()}
    mine = groups["ours"][bests["ours"]]
    cells: dict[str, str | int] = {"crops": len(complete), "ours": f"{bests['ours']} {Estimate.mean(mine)}"}
    for group in ("deepinv", "azula", "classical", "tuned on the truth"):
        if group in groups:
            difference = Estimate.mean(mine - groups[group][bests[group]])
            cells[group] = f"{'+' if difference.value >= 0 else ''}{difference} ({bests[group]})"
    return cells


if __name__ == "__main__":
    main()
