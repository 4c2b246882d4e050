"""Multi-output classification: several labels for each image, one head of a shared network for each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops
from pydantic import NonNegativeFloat

from pipeline.errors import UserError
from pipeline.ops.heads import heads_of
from pipeline.registry import TASKS, Fraction, suggest
from pipeline.tasks.base import Measure, Scores, Task, share_of
from pipeline.tasks.classification import Classification


@TASKS.register
def multi_output_classification(
    classes: Sequence[str],
    label_counts: Sequence[int] | None,
    *,
    loss_weights: dict[str, NonNegativeFloat] | None = None,
    label_smoothing: Fraction = 0.0,
) -> Task:
    """Several labels per image, each with its head: weighted sum of cross-entropies, accuracy of each and of all.

    Args:
        classes: of all heads, one after the other, each as `head=value`.
        label_counts: not used; an image has no single label to count.
        loss_weights: of the heads' losses in their sum, by head (the others weigh 1).
        label_smoothing: share of a target's mass that is spread over all classes of its head (arXiv 1512.00567).
    """
    heads = heads_of(classes)
    if not heads:
        raise UserError(
            "the task multi_output_classification needs several labels for each image; give data.source.label_column "
            "of a table the list of its columns, or choose the task classification"
        )
    weights = _checked(loss_weights or {}, heads)
    tasks = {name: Classification(tuple(classes[part]), label_smoothing) for name, part in heads.items()}
    return MultiOutputClassification(tuple(classes), heads, tasks, weights)


@dataclass(frozen=True)
class MultiOutputClassification:
    """Targets are float32 (B, K), the heads' one-hot labels side by side; outputs are logits (B, K) likewise.

    One dense layer to K logits is one dense layer for each head, side by side: every classifier will do.
    """

    classes: tuple[str, ...]
    heads: Mapping[str, slice]
    tasks: Mapping[str, Classification]
    weights: Mapping[str, float]

    fields = ("labels",)
    monitor = "exact_match"

    @property
    def legend(self) -> Mapping[str, tuple[int, int, int]]:
        """Return nothing: its pictures have no colours of their own."""
        return {}

    @cached_property
    def measures(self) -> Mapping[str, Measure]:
        """The share of images with every label right, and for each head what a classification has."""
        measures = {"exact_match": share_of("correct")}
        for head, task in self.tasks.items():
            for name, measure in task.measures.items():
                measures[f"{head}_{name}"] = replace(
                    measure,
                    terms=partial(_terms, measure.terms, head),
                    proportion=measure.proportion and _key(head, measure.proportion),
                )
        return measures

    def check(self, model: keras.Model) -> None:
        """Raise UserError unless the model gives one logit for each class of each head."""
        if tuple(model.output_shape) != (None, len(self.classes)):
            raise UserError(
                f"the task multi_output_classification needs (batch, {len(self.classes)}) outputs, one per class of "
                f"each head, but the model {model.name} gives {tuple(model.output_shape)}; choose a classifier, such "
                "as model: resnet20."
            )

    def encode(self, batch: dict[str, Any]) -> Any:
        """Return the labels (B, heads) as float32 (B, K), one-hot for each head."""
        parts = [
            ops.one_hot(batch["labels"][:, number], part.stop - part.start, dtype="float32")
            for number, part in enumerate(self.heads.values())
        ]
        return ops.concatenate(parts, axis=1)

    def loss(self, y: Any, outputs: Any) -> Any:
        """Return the weighted sum of the heads' cross-entropies of each example, float32 (B,)."""
        return sum(
            self.weights[head] * self.tasks[head].loss(y[:, part], outputs[:, part])
            for head, part in self.heads.items()
        )

    def metrics(self) -> list[keras.metrics.Metric]:
        """Return the exact match, and the accuracy of each head."""
        parts = list(self.heads.values())
        found = {"exact_match": parts} | {f"{head}_accuracy": [part] for head, part in self.heads.items()}
        return [keras.metrics.MeanMetricWrapper(partial(_right, these), name) for name, these in found.items()]

    def decode(self, outputs: Any) -> Any:
        """Return probabilities, float32 (B, K), which sum to 1 in each head."""
        parts = [self.tasks[head].decode(outputs[:, part]) for head, part in self.heads.items()]
        return ops.concatenate(parts, axis=1)

    def score(self, y: np.ndarray, predictions: np.ndarray) -> Scores:
        """Return for each head what a classification does, under `head:`, and whether all were right."""
        scores: Scores = {}
        for head, part in self.heads.items():
            found = self.tasks[head].score(y[:, part], predictions[:, part])
            scores |= {_key(head, name): values for name, values in found.items()}
        scores["correct"] = np.all([scores[_key(head, "correct")] for head in self.heads], axis=0)
        return scores

    def tables(self, scores: Scores) -> dict[str, pd.DataFrame]:
        """Return `per_class` of all heads, and for each head `confusion_<head>` and `calibration_<head>`."""
        found = {head: task.tables(_of(head, scores)) for head, task in self.tasks.items()}
        tables = {"per_class": pd.concat([tables.pop("per_class") for tables in found.values()], ignore_index=True)}
        return tables | {f"{name}_{head}": table for head, own in found.items() for name, table in own.items()}

    def rows(self, scores: Scores) -> pd.DataFrame:
        """Return for each head the columns of a classification, after its name."""
        parts = [task.rows(_of(head, scores)).add_prefix(f"{head}_") for head, task in self.tasks.items()]
        return pd.concat(parts, axis=1)

    def badness(self, scores: Scores) -> np.ndarray:
        """Return the badness of the worst head; <= 0 where all are right."""
        return np.max([task.badness(_of(head, scores)) for head, task in self.tasks.items()], axis=0)

    def show(self, image: np.ndarray, y: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, str]:
        """Return the image and for each head "truth → prediction" with both probabilities."""
        shown = [self.tasks[head].show(image, y[part], prediction[part]) for head, part in self.heads.items()]
        return shown[0][0], "; ".join(caption for _, caption in shown)


def _checked(weights: Mapping[str, float], heads: Mapping[str, slice]) -> dict[str, float]:
    for name in weights:
        if name not in heads:
            hint = suggest(name, heads)
            raise UserError(f"task.loss_weights names the head {name!r}, which the data does not have; {hint}")
    every = {head: float(weights.get(head, 1.0)) for head in heads}
    if not any(every.values()):
        raise UserError("task.loss_weights gives every head the weight 0; at least one head must count.")
    return every


def _key(head: str, name: str) -> str:
    return f"{head}:{name}"


def _of(head: str, scores: Scores) -> Scores:
    """Return one head's scores under the names that a classification gives them."""
    return {name.removeprefix(f"{head}:"): values for name, values in scores.items() if name.startswith(f"{head}:")}


def _terms(terms: Callable[[Scores], Any], head: str, scores: Scores) -> Any:
    return terms(_of(head, scores))


def _right(parts: Sequence[slice], y: Any, outputs: Any) -> Any:
    """Return 1 for each example whose largest output is the label's in all of these heads, else 0, float32 (B,)."""
    same = [ops.argmax(y[:, part], axis=-1) == ops.argmax(outputs[:, part], axis=-1) for part in parts]
    return ops.cast(ops.all(ops.stack(same), axis=0), "float32")
