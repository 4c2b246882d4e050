"""What each test image added to the score, for every file: enough for a stranger to repeat the paired test."""

from pathlib import Path

import numpy as np

from pipeline.evaluation.statistics import Comparison, compare_terms
from pipeline.export.agreement import KERAS, Agreement
from pipeline.runs import write_atomically
from pipeline.tasks.base import Measure, Task

FILE = "answers.npz"


def write_answers(folder: Path, agreement: Agreement, task: Task) -> None:
    """Write answers.npz: for the Keras model and each variant the terms (N, M) of the task's monitored measure."""
    measure = task.measures[task.monitor]
    terms = {name: np.asarray(measure.terms(answers.scores), np.float64) for name, answers in agreement.all.items()}
    write_atomically(folder / FILE, lambda temporary: np.savez_compressed(temporary, **terms))


def repeat_comparison(folder: Path, measure: Measure, variant: str) -> tuple[float, Comparison]:
    """Return a variant's score and its comparison with the Keras model, from answers.npz alone."""
    with np.load(folder / FILE) as terms:
        before, after = terms[KERAS], terms[variant]
    return float(measure.figure(after.sum(axis=0))), compare_terms(measure, before, after)
