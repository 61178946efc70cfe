"""How well a prior and its samplers restore given images: all methods restore the same measurements, for one table.

Every image is measured and restored alone, with its own seed, a function of the run's seed and the image's number. So
results depend neither on the other images nor on the number of processes, and a stopped run continues with what is
missing.
"""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from genprior import images as pictures
from genprior.ambient import settled
from genprior.benchmark import task
from genprior.benchmark.contact import sheet
from genprior.benchmark.dataset import Truth, described, find_truths, hashes
from genprior.benchmark.items import Record, differences, digest, read_record, stem, to_json, write_record
from genprior.benchmark.methods import Method, figures, find_methods
from genprior.benchmark.summary import each_image, legend, summary
from genprior.checks import UnsupportedError, as_integer
from genprior.devices import device_of, forget_peak, peak_memory, processes
from genprior.files import refuse_existing, write_text
from genprior.likelihoods import Likelihood
from genprior.operators.inpaint import Inpaint
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.record import machine, noise_in_words, of_noise, versions
from genprior.restoration import MEASURED, degrade
from genprior.samplers import SAMPLERS, refuse_parameters
from genprior.samplers.base import Sampler
from genprior.scores import perceptual
from genprior.table import Table

SHOWN = 4  # images on the contact sheet
FILES = ("table.md", "table.csv", "images.csv", "run.json", "contact.png")
DEPENDENCIES = ("torch", "deepinv", "kornia", "scikit-image")  # packages the figures depend on
NOISE_UNIT = "standard deviation in the units of x, images in [0, 1]; half of what papers on [-1, 1] state"


@settled
def evaluate(
    data: Any,
    op: Any,
    prior: str | Path | Prior | Callable[[Tensor, float], Tensor] = "ddpm",
    sampler: str | Sampler | Sequence[str | Sampler] = "auto",
    *,
    n: int = 4,
    noise: float | Likelihood | None = None,
    seed: int = 0,
    steps: int | None = None,
    baselines: str | Sequence[str] = (),
    lpips: bool = False,
    out: str | Path | None = None,
    limit: int | None = None,
    crop: int | None = None,
    images: str = "test_images",
    device: str = "auto",
    progress: bool = True,
    **operator_parameters: Any,
) -> Evaluation:
    """Degrade images, restore them by every method, and compare the results with the originals.

    With `out`, results are stored as they arrive, and another call computes what is missing. A run whose prior is a
    function cannot be resumed, because nothing shows whether the function is still the same. Under torchrun or
    `accelerate launch`, the processes share the work through that folder.

    Arguments:
        data: a folder of images, an image, an .npz file, a batch or a list of images; see `images` and `crop`.
        op: name of an operator, an operator, a deepinv physics (see `genprior.degrade`), or the name of a preset such
            as "dps-sr4", which sets noise and parameters (see `genprior.benchmark.presets`).
        prior: name, family, folder, prior or denoiser; see `genprior.restore`. A denoiser must take images of three
            channels if some of the images are in colour.
        sampler: "auto", a name, an object with its parameters, or several of them.
        n: samples per image.
        noise: standard deviation on [0, 1], or a likelihood, known to all methods; None for a preset's own, and for
            "jpeg", which adds none.
        seed: of the run; image i is degraded and restored with the seed `image_seed(seed, i)`.
        steps: of every sampler; None for its own.
        baselines: names of classical methods; see `genprior.benchmark.baselines`.
        lpips: whether to measure LPIPS too, an extra of the package that downloads weights.
        out: folder for the results; None to keep them in memory.
        limit: use only the first `limit` images; None for all.
        crop: side of the square cut from the middle of each image; None for whole images.
        images: name of the array in an .npz file.
        device: "auto", "cpu", "cuda", …; each of several processes uses its own.
        progress: show a progress bar.
        operator_parameters: of a named operator.

    Returns:
        Figures by method and by image. If a method does not apply, the column "note" gives the reason.

    Raises:
        ValueError, TypeError: an argument is not as described, an image is too small, or `out` holds results with
            other settings; the message names the difference.
        UnsupportedError: a package is missing.
    """
    n = as_integer("n, the number of samples of each image,", n, 1, MEASURED)
    seed = as_integer("seed", seed, 0, 2**63 - 1)
    ranks = processes(device)
    if ranks.num_processes > 1 and out is None:
        raise ValueError("Several processes share their results through a folder: give out=.")
    truths = find_truths(data, images, limit, crop)
    refuse_parameters(operator_parameters, sampler if isinstance(sampler, str | Sampler) else "auto", SAMPLERS)
    op, noise, parameters = task.find_task(op, noise, operator_parameters, truths)
    if lpips:
        perceptual.network()

    def measure(truth: Truth) -> Measurement:
        return degrade(truth.read(), op, noise=noise, seed=image_seed(seed, truth.number), **parameters)

    trials = task.trials(measure, truths, lpips)
    shapes = {trial.operator.image_shape for trial in trials}
    prior, called = task.find_prior(prior, shapes, device if ranks.num_processes == 1 else str(ranks.device))
    settings = {
        "op": op if isinstance(op, str) else type(op).__name__,
        "parameters": {name: described(value) for name, value in parameters.items()},
        "operator_sha256": digest(trials[0].operator if isinstance(op, str) else op),
        "noise": of_noise(noise)[0],
        "n": n,
        "seed": seed,
        "crop": crop,
        "lpips": lpips,
        "prior_sha256": task.prior_sha256(prior),
        "autocast": str(prior.autocast),
        "device": device_of(prior).type,
        "versions": versions(*DEPENDENCIES, *["lpips"] * lpips),
    }
    about = {
        "command": shlex.join(sys.argv),
        "settings": settings,
        "noise": noise_in_words(noise),
        "noise_unit": NOISE_UNIT,
        "prior": called,
        "machine": machine(device_of(prior), ranks.num_processes),
    }
    job = _Job(truths, find_methods(sampler, baselines, prior, steps, n), measure, about)
    if out is not None:
        return job.run(Path(out), ranks, progress)
    with tempfile.TemporaryDirectory() as folder:
        return job.run(Path(folder), ranks, progress)


