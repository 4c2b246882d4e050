"""The task protocol: what a label means, how wrong an answer is, and how answers are scored example by example."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import keras
import numpy as np
import pandas as pd

Scores = dict[str, np.ndarray]


def join(parts: Sequence[Scores]) -> Scores:
    """Put the per-example results of several batches or splits one after the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True)
class Measure:
    """One reported figure: a function of sums over examples, so that it is cheap to bootstrap and to pair.

    Args:
        terms: per-example results (every array has one row per example) to what each example adds, (N, M), a NumPy
            or a SciPy sparse array.
        figure: sums of terms (..., M) to figures (...); nan where there is nothing to measure.
        proportion: the boolean array of which this figure is the mean: its interval is Wilson's and its paired test
            is McNemar's.
    """

    terms: Callable[[Scores], Any]
    figure: Callable[[np.ndarray], np.ndarray]
    proportion: str | None = None
    higher_is_better: bool = True

    def aggregate(self, scores: Scores) -> float:
        """Return the figure of these examples."""
        return float(self.figure(np.asarray(self.terms(scores).sum(axis=0), dtype=np.float64)))


def mean_of(result: str, *, higher_is_better: bool = True) -> Measure:
    """Measure the mean of one per-example result."""

    def terms(scores: Scores) -> np.ndarray:
        values = np.asarray(scores[result], np.float64)
        return np.stack([values, np.ones_like(values)], axis=1)

    return Measure(terms, lambda sums: sums[..., 0] / sums[..., 1], higher_is_better=higher_is_better)


def share_of(result: str) -> Measure:
    """Measure the share of examples whose boolean `result` is true."""
    return replace(mean_of(result), proportion=result)


class Task(Protocol):
    """Own the meaning of a model's outputs. Built by `TASKS.build(name, classes, label_counts, **options)`."""

    classes: tuple[str, ...]
    fields: tuple[str, ...]  # sample fields it needs beside the image: ("label",), ("labels",) or ("mask",)
    monitor: str  # the measure that picks the best epoch and is compared between models, the first of `measures`
    measures: Mapping[str, Measure]
    legend: Mapping[str, tuple[int, int, int]]  # class name to its RGB colour in the pictures of `show`, if it has any

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
