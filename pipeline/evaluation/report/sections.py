"""What the report shows, read from the files of a run."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from pipeline.evaluation import figures
from pipeline.evaluation.pictures import base64_pngs
from pipeline.evaluation.report.exported import export_sections
from pipeline.evaluation.report.reading import Picture, read_csv, read_json
from pipeline.evaluation.report.tables import Table, flat_table, metrics_table, title, to_table
from pipeline.runs import Run, beside

_CONFUSIONS = 10


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
        **export_sections(run),
        "experiment": experiment.to_yaml(),
        "environment": flat_table({key: value for key, value in facts.items() if key not in ("classes", "command")}),
        "commands": _commands(run, evaluations),
    }


def _commands(run: Run, evaluations: list[Evaluated]) -> list[str]:
    path = shlex.quote(str(run.path))
    commands = [run.facts["command"]] if "command" in run.facts else []
    again, compress = shlex.quote(str(beside(run.path, "again"))), run.experiment.compress
    if compress:
        commands.append(f"pipeline compress {shlex.quote(compress.base)} --recipe {path} --out {again}")
    else:
        commands.append(f"pipeline train {path} --run {again}")
    commands.append(f"pipeline eval {path}")
    return [*commands, f"pipeline export {path}"] if (run.export_dir / "results.csv").is_file() else commands


def _data(run: Run) -> tuple[Table, str] | None:
    """Return the counts of images, and the grid of augmented samples as a base64 PNG."""
    counts, samples = read_csv(run.data_dir / "counts.csv"), run.data_dir / "samples.png"
    if counts is None or not samples.is_file():
        return None
    [picture] = base64_pngs([np.asarray(Image.open(samples).convert("RGB"))])
    return to_table(counts), picture


def _evaluation_folders(run: Run) -> list[Path]:
    """Return the folders with scores, test first."""
    found = [path.parent for path in run.evaluation_dir("test").parent.glob("*/metrics.json")]
    return sorted(found, key=lambda folder: (folder.name != "test", folder.name))


def _evaluated(folder: Path) -> Evaluated:
    metrics, about = read_json(folder / "metrics.json"), read_json(folder / "about.json")
    confusion, calibration = read_csv(folder / "confusion.csv"), read_csv(folder / "calibration.csv")
    per_class, mistakes = read_csv(folder / "per_class.csv"), folder / "mistakes.json"
    confusion = confusion.set_index(confusion.columns[0]).astype(int) if confusion is not None else None
    return Evaluated(
        name=folder.name,
        headline=_headline(metrics),
        source=_source(about),
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
        mistakes=read_json(mistakes) if mistakes.is_file() else [],
        legend=about["legend"],
    )


def _source(about: dict[str, Any]) -> str:
    source = ", ".join(f"{key}: {value}" for key, value in about["source"].items()).removeprefix("name: ")
    # Runs of before test-time augmentation do not say so.
    return source if about.get("tta") is None else f"{source}; answers averaged over {about['tta']}"


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
    history = read_csv(run.history_path)
    if history is None or history.empty:
        return []
    drawn = {theme: figures.curves(history, theme) for theme in (figures.LIGHT, figures.DARK)}
    last = history.iloc[-1]
    return [
        Picture.of(lambda theme, name=name: drawn[theme][name], f"{title(name)} by epoch; at the end {last[name]:.4g}.")
        for name in drawn[figures.LIGHT]
    ]
