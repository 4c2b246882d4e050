"""Classification: one label for each image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import keras
import numpy as np
import pandas as pd
from keras import ops
from pydantic import NonNegativeFloat

from pipeline.errors import UserError
from pipeline.ops.classification import (
    calibration_error,
    calibration_table,
    calibration_terms,
    confusion_matrix,
    count_terms,
    macro_f1,
    macro_precision,
    macro_recall,
    negative_log_likelihood,
    per_class_table,
    ranks,
)
from pipeline.ops.losses import cross_entropy, smooth
from pipeline.registry import TASKS, Fraction
from pipeline.tasks import class_weights as weighting
from pipeline.tasks.base import Measure, Scores, Task, mean_of, share_of
from pipeline.tasks.drawing import as_rgb


@TASKS.register
def classification(
    classes: Sequence[str],
    label_counts: Sequence[int] | None,
    *,
    label_smoothing: Fraction = 0.0,
    class_weights: Literal["balanced"] | dict[str, float] | None = None,
    focal_gamma: NonNegativeFloat = 0.0,
) -> Task:
    """One label per image: cross-entropy or focal loss, accuracy, F1, calibration.

    Args:
        label_counts: training images of each class, for balanced weights.
        label_smoothing: share of a target's mass that is spread over all classes (arXiv 1512.00567).
        class_weights: "balanced", or weights by class name (the others weigh 1).
        focal_gamma: above 0 it discounts what is already right (arXiv 1708.02002; 2 is usual).
    """
    weights = None
    if class_weights == "balanced":
        weights = weighting.balanced(label_counts)
    elif class_weights is not None:
        weights = weighting.named(classes, class_weights)
    return Classification(tuple(classes), label_smoothing, weights, focal_gamma)


@dataclass(frozen=True)
class Classification:
    """Targets are float32 (B, K), one-hot or soft; outputs are logits (B, K)."""

    classes: tuple[str, ...]
    label_smoothing: float = 0.0
    weights: tuple[float, ...] | None = None
    focal_gamma: float = 0.0

    fields = ("label",)
    monitor = "accuracy"

    @property
    def legend(self) -> Mapping[str, tuple[int, int, int]]:
        """Return nothing: its pictures have no colours of their own."""
        return {}

    @cached_property
    def measures(self) -> Mapping[str, Measure]:
        """Accuracy first, then what it hides."""
        kinds = len(self.classes)

        def counts(scores: Scores) -> Any:
            return count_terms(scores["truth"], scores["prediction"], kinds)

        def calibration(scores: Scores) -> np.ndarray:
            return calibration_terms(scores["probabilities"].max(axis=1), scores["correct"])

        measures = {"accuracy": share_of("correct")}
        if self._has_top5:
            measures["top5"] = share_of("top5")
        return measures | {
            "macro_f1": Measure(counts, macro_f1),
            "macro_precision": Measure(counts, macro_precision),
            "macro_recall": Measure(counts, macro_recall),
            "calibration_error": Measure(calibration, calibration_error, higher_is_better=False),
            "log_loss": mean_of("log_loss", higher_is_better=False),
        }

    @property
    def _has_top5(self) -> bool:
        return len(self.classes) > 5

    def check(self, model: keras.Model) -> None:
        """Raise UserError unless the model gives one logit for each class."""
        if tuple(model.output_shape) != (None, len(self.classes)):
            raise UserError(
                f"the task classification needs (batch, {len(self.classes)}) outputs, one per class, but the model "
                f"{model.name} gives {tuple(model.output_shape)}; choose a classifier, such as model: resnet20."
            )

    def encode(self, batch: dict[str, Any]) -> Any:
        """Return the labels as float32 (B, K); labels that mixing made soft stay as they are."""
        label = batch["label"]
        if len(label.shape) == 2:
            return ops.cast(label, "float32")
        return ops.one_hot(label, len(self.classes), dtype="float32")

    def loss(self, y: Any, outputs: Any) -> Any:
        """Return the cross-entropy of each example, float32 (B,)."""
        targets = smooth(y, self.label_smoothing) if self.label_smoothing else y
        return cross_entropy(targets, outputs, class_weights=self.weights, focal_gamma=self.focal_gamma)

    def metrics(self) -> list[keras.metrics.Metric]:
        """Return accuracy and, with more than five classes, top-5 accuracy; soft labels count as their largest."""
        metrics = [keras.metrics.CategoricalAccuracy(name="accuracy")]
        if self._has_top5:
            metrics.append(keras.metrics.TopKCategoricalAccuracy(k=5, name="top5"))
        return metrics

    def decode(self, outputs: Any) -> Any:
        """Return probabilities, float32 (B, K)."""
        return ops.softmax(ops.cast(outputs, "float32"), axis=-1)

    def score(self, y: np.ndarray, predictions: np.ndarray) -> Scores:
        """Return truth, prediction, probabilities, log loss, and whether the answer was right."""
        truth = np.argmax(y, axis=1).astype(np.int32)
        rank = ranks(truth, predictions)
        scores = {
            "truth": truth,
            "prediction": np.argmax(predictions, axis=1).astype(np.int32),
            "probabilities": np.asarray(predictions, np.float32),
            "log_loss": negative_log_likelihood(truth, predictions),
        }
        scores["correct"] = scores["truth"] == scores["prediction"]
        if self._has_top5:
            scores["top5"] = rank < 5
        return scores

    def tables(self, scores: Scores) -> dict[str, pd.DataFrame]:
        """Return `per_class`, `confusion` (truth down, prediction across) and `calibration`."""
        matrix = confusion_matrix(scores["truth"], scores["prediction"], len(self.classes))
        return {
            "per_class": per_class_table(self.classes, matrix),
            "confusion": pd.DataFrame(matrix, pd.Index(self.classes, name="truth"), list(self.classes)),
            "calibration": calibration_table(scores["probabilities"].max(axis=1), scores["correct"]),
        }

    def rows(self, scores: Scores) -> pd.DataFrame:
        """Return truth, prediction, its probability, and all probabilities as a JSON list in class order."""
        names = np.array(self.classes, dtype=object)
        probabilities = scores["probabilities"]
        return pd.DataFrame(
            {
                "truth": names[scores["truth"]],
                "prediction": names[scores["prediction"]],
                "confidence": probabilities.max(axis=1),
                "probabilities": ["[" + ", ".join(f"{p:.6g}" for p in row) + "]" for row in probabilities],
            }
        )

    def badness(self, scores: Scores) -> np.ndarray:
        """Return by how much the best wrong class beats the truth, in probability; <= 0 where the answer is right."""
        rows = np.arange(len(scores["truth"]))
        others = scores["probabilities"].copy()
        truth = others[rows, scores["truth"]]
        others[rows, scores["truth"]] = -np.inf
        lead = others.max(axis=1) - truth
        # A tie is broken by class order: the sign must agree with the answer that was counted.
        return np.where(scores["correct"], np.minimum(lead, 0.0), np.maximum(lead, np.finfo(np.float32).tiny))

    def show(self, image: np.ndarray, y: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, str]:
        """Return the image and "truth → prediction" with both probabilities."""
        truth, answer = int(np.argmax(y)), int(np.argmax(prediction))
        return as_rgb(image), (
            f"{self.classes[truth]} ({prediction[truth]:.0%}) → {self.classes[answer]} ({prediction[answer]:.0%})"
        )
