"""The training loop of every family: objectives, one optimiser each, on one device or many through Accelerate."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter
from tqdm.auto import tqdm

from genprior import images
from genprior.ambient import settled
from genprior.devices import device_name, peak_memory, processes
from genprior.files import write_folder
from genprior.priors.base import Prior, autocast
from genprior.priors.folder import write_prior
from genprior.training import checkpoint, faults
from genprior.training.banner import banner
from genprior.training.data import Data, item_numbers
from genprior.training.descent import Descent
from genprior.training.ema import EMA
from genprior.training.log import Log, check_trackers, trackers_begun
from genprior.training.pace import Pace
from genprior.training.precision import autocast_dtype, precision_name
from genprior.training.settings import Settings

STATE = ("step", "settings", "validations", "paced", "data", "objectives")  # what a checkpoint records of its run


@settled
def train(
    prior: Prior,
    objectives: list[nn.Module],
    data: Data,
    settings: Settings,
    out: str | Path,
    *,
    validation: Data | None = None,
    preview: Callable[[Prior], Tensor] | None = None,
    measure: Callable[[Prior], dict[str, float]] | None = None,
    finish: Callable[[Prior], None] | None = None,
    card: dict | None = None,
    log_with: Iterable = (),
    data_changed: bool = False,
    progress: bool = True,
) -> Prior:
    """Train `prior` by its objectives and write the averaged weights to `out`/prior.

    The run is a function of (data, settings): after a kill at any time, another call with the same `out` continues it
    exactly as if it had not stopped, up to rounding on another number of devices or micro-batches. With several
    machines, `out` must be a folder that all of them see.

    Arguments:
        prior: the prior to train; the objectives hold it.
        objectives: modules whose `forward(batch, step)` returns (loss, logs); one optimiser step each, in this order.
        data: item number -> dict of tensors with "x" and "item".
        settings: see `Settings`.
        out: folder of the run: `prior/` (the result), `step-*/` (checkpoints), `log.jsonl`, `samples-*.png`.
        validation: data on which the mean loss of the averaged weights is logged, and which decides early stopping.
        preview: maps the averaged prior to images (B, C, H, W), written as a sheet at every validation.
        measure: maps the averaged prior to numbers that are logged at every validation.
        finish: called on the averaged prior at the end, before it is written.
        card: what is known about data and licence, for the prior's card.
        log_with: "tensorboard", "wandb", "trackio" or trackers of Accelerate, besides `log.jsonl`.
        data_changed: whether to continue from a checkpoint that was trained on other data.
        progress: whether to print a summary of the run and show a progress bar.

    Returns:
        The averaged prior, in evaluation mode.

    Raises:
        ValueError: the settings do not fit together, the checkpoint in `out` has other settings, data or network, all
            checkpoints are damaged, or the processes do not see each other.
        FileExistsError: `out` holds a prior and no checkpoint.
        FloatingPointError: a loss or gradient is not finite.
        MemoryError: memory does not suffice; the message says what fits.
        OSError: the disk is full, among others.
        KeyboardInterrupt: SIGINT or SIGTERM came; a checkpoint is saved.
    """
    out, log_with = Path(out), list(log_with)
    check_trackers(log_with)
    processes()  # sets them up, which Accelerate alone does not do on CPUs
    # Accelerate fixes one precision for the whole process; this run sets its own around its own computations.
    accelerator = Accelerator(mixed_precision="no", log_with=log_with or None, project_dir=out)
    device, main = accelerator.device, accelerator.is_main_process
    dtype = autocast_dtype(settings.precision, device)
    settings.check_shareable(accelerator.num_processes)
    if settings.patience is not None and validation is None:
        raise ValueError(f"patience is {settings.patience}, but there is no validation data to judge by: give some.")
    if settings.patience is not None and len(objectives) > 1:
        raise ValueError(
            f"patience is {settings.patience}, but the losses of competing networks do not tell which weights are "
            "better: train to the end, and judge by the samples."
        )
    content, losses = fingerprint(data), [type(objective).__name__ for objective in objectives]
    resumed = _newest(out, accelerator)
    state = _read_state(resumed) if resumed else {"step": 0, "validations": [], "paced": None}
    if resumed is None and (out / "prior").exists():
        raise FileExistsError(f"{out / 'prior'} exists, without a checkpoint to go on from: choose another folder.")
    paced = settings.minutes is not None and settings.minutes == state["paced"]
    if resumed:
        settings = settings.resumed(state["settings"], paced)
        _check_resumable(state, settings, content, losses, data_changed, out)
    start, validations = state["step"], state["validations"]  # validations: [step, error] of each

    trained = Trained(prior, objectives).train().to(device).to(memory_format=torch.channels_last)
    ema = EMA(trained, settings.ema)
    average, averages = ema.module.prior, ema.module.objectives
    parts = {"objectives": trained.objectives, "ema": averages}
    descent = Descent(objectives, settings, dtype, accelerator)
    if resumed:
        checkpoint.load(resumed, parts, descent.optimizers)

    def origin(step: int) -> dict[str, Any]:
        """Return the card of the averaged prior after `step` steps."""
        return {
            **(card or {}),
            "objectives": losses,
            "settings": asdict(replace(settings, accumulate=descent.accumulate)),
            "steps": step,
            "seconds": round(time.perf_counter() - began),
            "device": device_name(device),
            "precision": precision_name(dtype),
            "processes": accelerator.num_processes,
            "peak memory in MiB": peak_memory(device),
            "torch": torch.__version__,
        }

    def write(step: int) -> None:
        now = {
            "step": step,
            "settings": asdict(replace(settings, accumulate=descent.accumulate)),
            "validations": validations,
            "paced": settings.minutes if pace.fixed else None,
            "data": content,
            "objectives": losses,
        }
        beside = partial(write_prior, average, card=origin(step))
        checkpoint.save(checkpoint.path_of(out, step), now, parts, descent.optimizers, beside)

    def save(step: int) -> None:
        accelerator.wait_for_everyone()
        if main:
            write(step)
            checkpoint.prune(out, settings.keep, _best(validations, settings))
        accelerator.wait_for_everyone()

    def rescue() -> None:
        """Save the last whole step without the other processes, which have the same weights and may have failed."""
        if start < done and descent.whole and not checkpoint.path_of(out, done).exists():
            descent.finite.check(settings, out)
            write(done)
            if progress:
                print(f"genprior: step {done} is saved in {out}: call again to go on", file=sys.stderr)

    def judge(step: int, held_out: Data) -> None:
        """Validate the averaged weights; the result may decide which weights are kept."""
        judging = faults.looking("validation", step) if settings.patience is None else contextlib.nullcontext()
        with judging, autocast(device, dtype):
            rows = descent.share // descent.accumulate
            validations.append([step, validate(averages, held_out, rows, accelerator)])
            log.write(step, validation=validations[-1][1])

    def look(step: int) -> None:
        """Measure and draw with the averaged weights; no later step depends on it."""
        if measure is not None and main:
            with faults.looking("measure", step), autocast(device, dtype):
                log.write(step, **measure(average))
        if preview is not None and main:
            with faults.looking("preview", step):
                images.save(images.drawn(preview(average)), out / f"samples-{step:07d}.png")

    log = Log(out, start, accelerator)
    if progress and main:
        checked = len(validation) if validation is not None else 0
        print(banner(settings, objectives, len(data), checked, start, dtype, accelerator, out), file=sys.stderr)
    bar = tqdm(initial=start, total=settings.steps, desc="train", disable=None if progress and main else True)
    began = time.perf_counter() - log.seconds
    pace = Pace(settings, start, paced, began, accelerator)

    done = counted = start
    moment = time.perf_counter()  # items per second are counted since then, from step `counted` on
    told = trackers_begun(accelerator, out.name, settings)
    loading = _loading(data, settings, start, accelerator)
    with loading as batches, faults.Stop() as stop, faults.full_disk_explained(out), told, bar:
        with faults.rescued(rescue):
            for step in range(start, settings.steps):
                if done == settings.steps:
                    break
                if settings.patience is not None and _since_best(validations) >= settings.patience:
                    break
                batch = {key: value.to(device, non_blocking=True) for key, value in next(batches).items()}
                logs = descent.step(batch, step)
                ema.update(step)
                done, descent.whole = step + 1, True
                bar.update()
                settings = descent.settings = pace.paced(settings, done)
                bar.total = settings.steps

                last, stopping = done == settings.steps, faults.agreed(stop.wanted, accelerator, done)
                logging, looking, saving = (
                    last or done % every == 0
                    for every in (settings.log_every, settings.validate_every, settings.save_every)
                )
                if logging or looking or saving or stopping:
                    descent.finite.check(settings, out)
                if logging:
                    numbers = {key: float(value) for key, value in logs.items()} | {"lr": settings.learning_rate(step)}
                    seconds = max(time.perf_counter() - moment, 1e-9)
                    numbers["items per second"] = round((done - counted) * settings.batch / seconds, 2)
                    log.write(done, seconds=round(time.perf_counter() - began, 1), **numbers)
                    bar.set_postfix({key: f"{value:.4g}" for key, value in numbers.items()}, refresh=False)
                if looking and validation is not None:
                    judge(done, validation)
                if saving or stopping or _best(validations, settings) == done:
                    save(done)
                if looking:
                    look(done)
                if logging or looking or saving:
                    counted, moment = done, time.perf_counter()
                if stopping and not last:
                    raise KeyboardInterrupt(f"stopped at step {done}, which is saved in {out}: call again to go on")

        best = _best(validations, settings)
        if best is not None:
            checkpoint.load_sound(checkpoint.path_of(out, best), parts, descent.optimizers)
        result = average.eval()
        if finish is not None:
            finish(result)
        if main:
            write_folder(out / "prior", partial(write_prior, result, card=origin(done)))
    accelerator.wait_for_everyone()
    return result


class Trained(nn.Module):
    """A prior and the objectives that train it; their networks may share weights."""

    def __init__(self, prior: Prior, objectives: Iterable[nn.Module]):
        super().__init__()
        self.prior, self.objectives = prior, nn.ModuleList(objectives)


@torch.no_grad()
def validate(objectives: Iterable[nn.Module], data: Data, batch: int, accelerator: Accelerator) -> float:
    """Return the mean over `data` of the objectives' summed losses, with the same items and noise every time.

    Raises:
        Exception: this process failed with that error, or another failed; all processes raise, so that none waits.
    """
    total, count, error = 0.0, 0, None
    try:
        for start in range(accelerator.process_index * batch, len(data), accelerator.num_processes * batch):
            items = [data[i] for i in range(start, min(start + batch, len(data)))]
            examples = {key: value.to(accelerator.device) for key, value in default_collate(items).items()}
            loss = sum(objective(examples, 0)[0] for objective in objectives)
            total, count = total + float(loss) * len(items), count + len(items)
    except Exception as found:
        error = found
    sums = torch.tensor([total, count, error is not None], dtype=torch.float32, device=accelerator.device)
    total, count, failed = torch.as_tensor(accelerator.reduce(sums)).tolist()
    if failed:
        raise error or RuntimeError(f"validation failed on {failed:.0f} other process(es)")
    return total / count


def fingerprint(data: Data) -> Any:
    """Return what identifies the data, as JSON for checkpoints: `data.fingerprint`, or the number of images."""
    return getattr(data, "fingerprint", f"{len(data)} images")


def _newest(out: Path, accelerator: Accelerator) -> Path | None:
    """Return the checkpoint to resume from, chosen by the main process, which sets damaged ones aside."""
    found = [checkpoint.latest(out) if accelerator.is_main_process else None]
    return broadcast_object_list(found)[0]


def _read_state(found: Path) -> dict[str, Any]:
    """Return what a checkpoint records of its run.

    Raises:
        ValueError: it lacks an entry that this version records.
    """
    state = checkpoint.read_state(found)
    if lacks := [name for name in STATE if name not in state]:
        raise ValueError(
            f"The run in {found.parent} was begun by another version of genprior: its checkpoint {found.name} does not "
            f"say its {', '.join(lacks)}. Go on by that version, or train in another folder; what was trained so far "
            f"is a prior as it is, {found}."
        )
    return state


def _check_resumable(
    state: dict[str, Any], settings: Settings, content: Any, losses: list[str], data_changed: bool, folder: Path
) -> None:
    """Refuse settings, objectives or data that cannot continue from the state in a checkpoint."""
    settings.check_resumable(state["step"], state["settings"], folder)
    if losses != state["objectives"]:
        raise ValueError(
            f"The run in {folder} was trained by {', '.join(state['objectives'])}, not by {', '.join(losses)}: give "
            "the objective that it was begun with, or another folder."
        )
    if state["data"] != content and not data_changed:
        changed = _differences(content, state["data"])
        raise ValueError(
            f"The data are not those that the run in {folder} was trained on: {changed}. "
            "Put them back, train in another folder, or go on with the data as they are by data_changed "
            "(--data-changed)."
        )


def _differences(now: Any, then: Any) -> str:
    """Describe how two fingerprints differ: by the entries that changed, or in full if they have no named entries."""
    if not (isinstance(now, dict) and isinstance(then, dict)):
        return f"{now}, not {then}"
    changed = [name for name in now | then if now.get(name) != then.get(name)]
    return "; ".join(f"{name} is {now.get(name)!r}, not {then.get(name)!r}" for name in changed)


@contextlib.contextmanager
def _loading(
    data: Data, settings: Settings, start: int, accelerator: Accelerator
) -> Iterator[Iterator[dict[str, Tensor]]]:
    """Yield this process's share of the batch of each step from `start` on.

    Workers always end here: they ignore the signal by which Python would end them, and Python would wait at exit for
    those that an error's traceback keeps alive.
    """
    rank, ranks = accelerator.process_index, accelerator.num_processes
    batches = iter(
        DataLoader(
            data,
            batch_sampler=item_numbers(start, settings.steps, settings.batch, rank, ranks),
            num_workers=settings.workers,
            worker_init_fn=faults.ignore_signals,
            pin_memory=accelerator.device.type == "cuda",
            # The loader draws a seed that nobody uses; its own generator leaves the global random state alone.
            generator=torch.Generator(),
        )
    )
    try:
        yield batches
    finally:
        if isinstance(batches, _MultiProcessingDataLoaderIter):
            batches._shutdown_workers()


def _since_best(validations: list[tuple[int, float]]) -> int:
    """Return the number of validations since the one with the smallest error."""
    errors = [error for _, error in validations]
    return len(errors) - 1 - errors.index(min(errors)) if errors else 0


def _best(validations: list[tuple[int, float]], settings: Settings) -> int | None:
    """Return the step whose averaged weights are kept; None, without `patience`, for the last."""
    if settings.patience is None or not validations:
        return None
    return min(validations, key=lambda entry: entry[1])[0]
