"""How many steps fit into the minutes that a run may take, so that its learning rate falls to zero within them.

A learning rate that follows the clock would make every run another one. So the first steps are timed, the number that
fits is made the run's number of steps, and from there on the run is a function of its settings like any other.
"""

import math
import time
from dataclasses import replace

import torch

from genprior.training.faults import agreed
from genprior.training.settings import Settings

WARM, TIMED = 4, 20  # steps that are not timed, since they warm up; and those after which the number is fixed
SHARE = 0.9  # of the time that is left, for steps; the rest is for validations, sheets and checkpoints


class Pace:
    """The clock of a run.

    Attributes:
        fixed: whether the number of steps is what fits into the minutes, for good.

    Arguments:
        settings: of the run; without `minutes`, nothing is timed.
        start: step it begins from, here and now.
        fixed: whether its number of steps was fixed before it was resumed, for minutes of its own.
        began: when the run began by `time.perf_counter`, were it never stopped.
        accelerator: Accelerate's; the main process's clock counts.
    """

    def __init__(self, settings: Settings, start: int, fixed: bool, began: float, accelerator):
        self.accelerator, self.start, self.fixed = accelerator, start, fixed
        self.end = math.inf if settings.minutes is None else began + 60 * settings.minutes
        self._since = 0.0

    def paced(self, settings: Settings, done: int) -> Settings:
        """The settings after `done` steps: with other `steps` once these are known, or the time is up."""
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
