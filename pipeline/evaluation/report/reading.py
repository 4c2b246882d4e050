"""What a section of the report is made of: figures as base64, and the tables and JSON files of a run."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.evaluation import figures


@dataclass(frozen=True)
class Picture:
    """A figure for light and for dark paper, as base64 PNGs, and its words for those who cannot see it."""

    light: str
    dark: str
    words: str

    @classmethod
    def of(cls, draw: Callable[[figures.Theme], bytes], words: str) -> "Picture":
        light, dark = (base64.b64encode(draw(theme)).decode() for theme in (figures.LIGHT, figures.DARK))
        return cls(light, dark, words)


def read_json(path: Path) -> Any:
    """Return what a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_csv(path: Path) -> pd.DataFrame | None:
    """Return a table of a run, None where the run has none."""
    # Text stays text: a class called "NA" or "007" is a name.
    if not path.is_file():
        return None
    frame = pd.read_csv(path, keep_default_na=False, na_values={}, dtype=str)
    return frame.apply(_numbers)


def _numbers(column: pd.Series) -> pd.Series:
    if column.name in ("class", "truth", "id", "variant", "file"):
        return column
    try:
        return pd.to_numeric(column.replace("", None))
    except ValueError:
        return column
