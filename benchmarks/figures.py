"""What a benchmark brings back: measures with their spread, tables of them, targets, and series for charts. Pure data."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Mark = float | str


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Measure(_Frozen):
    """One quantity, once per round. Shown as its median and, when there is more than one round, its least and greatest."""

    unit: str  # '/s', 'µs', 's', 'MB', '' (a ratio or a count) ...
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle value; with an even number of rounds the mean of the two in the middle."""
        return statistics.median(self.values)

    def text(self) -> str:
        """`8,870 /s (8,510 to 9,020)`."""
        spread = f" ({number(min(self.values))} to {number(max(self.values))})" if len(self.values) > 1 else ""
        return f"{number(self.median)}{' ' + self.unit if self.unit else ''}{spread}"


class Row(_Frozen):
    """One line of a table. A cell is a measure, or words where there is nothing to measure."""

    label: str
    cells: tuple[Measure | str, ...]


class Table(_Frozen):
    """Measures side by side. `columns` names the first column, too."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""


class Target(_Frozen):
    """What a measure should reach. `met` looks at the median."""

    what: str
    rule: Literal["at least", "at most"]
    limit: float
    measure: Measure

    @property
    def met(self) -> bool:
        """Whether the median keeps the limit."""
        middle = self.measure.median
        return middle >= self.limit if self.rule == "at least" else middle <= self.limit


class Point(_Frozen):
    """One size on a chart's line."""

    x: float
    y: Measure


class Series(_Frozen):
    """A chart of one quantity over a size; x grows by powers of ten."""

    name: str  # of the file: docs/performance-NAME.svg
    title: str
    x_label: str
    y_label: str
    points: tuple[Point, ...]


class Part(_Frozen):
    """Everything that one part of the suite found out."""

    name: str
    title: str
    quick: bool
    command: str = Field(default_factory=lambda known: "make bench-quick" if known["quick"] else "make bench")
    rounds: int
    machine: dict[str, str]
    tables: tuple[Table, ...]
    targets: tuple[Target, ...] = ()
    series: tuple[Series, ...] = ()
    notes: tuple[str, ...] = ()


def number(value: float) -> str:
    """Three significant digits or all digits before the point, whichever is more."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.3f}" if size < 1.5 and size else f"{value:.2f}"


def ratios(above: Sequence[float], below: Sequence[float]) -> Measure:
    """Round by round, so that a slow minute of the machine counts for both."""
    return Measure(unit="", values=tuple(a / b for a, b in zip(above, below, strict=True) if b))
