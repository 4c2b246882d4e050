"""Tables of the report: figures merged with their intervals, numbers written for reading."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Bar:
    """An interval drawn as a line on [0, 1] with a point, in percent."""

    low: float
    value: float
    high: float


@dataclass(frozen=True)
class Cell:
    """What one cell says; numbers stand to the right."""

    text: str
    is_number: bool = False
    bar: Bar | None = None


@dataclass(frozen=True)
class Table:
    """Head and rows, ready to be written."""

    head: tuple[Cell, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @property
    def is_long(self) -> bool:
        """Whether it needs a box that scrolls."""
        return len(self.rows) > 24


def metrics_table(metrics: Mapping[str, Mapping[str, float]], lower_is_better: Sequence[str]) -> Table:
    """Return one row per measure."""
    frame = pd.DataFrame(
        [
            {
                "measure": name.replace("_", " ") + (" (lower is better)" if name in lower_is_better else ""),
                "value": found["value"],
                "value_low": found["low"],
                "value_high": found["high"],
                "n": int(found["n"]),
            }
            for name, found in metrics.items()
        ]
    )
    return to_table(frame)


def flat_table(facts: Mapping[str, Any]) -> Table:
    """Return one row per fact, nested names joined by dots."""
    return Table((Cell("fact"), Cell("value")), tuple((Cell(key), Cell(value)) for key, value in _flat(facts)))


def to_table(frame: pd.DataFrame) -> Table:
    """Write a frame; columns `x`, `x_low`, `x_high` become one, as do `score`, `low`, `high` and the like."""
    bounds = {name: found for name in frame.columns if (found := _bounds(frame, name))}
    merged = {bound for pair in bounds.values() for bound in pair}
    shown = [name for name in frame.columns if name not in merged]
    head = tuple(
        Cell(str(name).replace("_", " ") + (", 95 % interval" if name in bounds else ""), _is_number(frame[name]))
        for name in shown
    )
    rows = tuple(tuple(_cell(row, name, bounds.get(name)) for name in shown) for row in frame.to_dict("records"))
    return Table(head, rows)


def number(value: Any) -> str:
    """Write a number for reading: thousands apart, four significant digits, a dash for none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float) and not value.is_integer():
        return (
            f"{value:.4f}" if 0.0001 <= abs(value) < 1 else f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
        )
    return f"{int(value):,}"


def _bounds(frame: pd.DataFrame, name: str) -> tuple[str, str] | None:
    pairs = [(f"{name}_low", f"{name}_high")] + ([("low", "high")] if name == "score" else [])
    return next((pair for pair in pairs if set(pair) <= set(frame.columns)), None)


def _cell(row: Mapping[str, Any], name: str, bounds: tuple[str, str] | None) -> Cell:
    value = row[name]
    if isinstance(value, bool | str):
        return Cell(str(value))
    if bounds is None or pd.isna(value):
        return Cell(number(value), is_number=True)
    low, high = row[bounds[0]], row[bounds[1]]
    bar = Bar(100 * low, 100 * value, 100 * high) if 0 <= low <= value <= high <= 1 else None
    return Cell(f"{value:.3f} ({low:.3f} to {high:.3f})", is_number=True, bar=bar)


def _is_number(column: pd.Series) -> bool:
    return column.dtype.kind in "iuf"


def _flat(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for key, value in facts.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            rows.append((f"{prefix}{key}", text))
    return rows