def image_seed(seed: int, number: int) -> int:
    """The seed of image `number`: with it, `degrade` and `restore` repeat what an evaluation with `seed` did."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The result of `evaluate`.

    Attributes:
        table: a row for each method: means over images, with standard errors.
        images: a row for each image and method.
        run: what is needed to repeat the run.
        contact: some images: truth, measurement, and each method's mean and a sample.
    """

    table: Table
    images: Table
    run: dict[str, Any]
    contact: Image.Image

    def save(self, folder: str | Path, *, overwrite: bool = False) -> list[Path]:
        """Write table.md, table.csv, images.csv, run.json and contact.png.

        Raises:
            FileExistsError: one of them exists, and `overwrite` is False; nothing is written.
        """
        paths = [Path(folder) / name for name in FILES]
        refuse_existing(paths, overwrite, "choose another folder or pass overwrite=True")
        texts = [str(self), self.table.csv(), self.images.csv(), to_json(self.run)]
        for path, text in zip(paths, texts):
            write_text(path, text)
        pictures.save(self.contact, paths[-1])
        return paths

    def __str__(self) -> str:
        """The table, followed by the settings and the meaning of its figures."""
        settings = self.run["settings"]
        task = "".join(f", {name} {value}" for name, value in settings["parameters"].items())
        return (
            f"{self.table.markdown()}\n"
            f"{len(self.run['images'])} images; {settings['op']}{task}; noise {self.run['noise']} on [0, 1]; prior "
            f"{self.run['prior']['name']}; {settings['n']} samples of each image; seed {settings['seed']}; "
            f"{self.run['machine']['name']}.\n\n{legend(settings['n'])}\n"
        )


