"""What the report shows, read from the files of a run."""

import base64
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.evaluation import figures
from pipeline.evaluation.report.tables import Table, flat_table, metrics_table, title, to_table
from pipeline.runs import Run

_CONFUSIONS = 10
_CHANGES = 20  # classes
_SCORED = ("score", "low", "high", "difference", "difference_low", "difference_high")
_COST = ("bytes", "zipped", "times_smaller", "latency_ms_p50", "times_faster")
_COMPARED = ("variant", *_COST, *_SCORED, "p_value", "verdict")
_MARKS = {"pass": "✓", "not shown": "not shown", "fail": "✗ failed"}
_SEARCHED = ("variant", "bytes", "latency_ms_p50", *_SCORED, "within", "on_front", "chosen")


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


@dataclass(frozen=True)
class Evaluated:
    """One folder of evaluation/."""

    name: str
    headline: str
    source: str
    corrupt: list[str]
    metrics: Table
    per_class: Table | None
    confusion: Picture | None
    confusions: Table | None
    calibration: Picture | None
    mistakes: list[dict[str, str]]
    legend: dict[str, tuple[int, int, int]]


def contents(run: Run) -> dict[str, Any]:
    """Return the variables of the template; what the run does not have is None or empty."""
    experiment = run.experiment
    facts = run.facts
    evaluations = [_evaluated(folder) for folder in _evaluation_folders(run)]
    kinds = len(facts.get("classes", ()))
    return {
        "title": run.path.resolve().name,
        "task": experiment.task.name,
        "model": experiment.model.name,
        "source": experiment.data.source.name,
        "kinds": kinds,
        "evaluations": evaluations,
        "data": _data(run),
        "curves": _curves(run),
        "export": _files(run.export_dir / "results.csv"),
        "parity": _parity(run),
        "lint": _files(run.export_dir / "lint.csv"),
        "sensitivity": _files(run.export_dir / "sensitivity.csv"),
        "certificate": _certificate(run),
        "changes": _changes(run),
        "base": experiment.compress.base if experiment.compress else None,
        "compression": _files(run.export_dir / "compression.csv", _COMPARED),
        "search": _search(run),
        "experiment": experiment.to_yaml(),
        "environment": flat_table({key: value for key, value in facts.items() if key not in ("classes", "command")}),
        "commands": _commands(run, evaluations),
    }


def _commands(run: Run, evaluations: list[Evaluated]) -> list[str]:
    path = shlex.quote(str(run.path))
    commands = [run.facts["command"]] if "command" in run.facts else []
    again, compress = shlex.quote(f"{run.path}-again"), run.experiment.compress
    if compress:
        commands.append(f"pipeline compress {shlex.quote(compress.base)} --recipe {path} --out {again}")
    else:
        commands.append(f"pipeline train {path} --run {again}")
    commands.append(f"pipeline eval {path}")
    return [*commands, f"pipeline export {path}"] if (run.export_dir / "results.csv").is_file() else commands


def _data(run: Run) -> tuple[Table, str] | None:
    """Return the counts of images, and the grid of augmented samples as a base64 PNG."""
    counts, samples = _csv(run.data_dir / "counts.csv"), run.data_dir / "samples.png"
    if counts is None or not samples.is_file():
        return None
    return to_table(counts), base64.b64encode(samples.read_bytes()).decode()


def _evaluation_folders(run: Run) -> list[Path]:
    """Return the folders with scores, test first."""
    found = [path.parent for path in run.evaluation_dir("test").parent.glob("*/metrics.json")]
    return sorted(found, key=lambda folder: (folder.name != "test", folder.name))


def _evaluated(folder: Path) -> Evaluated:
    metrics, about = _json(folder / "metrics.json"), _json(folder / "about.json")
    confusion, calibration = _csv(folder / "confusion.csv"), _csv(folder / "calibration.csv")
    per_class, mistakes = _csv(folder / "per_class.csv"), folder / "mistakes.json"
    confusion = confusion.set_index(confusion.columns[0]) if confusion is not None else None
    return Evaluated(
        name=folder.name,
        headline=_headline(metrics),
        source=", ".join(f"{key}: {value}" for key, value in about["source"].items()).removeprefix("name: "),
        corrupt=about["corrupt"],
        metrics=metrics_table(metrics, about["lower_is_better"]),
        per_class=to_table(per_class, bars=True) if per_class is not None else None,
        confusion=_confusion(confusion),
        confusions=_confusions(confusion),
        calibration=None
        if calibration is None
        else Picture.of(
            lambda theme: figures.calibration(calibration, theme),
            "Reliability diagram: how often answers are right, by how sure the model is of them.",
        ),
        mistakes=_json(mistakes) if mistakes.is_file() else [],
        legend=about["legend"],
    )


