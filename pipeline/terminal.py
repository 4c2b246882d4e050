"""What the commands print: tables for people or JSON for programs on stdout, one-line remarks on stderr."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd

STDERR = Console(stderr=True)  # one for all: lines that are printed while a bar is shown come above it


def say(line: str) -> None:
    """Print one line to stderr, so that stdout holds results alone."""
    STDERR.print(_escape(line), soft_wrap=True, highlight=False)


def complain(message: str) -> None:
    """Print an error to stderr."""
    STDERR.print(f"[bold red]error:[/] {_escape(message)}", soft_wrap=True)


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


def print_tables(frames: Mapping[str, "pd.DataFrame"], as_json: bool) -> None:
    """Print each frame as a table under its title, or one JSON object of their rows by title."""
    if as_json:
        print(json.dumps({title: _records(frame) for title, frame in frames.items()}, indent=2, ensure_ascii=False))
        return
    for title, frame in frames.items():
        print_table(frame, as_json, title=title)


def _records(frame: "pd.DataFrame") -> list[dict[str, Any]]:
    # Of the digits that a float has pandas would keep ten behind the point, and of a p-value of 1e-12 none.
    return json.loads(frame.to_json(orient="records", default_handler=str, double_precision=15))


def print_table(frame: "pd.DataFrame", as_json: bool, title: str | None = None) -> None:
    """Print a frame as a table, or as a JSON list of its rows."""
    if as_json:
        print(json.dumps(_records(frame), indent=2, ensure_ascii=False))
        return
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in frame.columns:
        justify = "right" if all(_is_figure(value) for value in frame[column]) else "left"
        table.add_column(_escape(str(column)), overflow="fold", justify=justify)
    for row in frame.itertuples(index=False):
        table.add_row(*(_escape(_cell(value)) for value in row))
    Console().print(table)


def _is_figure(value: Any) -> bool:
    return not isinstance(value, str) or value.strip("+-.,–×0123456789e") == ""


def _cell(value: Any) -> str:
    if value is None or value != value:  # a missing figure is None or NaN
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
