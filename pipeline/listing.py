"""What an experiment can name, as tables."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from pipeline import registry
from pipeline.config import presets, recipes
from pipeline.errors import UserError
from pipeline.registry import Registry, suggest

_REGISTRIES = {
    "sources": registry.SOURCES,
    "augmentations": registry.AUGMENTATIONS,
    "models": registry.MODELS,
    "tasks": registry.TASKS,
    "optimizers": registry.OPTIMIZERS,
    "schedules": registry.SCHEDULES,
    "recipes": registry.RECIPES,
}

log = logging.getLogger(__name__)


def tables(kind: str | None = None) -> dict[str, pd.DataFrame]:
    """Return a table of names, options and meaning for each kind, or for one.

    Only `models`, asked for alone, builds what it lists: its parameters and MACs are counted, not written down.
    Raises UserError for an unknown kind.
    """
    if kind is None:
        return {name: make() for name, make in _makers().items()}
    if kind not in _makers():
        raise UserError(f"there is nothing called {kind!r} to list; {suggest(kind, _makers())}", usage=True)
    return {kind: count_models() if kind == "models" else _makers()[kind]()}


def count_models() -> pd.DataFrame:
    """Build every model of our own at its reference input and count its parameters and multiply-accumulates.

    Not those of another library, whose names have its name before a colon: they are many and large.
    """
    from pipeline.models.inspect import summary

    own = [name for name in registry.MODELS.names() if ":" not in name]
    log.info("building every model but applications:... to count it; this takes up to a minute")
    rows = []
    for name in own:
        cost = summary(name)
        rows.append(
            {
                "name": name,
                "input → classes": f"{'×'.join(str(size) for size in cost.input_shape)} → {cost.classes}",
                "parameters": cost.parameters,
                "MACs (M)": round(cost.macs / 1e6, 3),
            }
        )
    return pd.DataFrame(rows)


def _makers() -> dict[str, Callable[[], pd.DataFrame]]:
    makers = {kind: lambda table=table: _entries(table) for kind, table in _REGISTRIES.items()}
    return {**makers, "presets": lambda: _notes(presets()), "compressions": lambda: _notes(recipes())}


def _entries(table: Registry) -> pd.DataFrame:
    rows = []
    for name in table.names():
        fields = table.options(name).model_fields.items()
        options = ", ".join(key if field.is_required() else f"{key}={field.default}" for key, field in fields)
        rows.append({"name": name, "options": options, "what": table.describe(name)})
    return pd.DataFrame(rows)


def _notes(files: Mapping[str, Path]) -> pd.DataFrame:
    notes = {name: path.read_text(encoding="utf-8").partition("\n")[0] for name, path in files.items()}
    return pd.DataFrame([{"name": name, "what": note.lstrip("# ")} for name, note in notes.items()])
