"""The settings of a training run, without torch, so that the command line can list them at once."""

import json
import math
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

PRECISIONS = ("auto", "no", "bf16")
OPTIMIZERS = ("adamw", "muon")


def count(text: str) -> int | None:
    return None if text == "none" else int(text)


def minutes(text: str) -> float | None:
    return None if text == "none" else float(text)


@dataclass(frozen=True)
class Kind:
    """The kind of a setting: how to read a value from a string, which are allowed, and what to advise for others."""

    type: Callable[[str], Any]
    allowed: Callable[[Any], bool]
    wanted: str


COUNT = Kind(int, lambda n: isinstance(n, int) and n >= 1, "a whole number, at least 1")
WHOLE = Kind(int, lambda n: 0 <= n < math.inf, "a number, at least 0")
NUMBER = replace(WHOLE, type=float)
MINUTES = Kind(minutes, lambda n: n is None or 0 < n < math.inf, "a number above 0, or None")
PATIENCE = Kind(count, lambda n: n is None or n >= 1, "a whole number, at least 1, or None")
NORM = Kind(float, lambda n: n > 0, "a number above 0, inf for no limit")
SHARE = Kind(float, lambda share: 0 <= share <= 1, "a fraction, from 0 to 1")
DECAY = Kind(float, lambda share: 0 <= share < 1, "a number from 0 to 1, but not 1")
DECAYS = Kind(float, lambda pair: all(map(DECAY.allowed, pair)), "two numbers from 0 to 1, but not 1")
NAME = Kind(str, lambda word: word in PRECISIONS, '"auto", "no" or "bf16"; float16 gradients would underflow')
OPTIMIZER = Kind(str, lambda word: word in OPTIMIZERS, '"adamw" or "muon"')
SWITCH = Kind(bool, lambda on: on in (True, False), "True or False")


def setting(default: Any, kind: Kind, text: str, *flags: str, free: bool = False) -> Any:
    """A field of `Settings`, with its description in the metadata.

    Arguments:
        text: description that the command line shows; further remarks stand above the field.
        flags: alternative names of its flag.
        free: whether it may change when a run resumes, because the weights stay the same, at least up to rounding.
    """
    return field(default=default, metadata={"kind": kind, "text": text, "flags": flags, "free": free})


_free = partial(setting, free=True)