def _headline(metrics: dict[str, dict[str, float]]) -> str:
    name, first = next(iter(metrics.items()))
    value, low, high = (f"{100 * first[key]:.1f}" for key in ("value", "low", "high"))
    return f"{title(name)} {value} % (95 % interval {low} to {high} %, n = {first['n']:,})"


def _confusion(table: pd.DataFrame | None) -> Picture | None:
    if table is None:
        return None
    words = f"Confusion matrix of {len(table)} classes; the most frequent confusions are in the table beside it."
    return Picture.of(lambda theme: figures.confusion(table, theme), words)


def _confusions(table: pd.DataFrame | None) -> Table | None:
    """List the most frequent confusions, which a large matrix hides."""
    if table is None:
        return None
    counts = table.to_numpy()
    found = [
        {
            "truth": table.index[row],
            "prediction": table.columns[column],
            "count": int(counts[row, column]),
            "share of the truth": f"{counts[row, column] / counts[row].sum():.1%}",
        }
        for row in range(len(counts))
        for column in range(len(counts))
        if row != column and counts[row, column]
    ]
    found.sort(key=lambda row: -row["count"])
    return to_table(pd.DataFrame(found[:_CONFUSIONS])) if found else None


def _curves(run: Run) -> list[Picture]:
    history = _csv(run.history_path)
    if history is None or history.empty:
        return []
    drawn = {theme: figures.curves(history, theme) for theme in (figures.LIGHT, figures.DARK)}
    last = history.iloc[-1]
    return [
        Picture.of(lambda theme, name=name: drawn[theme][name], f"{title(name)} by epoch; at the end {last[name]:.4g}.")
        for name in drawn[figures.LIGHT]
    ]


def _files(path: Path, columns: Sequence[str] = ()) -> tuple[Table, Picture | None] | None:
    """Return the table of exported files, or these columns of it, and its picture."""
    results = _csv(path)
    if results is None or results.empty:
        return None
    picture = None
    if {"variant", "score", "low", "high", "bytes", "latency_ms_p50"} <= set(results.columns):
        words = "Score, file size and latency of each exported file, as in the table."
        picture = Picture.of(lambda theme: figures.variants(results, theme), words)
    return to_table(results[list(columns)] if columns else results), picture


def _parity(run: Run) -> Picture | None:
    layers = _csv(run.export_dir / "parity.csv")
    if layers is None:
        return None
    words = "Signal to noise inside each file, layer by layer; the numbers are in export/parity.csv."
    return Picture.of(lambda theme: figures.parity(layers, theme), words)


def _certificate(run: Run) -> tuple[str, Table, Table] | None:
    """Return the verdict, one row per file with each gate's verdict, and every gate with its figure and bound."""
    path = run.export_dir / "certificate.json"
    if not path.is_file():
        return None
    values = _json(path)
    rows, gates = [], []
    for name, variant in values["variants"].items():
        marks = {gate["name"]: _MARKS[gate["verdict"]] for gate in variant["gates"]}
        rows.append({"variant": name, **marks, "certificate": variant["verdict"]})
        gates += [{"variant": name, "gate": gate.pop("name"), **gate} for gate in variant["gates"]]
    return values["verdict"], to_table(pd.DataFrame(rows)), to_table(pd.DataFrame(gates))


def _changes(run: Run) -> tuple[Table, Table | None, dict[str, Any] | None] | None:
    """Return every measure of every file, what changed per class, and the images whose answer flipped."""
    measures, change = _csv(run.export_dir / "measures.csv"), _csv(run.export_dir / "per_class_change.csv")
    if measures is None:
        return None
    flips = run.export_dir / "flips.json"
    per_class = to_table(change[change["change"] != 0].head(_CHANGES)) if change is not None else None
    return to_table(measures), per_class, _json(flips) if flips.is_file() else None


def _search(run: Run) -> tuple[str, Picture, Table] | None:
    points = _csv(run.search_dir / "points.csv")
    if points is None:
        return None
    for flag in ("within", "on_front", "chosen"):
        points[flag] = points[flag] == "True"
    words = "Score against size and latency of every file that the search measured, as in the table."
    reason = (run.search_dir / "reason.txt").read_text(encoding="utf-8")
    return reason, Picture.of(lambda theme: figures.front(points, theme), words), to_table(points[list(_SEARCHED)])


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _csv(path: Path) -> pd.DataFrame | None:
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
