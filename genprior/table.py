"""Tables of measured figures, each with its standard error: Markdown to read, CSV to compute with."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch


class Estimate(NamedTuple):
    """A measured number and its standard error, or None without one."""

    value: float
    error: float | None = None

    @classmethod
    def mean(cls, values: Sequence[float] | torch.Tensor) -> "Estimate":
        """The mean of independent values, with its standard error from their spread; None for a single value."""
        values = torch.as_tensor(values, dtype=torch.float64).flatten()
        n = len(values)
        return cls(float(values.mean()), float(values.std() / math.sqrt(n)) if n > 1 else None)

    @classmethod
    def average(cls, figures: Sequence["Estimate"]) -> "Estimate":
        """The mean of independent figures, with the standard error that follows from theirs."""
        n, errors = len(figures), [each.error for each in figures if each.error is not None]
        return cls(sum(each.value for each in figures) / n, math.hypot(*errors) / n if len(errors) == n else None)

    def __str__(self) -> str:
        """The value to the second digit of its standard error, or to four digits if there is none."""
        # An error that is only rounding says no more than none.
        if self.error is None or not abs(self.error) > 1e-9 * abs(self.value) or not math.isfinite(self.error):
            return f"{self.value:.4g}"
        decimals = max(0, 1 - math.floor(math.log10(self.error)))
        return f"{self.value:.{decimals}f} ± {self.error:.{decimals}f}"


Cell = str | int | float | Estimate | None


@dataclass(frozen=True)
class Table:
    """Rows of cells by column name; a cell that a row lacks is empty.

    Attributes:
        rows: column name -> cell; the columns are those of all rows, in the order in which they first appear.
    """

    rows: list[dict[str, Cell]]

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def markdown(self) -> str:
        """A pipe table, figures as value ± standard error."""
        lines = [self.columns, ["---"] * len(self.columns)]
        lines += [[_shown(row.get(name)) for name in self.columns] for row in self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"

    def csv(self) -> str:
        """Comma-separated values in full precision, a column "… standard error" beside each that has figures."""
        with_error = [name for name in self.columns if any(isinstance(row.get(name), Estimate) for row in self.rows)]
        header = [c for name in self.columns for c in ([name, _error(name)] if name in with_error else [name])]
        text = io.StringIO()
        writer = csv.DictWriter(text, header, lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            flat = {}
            for name, cell in row.items():
                if isinstance(cell, Estimate):
                    flat[name], flat[_error(name)] = cell
                else:
                    flat[name] = cell
            writer.writerow(flat)
        return text.getvalue()

    def __str__(self) -> str:
        return self.markdown()


def _shown(cell: Cell) -> str:
    if cell is None:
        return ""
    return (f"{cell:.4g}" if isinstance(cell, float) else str(cell)).replace("|", "\\|")


def _error(name: str) -> str:
    return f"{name} standard error"
