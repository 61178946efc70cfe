"""How to train: the numbers of a run, without torch, so that the command line can list them at once."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

# Settings that may differ when a run is resumed: the weights are the same, or the same to rounding (accumulate,
# precision, compile). `steps` has its own rule.
FREE = (
    "steps", "minutes", "accumulate", "auto_batch", "precision", "compile", "log_every", "validate_every", "save_every",
    "keep", "patience", "workers",
)  # fmt: skip

PRECISIONS = ("auto", "no", "bf16")

# What the values may be: names, whether one is allowed, what to give instead.
RULES: tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...] = (
    (
        ("steps", "batch", "accumulate", "log_every", "validate_every", "save_every", "keep"),
        lambda n: isinstance(n, int) and n >= 1,
        "a whole number, at least 1",
    ),
    (("minutes",), lambda n: n is None or 0 < n < math.inf, "a number above 0, or None"),
    (("patience",), lambda n: n is None or n >= 1, "a whole number, at least 1, or None"),
    (("lr", "warmup", "weight_decay", "workers", "seed"), lambda n: 0 <= n < math.inf, "a number, at least 0"),
    (("clip",), lambda n: n > 0, "a number above 0, inf for no limit"),
    (("decay",), lambda share: 0 <= share <= 1, "a fraction, from 0 to 1"),
    (("ema",), lambda share: 0 <= share < 1, "a number from 0 to 1, but not 1"),
    (("betas",), lambda pair: all(0 <= beta < 1 for beta in pair), "two numbers from 0 to 1, but not 1"),
    (("precision",), lambda word: word in PRECISIONS, '"auto", "no" or "bf16"; float16 gradients would underflow'),
)


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        steps: optimiser steps in all.
        minutes: of the clock in which the run is to end, or None: after the first steps, `steps` becomes the number
            that fits, at most as it was, and the learning rate falls with it. Where steps become slower, it ends at the
            minute all the same, with the averaged weights of that moment.
        batch: images per step, over all devices and micro-batches.
        lr: AdamW's learning rate at its height.
        warmup: steps over which it rises linearly.
        decay: last fraction of the steps, over which it falls linearly to zero; before that it does not depend on
            `steps`, so a run can be resumed with other steps as long as neither number has made it decay yet.
        weight_decay, betas: AdamW's.
        clip: largest norm of the gradient of an objective; inf for no limit.
        ema: decay of the moving average of the weights, which is what is kept.
        accumulate: micro-batches per step on each device: less memory, and the same step to rounding, unless a network
            looks at several images at once, as a discriminator that compares them does.
        auto_batch: whether more micro-batches are made where memory does not suffice; on one process only.
        precision: "no" (float32), "bf16" autocast of the networks, or "auto": bf16 where the device has instructions
            for it, found out anew whenever the run is begun or resumed.
        compile: whether objectives are compiled by torch.compile, in place.
        seed: keys initialisation by the caller, data, noise.
        log_every, validate_every, save_every: in steps.
        keep: newest checkpoints kept, besides the best.
        patience: validations without improvement after which training stops, or None to train to the end and keep the
            last weights. With a number, what is kept are the averaged weights of the best validation.
        workers: processes that load data.
    """

    steps: int
    minutes: float | None = None
    batch: int = 16
    lr: float = 5e-4
    warmup: int = 300
    decay: float = 0.3
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0
    ema: float = 0.999
    accumulate: int = 1
    auto_batch: bool = False
    precision: str = "auto"
    compile: bool = False
    seed: int = 0
    log_every: int = 50
    validate_every: int = 1000
    save_every: int = 500
    keep: int = 2
    patience: int | None = None
    workers: int = 0

    def __post_init__(self):
        for names, allowed, wanted in RULES:
            for name in names:
                if not allowed(value := getattr(self, name)):
                    raise ValueError(f"{name} is {value!r}: give {wanted}.")

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
        """These settings with what the run found out by itself before it was resumed, its own settings being `old`.

        Arguments:
            paced: whether its steps had been made the number that fits into its minutes.
        """
        steps = old["steps"] if paced else self.steps
        accumulate = old["accumulate"] if self.auto_batch else self.accumulate
        return replace(self, steps=steps, accumulate=accumulate)

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
        """Of the step with that number, the first being 0."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        fall = min(1.0, (self.steps - step) / (self.decay * self.steps)) if self.decay else 1.0
        return self.lr * rise * fall
