"""Handling of what goes wrong in long runs: signals, NaN, too little memory, a full disk."""

import contextlib
import errno
import gc
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor

from genprior.training.settings import Settings

T = TypeVar("T")
STOP_EVERY = 10  # steps between agreements of several processes on whether to stop


class Stop:
    """Within `with`, SIGINT (Ctrl-C) and SIGTERM set `wanted`; a second one acts as usual.

    A signal that is already ignored, as Ctrl-C is in a shell's background jobs, stays ignored.
    """

    def __init__(self):
        self.wanted = False
        self._usual: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        # Python allows signal handlers in the main thread only.
        if threading.current_thread() is threading.main_thread():
            heard = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
            self._usual = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(self, *_) -> None:
        while self._usual:
            signal.signal(*self._usual.popitem())

    def _note(self, number: int, frame) -> None:
        self.wanted = True
        self.__exit__()


def agreed(wanted: bool, accelerator, step: int) -> bool:
    """Return whether any process wants something after this step; several processes ask only at every tenth step."""
    if accelerator.num_processes == 1:
        return wanted
    if step % STOP_EVERY:
        return False
    return bool(accelerator.reduce(torch.tensor(float(wanted), device=accelerator.device)) > 0)


def ignore_signals(worker: int) -> None:
    """Ignore signals in a process that loads data: Ctrl-C reaches it too, but the last step still needs it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


class Finite:
    """A record of whether losses and gradient norms were finite at every step.

    The values stay on the device until `check` reads them, so no step waits for the device; the error still names the
    step.
    """

    def __init__(self):
        self._seen: list[tuple[int, Tensor]] = []

    def note(self, step: int, loss: Tensor, norm: Tensor) -> None:
        self._seen.append((step, loss + norm))  # finite if both are

    def check(self, settings: Settings, out: Path) -> None:
        """Check what was noted since the last check.

        Raises:
            FloatingPointError: the loss or gradient of some step was not finite.
        """
        steps, values = [step for step, _ in self._seen], [value for _, value in self._seen]
        self._seen = []
        bad = (~torch.stack(values).isfinite()).tolist() if values else []
        if any(bad):
            step = steps[bad.index(True)]
            raise FloatingPointError(
                f"Training diverged at step {step + 1}: its loss or gradient is not finite, at a learning rate of "
                f"{settings.learning_rate(step):g}. The last checkpoint in {out} is from before and sound. Train in "
                f"another folder with a lower learning rate (lr), a lower norm of gradients (clip, {settings.clip:g}), "
                'a longer warmup, or precision="no"; if it is step 1, look at the data.'
            )


@contextlib.contextmanager
def looking(what: str, step: int | None = None) -> Iterator[None]:
    """Within `with`, for code that only observes the training: errors become warnings, and training goes on."""
    try:
        yield
    except Exception as error:  # whatever it is, the training matters more
        at = "" if step is None else f" at step {step}"
        warnings.warn(f"{what} failed{at} ({type(error).__name__}: {error}); training goes on.", stacklevel=3)


@contextlib.contextmanager
def rescued(save: Callable[[], None]) -> Iterator[None]:
    """Within `with`, call `save()` before an error propagates; an error of `save()` itself is suppressed.

    `save()` is not called if training diverged, which leaves nothing to save, nor on a second Ctrl-C, which does not
    wait.
    """
    try:
        yield
    except FloatingPointError:
        raise
    except Exception:
        with contextlib.suppress(Exception):
            save()
        raise


def out_of_memory(error: BaseException) -> bool:
    """Return whether torch or Python ran out of memory, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def fitted(attempt: Callable[[int], T], parts: int, images: int, *, auto: bool, again: bool = True) -> tuple[T, int]:
    """Return `attempt(parts)`, with more parts if memory runs out, and the number of parts that fitted.

    Arguments:
        attempt: gives the same result for any number of parts, and may be called again after it failed.
        parts: initial number of micro-batches.
        images: number of images that the parts share evenly.
        auto: whether to go on with more parts; else a number that fits is sought only to name it in the error.
        again: whether a failed attempt may be repeated.

    Raises:
        MemoryError: memory does not suffice; the message says what was tried and what would fit.
    """
    failed = []
    while True:
        try:
            result = attempt(parts)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if not again:
                raise MemoryError(
                    f"{images // parts} images at once do not fit into memory: train with accumulate={2 * parts} or "
                    "more (micro-batches; the step stays the same)."
                ) from error
        else:
            if failed and not auto:
                raise MemoryError(
                    f"{images // failed[0]} images at once do not fit into memory, {images // parts} do: train with "
                    f"accumulate={parts} (micro-batches; the step stays the same), or auto_batch to have them made."
                )
            return result, parts
        # Only here are the frames of the failed attempt gone, with the memory they held.
        gc.collect()
        torch.cuda.empty_cache()
        failed.append(parts)
        parts = next((n for n in range(2 * parts, images + 1) if images % n == 0), 0)
        if not parts:
            raise MemoryError(
                f"Even {images // failed[-1]} image(s) at once do not fit into memory: train on smaller images (size), "
                'with precision="bf16", or with a smaller network.'
            )


@contextlib.contextmanager
def full_disk_explained(out: Path) -> Iterator[None]:
    """Within `with`, explain the error of a full disk: what is safe and what to do."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = next((n for n in (errno.ENOSPC, errno.EDQUOT) if _has_number(error, n)), None)
        if number is None:
            raise
        raise OSError(
            number,
            f"The disk of {out} is full. The checkpoints that are there are whole: free some space and call again, and "
            "training goes on from the newest",
        ) from error


def _has_number(error: OSError | SafetensorError, number: int) -> bool:
    """Return whether the system's error has that number, which safetensors gives only in its message."""
    return error.errno == number if isinstance(error, OSError) else f"(os error {number})" in str(error)
