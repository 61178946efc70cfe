"""Tabulate how much a training has learned from how many images, by the logs of its runs.

    python recipes/learning_curve.py runs/first runs/second

One row for each validation of a run, at most `--rows`: images seen, wall-clock hours (including other work on the
machine), and the scores of the averaged weights. Give runs that continue one another in their order: their images and
hours add up.
"""

import argparse
import json
from pathlib import Path

from genprior.devices import alone
from genprior.table import Cell, Table
from genprior.training.checkpoint import latest, read_state


def rows_of(run: Path, most: int, images: int, seconds: float) -> tuple[list[dict[str, Cell]], int, float]:
    """Return the rows of one run, and the images and seconds after it, including those before it."""
    checkpoint = latest(run)
    if checkpoint is None:
        raise SystemExit(f"{run} holds no checkpoint: give the folder of a run, with its log.jsonl and step-*.")
    batch = read_state(checkpoint)["settings"]["batch"]
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    found: list[dict[str, Cell]] = []
    now = 0.0
    for line in lines:
        now = line.get("seconds", now)
        figures = {name: value for name, value in line.items() if "PSNR" in name}
        if figures:
            seen = {"run": str(run), "images": images + line["step"] * batch, "hours": round((seconds + now) / 3600, 1)}
            found.append(seen | {name: f"{value:.2f}" for name, value in figures.items()})
    keep = {round(k * (len(found) - 1) / max(1, min(most, len(found)) - 1)) for k in range(min(most, len(found)))}
    last = max(line["step"] for line in lines)
    return [found[k] for k in sorted(keep)], images + last * batch, seconds + now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.add_argument("--rows", type=int, default=6, help="at most, of each run")
    options = parser.parse_args()
    alone("learning_curve")
    rows: list[dict[str, Cell]] = []
    images, seconds = 0, 0.0
    for run in options.runs:
        own, images, seconds = rows_of(run, options.rows, images, seconds)
        rows += own
    print(Table(rows).markdown())


if __name__ == "__main__":
    main()
