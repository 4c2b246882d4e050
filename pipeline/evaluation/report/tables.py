"""Tables of the report: figures merged with their intervals, numbers written for reading."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

_WORDS = {"iou": "IoU", "f1": "F1", "top5": "top-5 accuracy"}


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


def title(name: str) -> str:
    """Write the name of a column or a measure for reading."""
    return " ".join(_WORDS.get(word, word) for word in str(name).split("_"))


def metrics_table(metrics: Mapping[str, Mapping[str, float]], lower_is_better: Sequence[str]) -> Table:
    """Return one row per measure."""
    rows = [
        {
            "measure": title(name) + (" (lower is better)" if name in lower_is_better else ""),
            "value": found["value"],
            "value_low": found["low"],
            "value_high": found["high"],
            "n": found["n"],
        }
        for name, found in metrics.items()
    ]
    return to_table(pd.DataFrame(rows))


def flat_table(facts: Mapping[str, Any]) -> Table:
    """Return one row per fact, nested names joined by dots."""
    return Table((Cell("fact"), Cell("value")), tuple((Cell(key), Cell(value)) for key, value in _flat(facts)))


def to_table(frame: pd.DataFrame, *, bars: bool = False) -> Table:
    """Write a frame; columns `x`, `x_low`, `x_high` become one, as do `score`, `low`, `high`.

    `bars` draws these intervals too: only for shares, since the line is [0, 1].
    """
    bounds = {name: found for name in frame.columns if (found := _bounds(frame, name))}
    merged = {bound for pair in bounds.values() for bound in pair}
    head, columns = [], []
    for name in frame.columns:
        if name in bounds:
            head.append(Cell(f"{title(name)}, 95 % interval", is_number=True))
            columns.append(_intervals(frame[[name, *bounds[name]]], bars))
        elif name not in merged:
            head.append(Cell(title(name), _is_number(frame[name])))
            columns.append(_cells(frame[name]))
    return Table(tuple(head), tuple(zip(*columns, strict=True)))


def _bounds(frame: pd.DataFrame, name: str) -> tuple[str, str] | None:
    pairs = [(f"{name}_low", f"{name}_high")] + ([("low", "high")] if name == "score" else [])
    return next((pair for pair in pairs if set(pair) <= set(frame.columns)), None)


def _cells(column: pd.Series) -> list[Cell]:
    if not _is_number(column):
        return [Cell("–" if pd.isna(value) else str(value)) for value in column]
    whole = bool((column.dropna() % 1 == 0).all())
    return [Cell(_number(value, whole), is_number=True) for value in column]


def _number(value: float, whole: bool) -> str:
    """Write a number with thousands apart, or with four digits, a dash for none."""
    if pd.isna(value):
        return "–"
    if whole or abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.4f}" if value == 0 or 0.001 <= abs(value) <= 1 else f"{value:.4g}"


def _intervals(columns: pd.DataFrame, bars: bool) -> list[Cell]:
    """Write three columns, value, low and high, as one."""
    cells = []
    for value, low, high in columns.itertuples(index=False):
        if pd.isna(value):
            cells.append(Cell("–", is_number=True))
        else:
            bar = Bar(100 * low, 100 * value, 100 * high) if bars else None
            cells.append(Cell(f"{value:z.3f} ({low:z.3f} to {high:z.3f})", is_number=True, bar=bar))
    return cells


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
