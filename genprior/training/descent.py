"""One step of every objective's optimiser: gradient accumulation over micro-batches, clipping, AdamW or Muon."""

import contextlib

import torch
from torch import Tensor, nn

from genprior.priors.base import autocast
from genprior.training import faults
from genprior.training.muon import Muon
from genprior.training.settings import Settings

Batch = dict[str, Tensor]

KINDS: dict[str, type[torch.optim.AdamW]] = {"adamw": torch.optim.AdamW, "muon": Muon}


class Descent:
    """The optimisers of the objectives, in order, and their state between steps.

    Attributes:
        optimizers: one per objective, see `Settings.optimizer`.
        accumulate: number of micro-batches per step, which grows where memory runs out if `auto_batch` is set.
        finite: records whether all losses and gradients were finite.
        whole: whether the weights are those of a whole step; the caller of `step` sets it after updating the average.

    Arguments:
        objectives: on their device, with initial weights.
        settings: see `Settings`.
        dtype: of the autocast in which the objectives compute; None for no autocast.
        accelerator: Accelerate's, which combines the gradients of all processes.
    """

    def __init__(self, objectives: list[nn.Module], settings: Settings, dtype: torch.dtype | None, accelerator):
        self.settings, self.dtype, self.accelerator = settings, dtype, accelerator
        self.parameters = [[p for p in objective.parameters() if p.requires_grad] for objective in objectives]
        kind = KINDS[settings.optimizer]
        self.optimizers = [
            kind(own, lr=0.0, weight_decay=settings.weight_decay, betas=settings.betas, fused=True)
            for own in self.parameters
        ]
        names = [f"gradient {type(own).__name__}" for own in objectives] if len(objectives) > 1 else ["gradient"]
        self.names, self.finite = names, faults.Finite()
        self.accumulate, self.whole = settings.accumulate, True
        self.share = settings.batch // accelerator.num_processes
        if settings.compile:
            for objective in objectives:
                objective.compile()  # in place, so that the names of the weights stay as they are
        self.objectives = [accelerator.prepare(objective) for objective in objectives]

    def step(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Take step `step` on this process's share of the batch, and return the objectives' logs, on the device."""
        logs: dict[str, Tensor] = {}
        for name, objective, own, optimizer in zip(self.names, self.objectives, self.parameters, self.optimizers):
            for group in optimizer.param_groups:
                group["lr"] = self.settings.learning_rate(step)
            loss, own_logs = self._fitted_gradient(objective, optimizer, batch, step)
            norm = nn.utils.clip_grad_norm_(own, self.settings.clip)
            self.finite.note(step, loss, norm)
            self.whole = False
            optimizer.step()
            optimizer.zero_grad()
            logs |= own_logs | {name: norm}
        return logs

    def _fitted_gradient(self, objective, optimizer, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        def attempt(parts: int) -> tuple[Tensor, dict[str, Tensor]]:
            optimizer.zero_grad()
            return self._gradient(objective, batch, step, parts)

        again = self.accelerator.num_processes == 1
        auto = self.settings.auto_batch
        result, self.accumulate = faults.fitted(attempt, self.accumulate, self.share, auto=auto, again=again)
        return result

    def _gradient(self, objective, batch: Batch, step: int, parts: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Leave the gradient of the mean loss in the parameters; return mean loss and logs of the micro-batches."""
        columns = [values.chunk(parts) for values in batch.values()]
        losses, logs = [], []
        for k, rows in enumerate(zip(*columns)):
            # Processes exchange the accumulated gradient once, in the last micro-batch.
            with contextlib.nullcontext() if k == parts - 1 else self.accelerator.no_sync(objective):
                with autocast(self.accelerator.device, self.dtype):
                    loss, own_logs = objective(dict(zip(batch, rows)), step)
                self.accelerator.backward(loss / parts if parts > 1 else loss)
            losses.append(loss.detach())
            logs.append(own_logs)
        if parts == 1:
            return losses[0], logs[0]
        return torch.stack(losses).mean(), {key: torch.stack([one[key] for one in logs]).mean() for key in logs[0]}
