"""The training loop of every family: objectives, one optimiser each, on one device or many through Accelerate."""

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate
from tqdm.auto import tqdm

from genprior import images
from genprior.priors.base import Prior, autocast
from genprior.priors.store import write_prior
from genprior.training import checkpoint
from genprior.training.data import item_numbers
from genprior.training.ema import EMA

# Settings that may differ when a run is resumed: all but `steps`, which has its own rule, leave the weights alone.
FREE = ("steps", "log_every", "validate_every", "save_every", "keep", "patience", "workers")


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        steps: optimiser steps in all.
        batch: images per step, over all devices and micro-batches.
        lr: AdamW's learning rate at its height.
        warmup: steps over which it rises linearly.
        decay: last fraction of the steps, over which it falls linearly to zero; before that it does not depend on
            `steps`, so a run can be resumed with other steps as long as neither number has made it decay yet.
        weight_decay, betas: AdamW's.
        clip: largest norm of the gradient of an objective.
        ema: decay of the moving average of the weights, which is what is kept.
        accumulate: micro-batches per step.
        precision: "no" (float32) or "bf16" autocast of the networks.
        seed: keys initialisation by the caller, data, noise.
        log_every, validate_every, save_every: in steps.
        keep: checkpoints kept.
        patience: validations without improvement after which training stops, or None to train to the end and keep the
            last weights. With a number, what is kept are the averaged weights of the best validation.
        workers: processes that load data.
    """

    steps: int
    batch: int = 16
    lr: float = 5e-4
    warmup: int = 300
    decay: float = 0.3
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0
    ema: float = 0.999
    accumulate: int = 1
    precision: str = "no"
    seed: int = 0
    log_every: int = 50
    validate_every: int = 1000
    save_every: int = 500
    keep: int = 2
    patience: int | None = None
    workers: int = 0

    def __post_init__(self):
        for name in ("steps", "batch", "accumulate", "log_every", "validate_every", "save_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give a whole number, at least 1.")
        if self.precision not in ("no", "bf16"):
            raise ValueError(
                f'precision is {self.precision!r}: give "no" or "bf16"; float16 gradients would underflow.'
            )

    def check_resumable(self, step: int, old: dict[str, Any], folder: Path) -> None:
        """Refuse to go on from `step` of a run whose settings, read from JSON, made other weights than these."""
        new = json.loads(json.dumps(asdict(self)))
        changed = [
            f"{name} is {value!r}, not {old.get(name)!r}"
            for name, value in new.items()
            if name not in FREE and value != old.get(name)
        ]
        if changed:
            raise ValueError(
                f"The run in {folder} was begun with other settings: {'; '.join(changed)}. "
                "Resume with those it has, or train in another folder."
            )
        # If the rates of the last step made agree, so do those of all steps before it: neither has begun to decay.
        if step and self.learning_rate(step - 1) != replace(self, steps=old["steps"]).learning_rate(step - 1):
            raise ValueError(
                f"The run in {folder} is at step {step}, where the learning rates of {old['steps']} steps and of "
                f"{self.steps} differ, since one decays: resume with steps={old['steps']}, or train in another folder."
            )

    def learning_rate(self, step: int) -> float:
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        fall = min(1.0, (self.steps - step) / (self.decay * self.steps)) if self.decay else 1.0
        return self.lr * rise * fall


def train(
    prior: Prior,
    objectives: list[nn.Module],
    data: Dataset,
    settings: Settings,
    out: str | Path,
    *,
    validation: Dataset | None = None,
    preview: Callable[[Prior], Tensor] | None = None,
    finish: Callable[[Prior], None] | None = None,
    card: dict | None = None,
    progress: bool = True,
) -> Prior:
    """Train `prior` by its objectives and write the averaged weights to `out`/prior.

    The run is a function of (data, settings): it may be killed at any time and called again with the same `out`, from
    where it goes on exactly as if it had not stopped, on any number of devices that divides the batch.

    Arguments:
        prior: what is trained; the objectives hold it.
        objectives: modules whose `forward(batch, step)` gives (loss, logs); one optimiser step each, in this order.
        data: item number -> dict of tensors with "x" and "item".
        settings: see `Settings`.
        out: folder of the run: `prior/` (the result), `step-*/` (checkpoints), `best/` (with patience), `log.jsonl`,
            `samples-*.png`.
        validation: data on which the mean loss of the averaged weights is logged, and which decides early stopping.
        preview: from the averaged prior to images (B, C, H, W), written as a sheet with every validation.
        finish: called on the averaged prior at the end, before it is written.
        card: what is known about data and licence, for the prior's card.

    Returns:
        The averaged prior, in evaluation mode.

    Raises:
        ValueError: settings that do not fit together, or a checkpoint in `out` of other settings or another network.
        FloatingPointError: the loss is no longer finite.
    """
    out = Path(out)
    # Accelerate fixes one precision for the whole process; the one of this run is set around its own computations.
    accelerator = Accelerator(mixed_precision="no")
    dtype = torch.bfloat16 if settings.precision == "bf16" else None
    if settings.patience is not None and validation is None:
        raise ValueError(f"patience is {settings.patience}, but there is no validation data to judge by: give some.")
    share = settings.accumulate * accelerator.num_processes
    if settings.batch % share:
        raise ValueError(
            f"A batch of {settings.batch} cannot be shared by {accelerator.num_processes} processes x "
            f"{settings.accumulate} micro-batches; make it a multiple of {share}."
        )

    modules = nn.ModuleDict({"prior": prior, "objectives": nn.ModuleList(objectives)}).train()
    modules.to(accelerator.device, memory_format=torch.channels_last)
    ema = EMA(modules, settings.ema)
    optimizers = [
        torch.optim.AdamW(
            (p for p in objective.parameters() if p.requires_grad),
            lr=0.0,
            weight_decay=settings.weight_decay,
            betas=settings.betas,
        )
        for objective in objectives
    ]
    parts = {"objectives": modules["objectives"], "ema": ema.module["objectives"]}
    resumed = checkpoint.latest(out)
    if resumed:
        settings.check_resumable(*checkpoint.progress(resumed), out)
    start = checkpoint.load(resumed, parts, optimizers) if resumed else 0
    prepared = [accelerator.prepare(objective) for objective in objectives]
    gradients = ["gradient"] if len(objectives) == 1 else [f"gradient {type(own).__name__}" for own in objectives]

    numbers = item_numbers(
        start, settings.steps, settings.batch, settings.accumulate, accelerator.process_index, accelerator.num_processes
    )
    # Its own generator, from which the loader draws a seed nobody uses: the global random state is not ours.
    loader = iter(DataLoader(data, batch_sampler=numbers, num_workers=settings.workers, generator=torch.Generator()))
    log = _Log(out, start, accelerator.is_main_process)
    bar = tqdm(
        initial=start,
        total=settings.steps,
        desc="train",
        disable=None if progress and accelerator.is_main_process else True,
    )
    began = time.perf_counter() - log.seconds

    def write(folder: Path, step: int) -> None:
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            checkpoint.save(folder, step, asdict(settings), parts, optimizers)
            checkpoint.prune(out, settings.keep)
        accelerator.wait_for_everyone()

    done = start
    for step in range(start, settings.steps):
        if settings.patience is not None and log.since_best() >= settings.patience:
            break
        logs: dict[str, Tensor] = {}
        for micro_batch in range(settings.accumulate):
            batch = {key: value.to(accelerator.device) for key, value in next(loader).items()}
            last = micro_batch == settings.accumulate - 1
            for name, objective, own, optimizer in zip(gradients, prepared, objectives, optimizers):
                with contextlib.nullcontext() if last else accelerator.no_sync(objective):
                    with autocast(accelerator.device, dtype):
                        loss, own_logs = objective(batch, step)
                    accelerator.backward(loss / settings.accumulate)
                logs |= own_logs
                if last:
                    for group in optimizer.param_groups:
                        group["lr"] = settings.learning_rate(step)
                    logs[name] = nn.utils.clip_grad_norm_(own.parameters(), settings.clip)
                    optimizer.step()
                    optimizer.zero_grad()
        ema.update(modules, step)
        bar.update()

        done = step + 1
        logged, validated, saved = (
            done % every == 0 or done == settings.steps
            for every in (settings.log_every, settings.validate_every, settings.save_every)
        )
        if logged or saved:
            numbers_now = {key: float(value) for key, value in logs.items()}
            if not all(math.isfinite(v) for v in numbers_now.values()):
                raise FloatingPointError(
                    f"Training diverged near step {done} ({numbers_now}). The last checkpoint in {out} is sound; "
                    f"train in another folder with a lower learning rate ({settings.lr:g}) or norm of the gradient "
                    f"(clip, {settings.clip:g})."
                )
            seconds = time.perf_counter() - began
            log.write(step=done, lr=settings.learning_rate(step), seconds=round(seconds, 1), **numbers_now)
            bar.set_postfix({key: f"{value:.4g}" for key, value in numbers_now.items()}, refresh=False)
        if validated:
            if validation is not None:
                with autocast(accelerator.device, dtype):
                    error = validate(ema.module["objectives"], validation, settings.batch, accelerator)
                log.write(step=done, validation=error)
                if settings.patience is not None and log.since_best() == 0:
                    write(out / "best", done)
            if preview is not None and accelerator.is_main_process:
                images.save(images.grid(preview(ema.module["prior"])), out / f"samples-{done:07d}.png")
        if saved:
            write(out / f"step-{done:07d}", done)
    bar.close()

    if settings.patience is not None and (out / "best").exists():
        checkpoint.load(out / "best", parts, optimizers)
    result = ema.module["prior"].eval()
    if finish is not None:
        finish(result)
    if accelerator.is_main_process:
        origin = {
            **(card or {}),
            "settings": asdict(settings),
            "steps": done,
            "seconds": round(time.perf_counter() - began),
            "device": device_name(accelerator.device),
            "processes": accelerator.num_processes,
            "torch": torch.__version__,
        }
        checkpoint.write_folder(out / "prior", lambda folder: write_prior(result, folder, origin))
    accelerator.wait_for_everyone()
    return result


@torch.no_grad()
def validate(objectives: Iterable[nn.Module], data: Dataset, batch: int, accelerator: Accelerator) -> float:
    """Mean over `data` of the summed losses of the objectives: the same items and noise every time."""
    total, count = 0.0, 0
    for start in range(accelerator.process_index * batch, len(data), accelerator.num_processes * batch):
        items = [data[i] for i in range(start, min(start + batch, len(data)))]
        examples = {key: value.to(accelerator.device) for key, value in default_collate(items).items()}
        loss = sum(objective(examples, 0)[0] for objective in objectives)
        total, count = total + float(loss) * len(items), count + len(items)
    total, count = accelerator.reduce(torch.tensor([total, count], device=accelerator.device)).tolist()
    return total / count


def device_name(device: torch.device) -> str:
    """The accelerator's name, or the number of CPU threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


