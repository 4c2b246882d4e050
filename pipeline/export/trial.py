"""Trying files before one is chosen: validation images with their truth, never those of the test."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.config import Experiment
from pipeline.export.inputs import validation_images
from pipeline.runs import Run
from pipeline.tasks.base import Task

CHOOSING = ("mixed",)  # the recipes that take a trial
_MOST_IMAGES = 512


@dataclass(frozen=True)
class Trial:
    """What a recipe that chooses by measurement needs; `table` is where it leaves what it measured (CSV)."""

    task: Task
    images: np.ndarray  # uint8 (N, H, W, C)
    y: np.ndarray
    margin: float  # points
    table: Path | None = None

    def loss(self, before: np.ndarray, after: np.ndarray) -> float:
        """Return how many points the answers `after` lose against `before`, both decoded, of the first images."""
        measure = self.task.measures[self.task.monitor]
        first, second = (measure.aggregate(self.task.score(self.y[: len(x)], x)) for x in (before, after))
        return 100 * (first - second if measure.higher_is_better else second - first)


def open_trial(run: Run, experiment: Experiment) -> Trial | None:
    """Open the validation split if a variant of the experiment chooses by measurement; else None.

    An earlier export's sensitivity.csv is removed.
    """
    table = run.export_dir / "sensitivity.csv"
    table.unlink(missing_ok=True)
    if not set(CHOOSING) & set(experiment.export.variants):
        return None
    return Trial(*validation_images(experiment, run.classes, _MOST_IMAGES), experiment.export.margin, table)
