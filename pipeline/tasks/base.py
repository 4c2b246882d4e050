"""The task protocol: what a label means, how wrong an answer is, and how answers are scored example by example."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import numpy as np
import pandas as pd

Scores = dict[str, np.ndarray]


@dataclass(frozen=True)
class Measure:
    """One reported figure, computed from per-example results so that it can be bootstrapped and paired.

    `aggregate` maps per-example results (every array has one row per example) to a number. `proportion` names the
    boolean array of which this figure is the mean: its interval is Wilson's and its paired test is McNemar's.
    """

    aggregate: Callable[[Scores], float]
    proportion: str | None = None
    higher_is_better: bool = True


class Task(Protocol):
    """Own the meaning of a model's outputs. Built by `TASKS.build(name, classes, label_counts, **options)`."""

    classes: tuple[str, ...]
    fields: tuple[str, ...]  # sample fields it needs beside the image: ("label",) or ("mask",)
    monitor: str  # the measure that picks the best epoch and is compared between models
    measures: Mapping[str, Measure]

    def check(self, model: keras.Model) -> None:
        """Raise UserError when the model's output does not have this task's shape, naming a model that does."""

    def encode(self, batch: dict[str, Any]) -> Any:
        """Turn a batched sample into the target `y`, inside tf.data, with static shapes.

        `label` may be int32 (B,) or, after mixing, float32 (B, classes).
        """

    def loss(self, y: Any, outputs: Any) -> Any:
        """Return the loss of each example, float32 (B,), with keras.ops only."""

    def metrics(self) -> list[keras.metrics.Metric]:
        """Return fresh Keras metrics for the training display; one has the name `monitor`."""

    def decode(self, outputs: Any) -> Any:
        """Turn logits into probabilities, graph-safe, so that it can be part of the exported file."""

    def score(self, y: np.ndarray, predictions: np.ndarray) -> Scores:
        """Return per-example results from targets and decoded predictions."""

    def tables(self, scores: Scores) -> dict[str, pd.DataFrame]:
        """Return the task's tables by name: `per_class`, `confusion`, ..."""

    def rows(self, scores: Scores) -> pd.DataFrame:
        """Return one row per example for predictions.csv: truth, prediction, probabilities or its scores."""

    def badness(self, scores: Scores) -> np.ndarray:
        """Rank examples for the picture of worst mistakes, float (N,): higher is worse, <= 0 is right."""

    def show(self, image: np.ndarray, y: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, str]:
        """Draw one answer: an RGB uint8 picture and a caption."""
