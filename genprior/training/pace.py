"""The number of steps that fit into a run's minutes, so that its learning rate falls to zero within them.

A learning rate that followed the clock would make every run different. Instead, the first steps are timed, the number
that fits becomes the run's number of steps, and from then on the run is a function of its settings like any other.
"""

import math
import time
from dataclasses import replace

import torch

from genprior.training.faults import agreed
from genprior.training.settings import Settings

WARM, TIMED = 4, 20  # warm-up steps, which are not timed; steps after which the number is fixed
SHARE = 0.9  # fraction of the remaining time for steps; the rest is for validations, sheets and checkpoints


class Pace:
    """The clock of a run.

    Attributes:
        fixed: whether the number of steps has been fixed to what fits into the minutes.

    Arguments:
        settings: of the run; without `minutes`, nothing is timed.
        start: step at which the run now starts or resumes.
        fixed: whether the number of steps was fixed, for the same minutes, before the run was resumed.
        began: when the run began, by `time.perf_counter`, as if it had never stopped.
        accelerator: Accelerate's; the main process's clock counts.
    """

    def __init__(self, settings: Settings, start: int, fixed: bool, began: float, accelerator):
        self.accelerator, self.start, self.fixed = accelerator, start, fixed
        self.end = math.inf if settings.minutes is None else began + 60 * settings.minutes
        self._since = 0.0

    def paced(self, settings: Settings, done: int) -> Settings:
        """Return the settings after `done` steps, with other `steps` once their number is known or the time is up."""
        if self.end == math.inf or done == settings.steps:
            return settings
        since_start = done - self.start
        if not self.fixed and since_start in (WARM, TIMED) and self.accelerator.device.type == "cuda":
            torch.cuda.synchronize(self.accelerator.device)
        now = time.perf_counter()
        if since_start == WARM:
            self._since = now
        if not self.fixed and since_start == TIMED:
            from accelerate.utils import broadcast_object_list

            seconds = (now - self._since) / (TIMED - WARM)
            more = max(1, int(SHARE * (self.end - now) / seconds))
            (steps,) = broadcast_object_list([min(settings.steps, done + more)])
            self.fixed = True
            return replace(settings, steps=steps)
        if agreed(now > self.end, self.accelerator, done):
            self.fixed = True
            return replace(settings, steps=done)
        return settings
