"""What rounding changed beside the main score: every measure, each class, and the images whose answer flipped."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from pipeline.evaluation.scoring import Predict
from pipeline.export.agreement import KERAS, Agreement
from pipeline.export.flips import affordable, cards
from pipeline.export.interpreter import LiteModel
from pipeline.export.latency import Latency
from pipeline.runs import write_atomically
from pipeline.tasks.base import Task

# Whose changes are shown: the file that most people will ship, and else the first that rounds.
_SHOWN = ("int8", "uint8", "w4a8", "mixed", "dynamic", "int16x8", "float16", "float32")


def write_changes(
    folder: Path, agreement: Agreement, task: Task, predict: Predict, latency: Mapping[str, Latency]
) -> None:
    """Write measures.csv, per_class_change.csv and flips.json; the last two where the task has them.

    Args:
        folder: of the files.
        predict: the Keras model.
        latency: of each file, which limits how many flipped images get heat maps.
    """
    write_atomically(folder / "measures.csv", measures(agreement, task).to_csv(index=False))
    variant = shown_variant(list(agreement.files))
    change = per_class_change(agreement, task, variant)
    for name in ("per_class_change.csv", "flips.json"):
        (folder / name).unlink(missing_ok=True)  # of an earlier export
    if change is not None:
        write_atomically(folder / "per_class_change.csv", change.to_csv(index=False))
    if task.fields == ("label",):  # masks change somewhere in every image
        sides = {KERAS: predict, variant: LiteModel.open(folder / f"{variant}.tflite").predict}
        flipped = cards(agreement.files[variant], task, variant, sides, affordable(latency[variant].p50))
        write_atomically(folder / "flips.json", json.dumps(flipped) + "\n")


def shown_variant(variants: Sequence[str]) -> str:
    """Return the variant whose changes are shown in detail."""
    return next(name for name in (*_SHOWN, *variants) if name in variants)


def measures(agreement: Agreement, task: Task) -> pd.DataFrame:
    """Return one row per measure of the task, the calibration error among them: the Keras model's, each file's."""
    return pd.DataFrame(
        [
            {"measure": name, **{who: measure.aggregate(answers.scores) for who, answers in agreement.all.items()}}
            for name, measure in task.measures.items()
        ]
    )


def per_class_change(agreement: Agreement, task: Task, variant: str) -> pd.DataFrame | None:
    """Return each class's figures before and after, the largest change first; None where a task has no classes."""
    before, after = (
        task.tables(answers.scores).get("per_class") for answers in (agreement.keras, agreement.files[variant])
    )
    if before is None:
        return None
    figure = next(name for name in ("recall", "iou") if name in before)
    change = after[figure] - before[figure]
    table = pd.DataFrame(
        {"class": before["class"], f"{figure} {KERAS}": before[figure], f"{figure} {variant}": after[figure]}
    ).assign(change=change)
    return table.loc[change.abs().sort_values(ascending=False, kind="stable").index]