@dataclass(frozen=True)
class Settings:
    """How to train; the metadata of each field describes it, see `setting`."""

    # Free, but only within the rule of `check_resumable`.
    steps: int = _free(MISSING, COUNT, "optimiser steps in all", "--max-train-steps")
    # After the first steps, `steps` becomes the number that fits, never more than before, and the learning rate follows
    # it. If steps become slower, the run still ends on time, with the averaged weights of that moment.
    minutes: float | None = _free(None, MINUTES, "of the clock in which to end: as many of the steps as fit")
    batch: int = setting(16, COUNT, "images per step, over all devices and micro-batches", "--train-batch-size")
    optimizer: str = setting("adamw", OPTIMIZER, "adamw, or muon: for kernels of convolutions, adamw for the rest")
    lr: float = setting(5e-4, NUMBER, "learning rate at its height", "--learning-rate")
    warmup: int = setting(300, WHOLE, "steps over which it rises linearly", "--lr-warmup-steps")
    # Before its decay, the learning rate does not depend on `steps`, so a run can resume with another number as long as
    # it has begun to decay under neither.
    decay: float = setting(0.3, SHARE, "last fraction of the steps, over which it falls linearly to zero")
    weight_decay: float = setting(1e-4, NUMBER, "AdamW's", "--adam-weight-decay")
    betas: tuple[float, float] = setting((0.9, 0.99), DECAYS, "AdamW's")
    clip: float = setting(1.0, NORM, "largest norm of the gradient of an objective, or inf", "--max-grad-norm")
    ema: float = setting(
        0.999, DECAY, "decay of the moving average of the weights, which is what is kept", "--ema-decay"
    )
    # The same step up to rounding, unless a network compares several images, as a discriminator may.
    accumulate: int = _free(
        1, COUNT, "micro-batches per step on each device: less memory, the same step", "--gradient-accumulation-steps"
    )
    auto_batch: bool = _free(False, SWITCH, "make more micro-batches where memory does not suffice (on one process)")
    # The device's fast precision is determined anew whenever the run starts or resumes.
    precision: str = _free(
        "auto", NAME, "no (float32), bf16, or auto: bf16 where the device is fast in it", "--mixed-precision"
    )
    compile: bool = _free(False, SWITCH, "compile the networks: slow to begin, then faster on a GPU")
    seed: int = setting(0, WHOLE, "of initial weights, data and noise")
    log_every: int = _free(50, COUNT, "steps from one line of log.jsonl to the next", "--logging-steps")
    validate_every: int = _free(
        1000, COUNT, "steps from one validation and sheet of samples to the next", "--validation-steps"
    )
    save_every: int = _free(500, COUNT, "steps from one checkpoint to the next", "--checkpointing-steps")
    keep: int = _free(2, COUNT, "newest checkpoints kept, besides the best", "--checkpoints-total-limit")
    # With None, the run goes on to the end and keeps the last averaged weights.
    patience: int | None = _free(
        None, PATIENCE, "validations without improvement after which to stop, with the best weights; or none"
    )
    workers: int = _free(0, WHOLE, "processes that load data", "--dataloader-num-workers")

    def __post_init__(self):
        for each in fields(self):
            kind, value = each.metadata["kind"], getattr(self, each.name)
            if not kind.allowed(value):
                raise ValueError(f"{each.name} is {value!r}: give {kind.wanted}.")

    def check_shareable(self, processes: int) -> None:
        """Refuse a batch that the processes and their micro-batches cannot share evenly."""
        share = self.accumulate * processes
        if self.batch % share:
            raise ValueError(
                f"A batch of {self.batch} cannot be shared by {processes} processes x {self.accumulate} micro-batches; "
                f"make it a multiple of {share}."
            )
        if self.auto_batch and processes > 1:
            raise ValueError(
                "auto_batch is for one process, since processes cannot wait for one that tries again: find the number "
                "of micro-batches that fits on one, then give it as accumulate."
            )

    def resumed(self, old: dict[str, Any], paced: bool) -> "Settings":
        """Return these settings with the values that the run itself had determined before, taken from `old`.

        Arguments:
            old: settings of the run before it was resumed.
            paced: whether its number of steps had been fixed to what fits into its minutes.
        """
        steps = old["steps"] if paced else self.steps
        accumulate = old["accumulate"] if self.auto_batch else self.accumulate
        return replace(self, steps=steps, accumulate=accumulate)

    def check_resumable(self, step: int, old: dict[str, Any], folder: Path) -> None:
        """Refuse to resume a run at `step` if its `old` settings, read from JSON, lead to other weights than these."""
        new = json.loads(json.dumps(asdict(self)))
        changed = [
            f"{each.name} is {new[each.name]!r}, not {old.get(each.name)!r}"
            for each in fields(self)
            if not each.metadata["free"] and new[each.name] != old.get(each.name)
        ]
        if changed:
            raise ValueError(
                f"The run in {folder} was begun with other settings: {'; '.join(changed)}. "
                "Resume with those it has, or train in another folder."
            )
        # If the rates of the last step agree, neither has begun to decay, so those of all earlier steps agree too.
        if step and self.learning_rate(step - 1) != replace(self, steps=old["steps"]).learning_rate(step - 1):
            raise ValueError(
                f"The run in {folder} is at step {step}, where the learning rates of {old['steps']} steps and of "
                f"{self.steps} differ, since one decays: resume with steps={old['steps']}, or train in another folder."
            )

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of step number `step`, counted from 0."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        fall = min(1.0, (self.steps - step) / (self.decay * self.steps)) if self.decay else 1.0
        return self.lr * rise * fall


_ATTRIBUTES = "\n".join(f"    {each.name}: {each.metadata['text']}." for each in fields(Settings))
Settings.__doc__ = f"{Settings.__doc__}\n\nAttributes:\n{_ATTRIBUTES}"