class _Log:
    """`log.jsonl` of a run; lines beyond the step a run resumes from are dropped, since they will be made again."""

    def __init__(self, out: Path, start: int, main: bool):
        self.path, self.main = out / "log.jsonl", main
        entries = self._read() if self.path.exists() else []
        kept = [entry for entry in entries if entry["step"] <= start]
        self.seconds = max((entry.get("seconds", 0.0) for entry in kept), default=0.0)
        self.errors = [entry["validation"] for entry in kept if "validation" in entry]
        if main:
            out.mkdir(parents=True, exist_ok=True)
            temporary = out / "log.jsonl.tmp"
            temporary.write_text("".join(json.dumps(entry) + "\n" for entry in kept))
            temporary.replace(self.path)

    def write(self, **entry) -> None:
        if "validation" in entry:
            self.errors.append(entry["validation"])
        if self.main:
            with open(self.path, "a") as file:
                file.write(json.dumps(entry) + "\n")

    def since_best(self) -> int:
        """How many validations there were since the one of least error."""
        return len(self.errors) - 1 - self.errors.index(min(self.errors)) if self.errors else 0

    def _read(self) -> list[dict]:
        entries = []
        for line in self.path.read_text().splitlines():
            # The machine may have stopped in the middle of a line.
            with contextlib.suppress(json.JSONDecodeError):
                entries.append(json.loads(line))
        return entries
