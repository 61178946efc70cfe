"""A posterior over a few numbers, on cells that are small where it is large.

Notation: theta the unknown parameters, (d,); a cell a box of theta in which its density counts as constant; L the
number of noise levels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genprior.blind.parameters import Parameter

HEAVY = 0.01  # of the posterior: a cell that holds more is divided
# Of the likelihood, at each division of cells; low at first, so as not to miss a mode between centres.
POWERS = (0.3, 0.5, 1, 1, 1, 1)
BETWEEN = 32  # noise levels for each that was evaluated


@dataclass(frozen=True, eq=False)
class Cells:
    """Boxes that fill the range of theta, each with the likelihood at its centre.

    Attributes:
        low, high: the corners of the boxes, (n, d).
        noise: ascending levels, (L,).
        log_likelihood: ln p(y | theta, noise), (n, L), in nats up to a constant; tempered if the likelihood of y is.
        log_prior: ln of the prior probability of each cell, (n,), up to a constant; the same at all noise levels.
    """

    low: Tensor
    high: Tensor
    noise: Tensor
    log_likelihood: Tensor
    log_prior: Tensor

    @property
    def centres(self) -> Tensor:
        return (self.low + self.high) / 2

    @property
    def probabilities(self) -> Tensor:
        """The posterior, of sum 1, (n, L)."""
        return torch.softmax((self.log_likelihood + self.log_prior[:, None]).flatten(), 0).view_as(self.log_likelihood)

    def tempered(self, power: float) -> Tensor:
        """The posterior of theta with the likelihood to that power, (n,)."""
        return torch.softmax(power * self.log_likelihood.logsumexp(1) + self.log_prior, 0)

    @property
    def information(self) -> float:
        """What y says about theta, in nats: the divergence of the posterior from the prior."""
        p = self.probabilities.sum(1)
        return float(torch.where(p > 0, p * (p.log() - self.log_prior.log_softmax(0)), 0).sum())


def explore(
    log_likelihood: Callable[[Tensor], Tensor], parameters: list[Parameter], noise: Tensor, of_noise: float = 1.0
) -> Cells:
    """Evaluate all cells of the parameters' ranges, then divide those with more than `HEAVY` of the posterior.

    Arguments:
        log_likelihood: theta (d,) -> (L,), at the noise levels.
        parameters: what theta consists of.
        noise: (L,).
        of_noise: the power of the likelihood of the noise given theta; the likelihood of theta is unchanged.
    """
    edges = [each.edges() for each in parameters]
    low, high = (
        torch.tensor(list(itertools.product(*(e[part].tolist() for e in edges))), dtype=torch.float64)
        for part in (slice(None, -1), slice(1, None))
    )

    def looked_at(low: Tensor, high: Tensor) -> Cells:
        found = torch.stack([log_likelihood(theta) for theta in (low + high) / 2]).double()
        return Cells(low, high, noise, found, _log_prior(low, high, parameters))

    cells = _joined([looked_at(low, high)])
    _check_possible(cells, parameters)
    for power in POWERS if parameters else ():
        heavy = cells.tempered(power) > HEAVY
        if not heavy.any():
            break
        kept = Cells(
            cells.low[~heavy], cells.high[~heavy], noise, cells.log_likelihood[~heavy], cells.log_prior[~heavy]
        )
        cells = _joined([kept, looked_at(*_divided(cells.low[heavy], cells.high[heavy]))])
    return _between_levels(cells, of_noise)


def _log_prior(low: Tensor, high: Tensor, parameters: list[Parameter]) -> Tensor:
    """ln of each cell's volume times the density at its centre, up to a constant."""
    found = (high - low).log().sum(1)
    for theta, each in zip(((low + high) / 2).T, parameters):
        if each.log_density is not None:
            found = found + torch.as_tensor(each.log_density(theta)).double()
    return found


def _check_possible(cells: Cells, parameters: list[Parameter]) -> None:
    if cells.log_prior.isfinite().any():
        return
    ranges = ", ".join(f"{each.name} from {each.low:g} to {each.high:g}" for each in parameters)
    raise ValueError(f"The laws given have no mass where a blur is looked for, {ranges}: give wider ones, or ranges.")


def _joined(parts: list[Cells]) -> Cells:
    low, high, found, prior = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("low", "high", "log_likelihood", "log_prior")
    )
    return Cells(low, high, parts[0].noise, found, prior)


def _divided(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Halve every cell along each axis, into 2^d cells."""
    halves = torch.tensor(list(itertools.product((0.0, 0.5), repeat=low.shape[1])), dtype=low.dtype)
    low, side = low[:, None], (high - low)[:, None]
    corners = low + halves * side
    return corners.flatten(0, 1), (corners + side / 2).flatten(0, 1)


def _between_levels(cells: Cells, of_noise: float) -> Cells:
    """Interpolate ln p by a cubic spline in ln noise, and raise the likelihood of the noise to the power `of_noise`."""
    from scipy.interpolate import CubicSpline

    if len(cells.noise) < 4:
        return cells
    at = cells.noise.log().numpy()
    finer = np.linspace(at[0], at[-1], BETWEEN * (len(at) - 1) + 1)
    values = torch.from_numpy(CubicSpline(at, cells.log_likelihood.numpy(), axis=1)(finer))
    values = values.logsumexp(1, keepdim=True) + (of_noise * values).log_softmax(1)
    return Cells(cells.low, cells.high, torch.from_numpy(np.exp(finer)), values, cells.log_prior)
