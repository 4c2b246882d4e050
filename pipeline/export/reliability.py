"""Whether a file is still as sure as it is right: reliability before and after quantisation, on the same images."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.export.agreement import Agreement
from pipeline.ops.intervals import percentile_interval, resampled_sums
from pipeline.runs import write_atomically
from pipeline.tasks.base import Task

_BINS, _ERRORS = "calibration.csv", "calibration_error.csv"


def write_reliability(folder: Path, agreement: Agreement, task: Task) -> None:
    """Write calibration.csv (bins) and calibration_error.csv where the task has such figures."""
    if "calibration_error" not in task.measures:
        for name in (_BINS, _ERRORS):
            (folder / name).unlink(missing_ok=True)  # of an earlier export
        return
    write_atomically(folder / _BINS, reliability(agreement, task).to_csv(index=False))
    write_atomically(folder / _ERRORS, calibration_errors(agreement, task).to_csv(index=False))


def reliability(agreement: Agreement, task: Task) -> pd.DataFrame:
    """Return the Keras model's calibration table and every file's, below each other, by `variant`."""
    return pd.concat(
        [task.tables(answers.scores)["calibration"].assign(variant=name) for name, answers in agreement.all.items()]
    )


def calibration_errors(agreement: Agreement, task: Task) -> pd.DataFrame:
    """Return one row for the Keras model and for each file, with 95 % bootstrap intervals.

    Columns: `variant`, `calibration_error`, `confidence` (the mean of the answers') and `accuracy`, and `change`, of
    the calibration error against the Keras model's, paired: all are resampled together.
    """
    measure = task.measures["calibration_error"]
    terms = [measure.terms(answers.scores) for answers in agreement.all.values()]
    values = [float(measure.figure(one.sum(axis=0))) for one in terms]
    resampled = np.split(resampled_sums(np.concatenate(terms, axis=1)), len(terms), axis=1)
    replicates = [measure.figure(sums) for sums in resampled]
    rows = []
    for (name, answers), value, found in zip(agreement.all.items(), values, replicates, strict=True):
        scores = answers.scores
        n = len(scores["correct"])
        error = percentile_interval(value, found, n)
        change = percentile_interval(value - values[0], found - replicates[0], n)
        rows.append(
            {
                "variant": name,
                "calibration_error": error.value,
                "calibration_error_low": error.low,
                "calibration_error_high": error.high,
                "confidence": float(scores["probabilities"].max(axis=1).mean()),
                "accuracy": float(scores["correct"].mean()),
                "change": change.value,
                "change_low": change.low,
                "change_high": change.high,
            }
        )
    return pd.DataFrame(rows)
