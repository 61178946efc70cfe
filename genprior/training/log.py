"""The log of a run: `log.jsonl` always, other trackers on request."""

import contextlib
import importlib.util
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from genprior.files import write_text
from genprior.training.faults import looking
from genprior.training.settings import Settings

TRACKERS = {"tensorboard": "tensorboard", "wandb": "wandb", "trackio": "trackio"}  # the package of each


class Log:
    """`log.jsonl` of a run; lines beyond the step a run resumes from are dropped, since they will be written again.

    Arguments:
        out: folder of the run.
        start: step it resumes from.
        accelerator: Accelerate's; its main process writes to the file and to its trackers.
    """

    def __init__(self, out: Path, start: int, accelerator):
        self.path, self.accelerator = out / "log.jsonl", accelerator
        entries = self._read() if self.path.exists() else []
        kept = [entry for entry in entries if entry["step"] <= start]
        self.seconds = max((entry.get("seconds", 0.0) for entry in kept), default=0.0)
        if accelerator.is_main_process:
            write_text(self.path, "".join(json.dumps(entry) + "\n" for entry in kept))

    def write(self, step: int, **entry: float) -> None:
        """Write an entry to disk and to the trackers; a tracker's error is only a warning."""
        if self.accelerator.is_main_process:
            with open(self.path, "a") as file:
                file.write(json.dumps({"step": step, **entry}) + "\n")
                file.flush()
                os.fsync(file.fileno())
        with looking("log_with", step):
            self.accelerator.log(entry, step=step)

    def _read(self) -> list[dict]:
        entries = []
        for line in self.path.read_text().splitlines():
            # The machine may have stopped in the middle of a line.
            with contextlib.suppress(json.JSONDecodeError):
                entries.append(json.loads(line))
        return entries


def check_trackers(names: list) -> None:
    """Refuse trackers that are unknown or not installed: Accelerate would silently log nothing."""
    for name in names:
        if not isinstance(name, str):  # a tracker itself, see accelerate.tracking.GeneralTracker
            continue
        if name not in TRACKERS:
            raise ValueError(f"log_with is {name!r}: give {', '.join(TRACKERS)}; log.jsonl is written in any case.")
        if importlib.util.find_spec(TRACKERS[name]) is None:
            raise ValueError(f"The tracker {name} is not installed: pip install {TRACKERS[name]}")


@contextlib.contextmanager
def trackers_begun(accelerator, name: str, settings: Settings) -> Iterator[None]:
    """Start the trackers of `accelerator` with the settings, and finish them however the training ends."""
    plain = (bool, int, float, str)
    config = {key: value if isinstance(value, plain) else str(value) for key, value in asdict(settings).items()}
    accelerator.init_trackers(name, config)
    try:
        yield
    finally:
        for tracker in accelerator.trackers:
            with looking("log_with"):
                tracker.finish()
