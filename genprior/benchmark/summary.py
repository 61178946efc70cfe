"""The table of methods, computed from the figures of images."""

from __future__ import annotations

from typing import Any

from genprior.benchmark.items import Record
from genprior.benchmark.methods import coverage_level
from genprior.table import Estimate, Table


def columns(n: int) -> dict[str, str]:
    """The figures of an image with n samples, mapped to their columns in the table of methods."""
    return {
        "psnr_sample": "PSNR of a sample, dB",
        "ssim_sample": "SSIM of a sample",
        "lpips_sample": "LPIPS of a sample",
        "psnr_mean": "PSNR of the mean, dB",
        "ssim_mean": "SSIM of the mean",
        "lpips_mean": "LPIPS of the mean",
        "psnr_holes_sample": "PSNR of a sample in the holes, dB",
        "psnr_holes_mean": "PSNR of the mean in the holes, dB",
        "coverage": f"coverage at {coverage_level(n):.0%}",
        "crps": "CRPS",
        "evaluations": "evaluations",
        "seconds": "seconds",
    }


def legend(n: int) -> str:
    """The meaning of the figures in a table with n samples."""
    covered = (
        f"Coverage: of pixels, by the central {coverage_level(n):.0%} interval of the samples, which an exact sampler "
        "with the right prior expects to be just that; 90% takes 19 samples, of fewer it is the interval from the "
        "least to the largest. CRPS: in units of x, lower is better. "
    )
    return (
        "Mean ± standard error over images; differences are those of the same images. All methods know the noise. PSNR "
        f"and SSIM of values clipped to [0, 1]. {covered if n > 1 else ''}Evaluations (forward and backward passes of "
        "the network) and seconds: for all samples of one image; seconds without the first image of each process, "
        "which warms up, where there are others. Peak memory: on cuda what torch held at most for one image; on the "
        "CPU, and of classical methods, the largest resident set of the process so far, which never falls: at least "
        "that of the methods before."
    )


def summary(records: list[Record], n: int) -> Table:
    """A row for each method, in order, for n samples; differences are to the first method."""
    methods = list(dict.fromkeys(record["method"] for record in records))
    by_method = {name: [record for record in records if record["method"] == name] for name in methods}
    rows = [_row(of_method, by_method[methods[0]], columns(n)) for of_method in by_method.values()]
    return Table(_filled(rows, list(rows[0])))


def each_image(records: list[Record], n: int) -> Table:
    """A row for each image and method, for n samples."""
    return Table(_filled(records, ["image", "number", "method", "seed", *columns(n), "peak_memory", "note"]))


def _row(records: list[Record], reference: list[Record], columns: dict[str, str]) -> dict[str, Any]:
    done = [record for record in records if "note" not in record]
    row: dict[str, Any] = {"method": records[0]["method"], "images": len(done)}
    for key, column in columns.items():
        row[column] = _mean(done, key)
        if key == "psnr_mean":
            row[f"less that of {reference[0]['method']}, dB"] = None if records is reference else _gain(done, reference)
    peaks = [record["peak_memory"] for record in done if record["peak_memory"] is not None]
    row["peak memory, MiB"] = max(peaks) if peaks else None
    row["note"] = _note(records, len(done))
    return row


def _mean(done: list[Record], key: str) -> Estimate | int | None:
    counted = ([record for record in done if record["warm"]] or done) if key == "seconds" else done
    values = [record[key] for record in counted if key in record]
    if key == "evaluations" and len(set(values)) == 1:
        return values[0]
    return Estimate.mean(values) if values else None


def _gain(done: list[Record], reference: list[Record]) -> Estimate | None:
    """The mean difference in PSNR on the images that both methods restored."""
    theirs = {record["number"]: record["psnr_mean"] for record in reference if "psnr_mean" in record}
    gains = [record["psnr_mean"] - theirs[record["number"]] for record in done if record["number"] in theirs]
    return Estimate.mean(gains) if gains else None


def _note(records: list[Record], done: int) -> str | None:
    """Why images are missing from a row."""
    notes = list(dict.fromkeys(" ".join(record["note"].split()) for record in records if "note" in record))
    if not notes:
        return None
    share = "" if not done and len(notes) == 1 else f"{len(records) - done} of {len(records)} failed: "
    return share + " / ".join(notes)


def _filled(rows: list[dict[str, Any]], keys: list[str]) -> list[dict[str, Any]]:
    """The rows with only the columns that any row fills, in the order of `keys`."""
    used = [key for key in keys if any(row.get(key) is not None for row in rows)]
    return [{key: row.get(key) for key in used} for row in rows]