@dataclass(frozen=True)
class _Job:
    """Every method on every image.

    Attributes:
        measure: truth -> measurement.
        about: all that is known before anything is computed; results depend on its "settings".
    """

    truths: list[Truth]
    methods: list[Method]
    measure: Callable[[Truth], Measurement]
    about: dict[str, Any]

    def run(self, out: Path, ranks: Any, progress: bool) -> Evaluation:
        """Compute this process's share of what `out` lacks; then read the results of all processes."""
        items = out / "items"
        self._check(out)
        missing = [pair for pair in self._pairs() if self._is_missing(items, *pair)]
        ranks.wait_for_everyone()  # all must have read the folder before any writes to it
        items.mkdir(parents=True, exist_ok=True)
        if ranks.is_main_process:
            write_text(out / "run.json", to_json(self._run([])))
        rank, count = ranks.process_index, ranks.num_processes
        # Contiguous shares measure each image once, as far as possible, and give every process all kinds of methods.
        mine = missing[len(missing) * rank // count : len(missing) * (rank + 1) // count]
        warm: set[str] = set()
        with tqdm(total=len(mine), desc="evaluate", disable=None if progress and rank == 0 else True) as bar:
            for truth, pairs in groupby(mine, key=lambda pair: pair[0]):
                x, measurement = truth.read(), self.measure(truth)
                for _, method in pairs:
                    bar.set_postfix_str(method.name)
                    record = self._compute(items, truth, method, x, measurement)
                    record |= {"process": rank, "warm": method.name in warm}
                    write_record(items, truth.number, method.name, record)
                    warm.add(method.name)
                    bar.update()
        ranks.wait_for_everyone()
        evaluation = self._gather(items)
        if ranks.is_main_process:
            evaluation.save(out, overwrite=True)
        return evaluation

    def _pairs(self) -> list[tuple[Truth, Method]]:
        return [(truth, method) for truth in self.truths for method in self.methods]

    def _check(self, out: Path) -> None:
        """Refuse a folder that holds something else, or an evaluation with other settings."""
        path = out / "run.json"
        if not path.exists():
            there = [name for name in (*FILES, "items") if (out / name).exists()]
            if there:
                raise FileExistsError(f"{out} holds {', '.join(there)} but no run.json: give another folder.")
            return
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))["settings"]
        except (ValueError, LookupError, TypeError) as error:
            raise ValueError(f"{path} is not of an evaluation ({error!r}): give another folder.") from error
        given = json.loads(to_json(self.about["settings"]))
        _refuse(out, differences(stored, given))
        if given["prior_sha256"] is None:
            raise ValueError(
                f"{out} holds an evaluation whose prior is a function, and nothing tells whether it is still the same: "
                "give another folder, or a torch module in place of the function."
            )

    def _is_missing(self, items: Path, truth: Truth, method: Method) -> bool:
        record = read_record(items, truth.number, method.name)
        if record is None:
            return True
        stored = {"image": record["image"], "values": record["sha256"]}
        given = {"image": truth.name, "values": truth.sha256}
        found = differences(stored, given, f"of image {truth.number}, the")
        _refuse(items.parent, found + differences(record["definition"], method.definition, method.name))
        return record.get("retry", False)

    def _compute(self, items: Path, truth: Truth, method: Method, x: Tensor, measurement: Measurement) -> Record:
        settings = self.about["settings"]
        record = {
            "image": truth.name,
            "number": truth.number,
            "method": method.name,
            "definition": method.definition,
            "seed": image_seed(settings["seed"], truth.number),
            "sha256": truth.sha256,
            **hashes(measurement.operator),
        }
        target = measurement.operator.frame(x)
        forget_peak(method.device)
        try:
            outcome = method.run(measurement, target, record["seed"])
        except (UnsupportedError, ValueError, ArithmeticError) as error:
            record["note"] = str(error)
        except (RuntimeError, MemoryError) as error:  # memory may suffice another time
            record |= {"note": str(error) or type(error).__name__, "retry": True}
        else:
            A = measurement.operator
            holes = A.mask[0] if isinstance(A, Inpaint) else None
            record |= figures(outcome, target, settings["lpips"], holes) | {"peak_memory": peak_memory(method.device)}
            if truth.number < SHOWN:
                path = items / stem(truth.number, method.name)
                pictures.save(outcome.mean, f"{path}-mean.png")
                if outcome.samples is not None:
                    pictures.save(outcome.samples[0], f"{path}-sample.png")
        return record

    def _gather(self, items: Path) -> Evaluation:
        records: list[Any] = [read_record(items, truth.number, method.name) for truth, method in self._pairs()]
        n = self.about["settings"]["n"]
        return Evaluation(summary(records, n), each_image(records, n), self._run(records), self._contact(items))

    def _run(self, records: list[Record]) -> dict[str, Any]:
        """What is needed to repeat the run, as far as it is known by now."""
        found = {r["number"]: {key: value for key, value in r.items() if key.endswith("_sha256")} for r in records}
        seed = self.about["settings"]["seed"]
        listed = [
            {
                "number": t.number,
                "name": t.name,
                "shape": list(t.shape),
                "seed": image_seed(seed, t.number),
                "sha256": t.sha256,
                **found.get(t.number, {}),
            }
            for t in self.truths
        ]
        return {**self.about, "methods": {m.name: m.definition for m in self.methods}, "images": listed}

    def _contact(self, items: Path) -> Image.Image:
        columns: dict[str, list[Tensor | None]] = {"truth": [], "measurement": []}
        for truth in self.truths[:SHOWN]:
            measurement = self.measure(truth)
            target = measurement.operator.frame(truth.read())
            columns["truth"].append(target)
            columns["measurement"].append(F.interpolate(measurement.picture, target.shape[1:], mode="nearest")[0])
            for method in self.methods:
                for kind in ("mean", "sample"):
                    path = Path(f"{items / stem(truth.number, method.name)}-{kind}.png")
                    shown = pictures.read(path).x[0] if path.exists() else None
                    columns.setdefault(f"{method.name} {kind}", []).append(shown)
        return sheet({name: column for name, column in columns.items() if any(x is not None for x in column)})


def _refuse(out: Path, found: list[str]) -> None:
    if found:
        raise ValueError(
            f"{out} holds an evaluation with other settings: {'; '.join(found)}. Give another folder, or the settings "
            "of its run.json."
        )
