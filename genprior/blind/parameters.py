"""The parameters of operators that a measurement can identify, and what is known about them beforehand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from genprior.checks import UnsupportedError, as_number
from genprior.operators.build import canonical


@dataclass(frozen=True)
class Parameter:
    """A number theta of an operator, uniform on its range unless `log_density` says more.

    Attributes:
        name: as the operator has it.
        low, high: the ends of its range.
        cell: the largest size of its first cells.
        period: of a number on a circle; else None.
        log_density: ln of the density of theta, up to a constant.
    """

    name: str
    low: float
    high: float
    cell: float
    period: float | None = None
    log_density: Callable[[Tensor], Tensor] | None = None

    def edges(self) -> Tensor:
        """The edges of the first cells, ascending, float64."""
        number = max(1, math.ceil((self.high - self.low) / self.cell - 1e-9))
        return torch.linspace(self.low, self.high, number + 1, dtype=torch.float64)


IDENTIFIABLE: dict[str, tuple[Parameter, ...]] = {
    "motion-deblur": (Parameter("length", 1, 31, 1.5), Parameter("angle", 0, 180, 7.5, period=180)),
    "gaussian-deblur": (Parameter("width", 0, 5, 0.2),),
    "denoise": (),
}
WIDEST = {"length": (1, 61), "width": (0, 10), "angle": (-math.inf, math.inf)}
TURNS = 2  # of a law on a circle that are added up


def left_out(op: Any, given: dict[str, Any]) -> list[str]:
    """The identifiable parameters of a named operator that were not given, or given as a range or a law."""
    if not isinstance(op, str):
        return []
    return [each.name for each in IDENTIFIABLE.get(canonical(op), ()) if not isinstance(given.get(each.name), Real)]


def split(op: str, given: dict[str, Any]) -> tuple[list[Parameter], dict[str, Any]]:
    """The parameters to identify, with what was stated about them; and the known ones.

    Raises:
        UnsupportedError: no parameter of that operator can be identified.
        ValueError: a range is invalid, or beyond what the operator takes.
    """
    name = canonical(op)
    if name not in IDENTIFIABLE:
        raise UnsupportedError(
            f"Nothing of {name} is identified: give its parameters. Identified are "
            + "; ".join(f"{op} ({', '.join(p.name for p in known) or 'noise'})" for op, known in IDENTIFIABLE.items())
            + "."
        )
    unknown = left_out(name, given)
    wanted = [_said(each, given.get(each.name)) for each in IDENTIFIABLE[name] if each.name in unknown]
    return wanted, {key: value for key, value in given.items() if key not in unknown}


def _said(parameter: Parameter, given: Any) -> Parameter:
    """The parameter with the given range, (low, high), or law, which is anything with `log_prob`, such as torch's."""
    name, cell, period = parameter.name, parameter.cell, parameter.period
    if given is None:
        return parameter
    if hasattr(given, "log_prob"):
        low, high = (parameter.low, parameter.high) if period is not None else WIDEST[name]
        return Parameter(name, low, high, cell, period, density(given, period))
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise ValueError(
            f"{name} is a number where it is known, a range (low, high) or a law such as torch.distributions.Normal"
            f"(15., 3.) where it is not, or left out; got {given!r}."
        )
    low, high = (as_number(name, each, *WIDEST[name]) for each in given)
    if not low < high or (period is not None and high - low > period):
        longest = "" if period is None else f" and at most {period:g} apart"
        raise ValueError(f"A range of {name} is (low, high), low below high{longest}; got {given!r}.")
    return Parameter(name, low, high, cell, period)


def _support(law: Any) -> Any:
    """Return where a law of torch has its mass, a constraint; None if it does not say, or is of another kind."""
    says = isinstance(law, Distribution) and type(law).support is not Distribution.support
    return law.support if says else None


def density(law: Any, period: float | None) -> Callable[[Tensor], Tensor]:
    """theta (n,) -> ln of the density of a law, (n,); of a number on a circle, summed over `TURNS` either way."""

    def log_prob(theta: Tensor) -> Tensor:
        support = _support(law)
        if support is None:
            return torch.as_tensor(law.log_prob(theta)).double()
        inside = support.check(theta)  # elsewhere, torch's laws raise an error
        found = torch.full_like(theta, -math.inf)
        found[inside] = torch.as_tensor(law.log_prob(theta[inside])).to(found)
        return found

    if period is None:
        return log_prob
    return lambda theta: torch.stack([log_prob(theta + k * period) for k in range(-TURNS, TURNS + 1)]).logsumexp(0)
