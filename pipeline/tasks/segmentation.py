"""Semantic segmentation: one label for each pixel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops

from pipeline.errors import UserError
from pipeline.ops.losses import cross_entropy, dice_loss
from pipeline.ops.segmentation import VOID, iou, mean_iou, overlap, per_class_table
from pipeline.registry import TASKS, Fraction
from pipeline.tasks import class_weights as weighting
from pipeline.tasks.base import Measure, Scores, Task
from pipeline.tasks.drawing import IGNORED, as_rgb, overlay, palette


@TASKS.register
def segmentation(
    classes: Sequence[str],
    label_counts: Sequence[int] | None,
    *,
    dice: Fraction = 0.5,
    ignore_label: int | None = None,
    class_weights: dict[str, float] | None = None,
) -> Task:
    """One label per pixel: cross-entropy + Dice, mean IoU.

    Args:
        label_counts: not used; pixels have no such count.
        dice: the share of the Dice loss; the rest is cross-entropy.
        ignore_label: pixels of this label count neither in the loss nor in any score, as those of VOID (255) never do.
        class_weights: weights in the cross-entropy by class name (the others weigh 1).
    """
    weights = weighting.named(classes, class_weights) if class_weights is not None else None
    return Segmentation(tuple(classes), dice, ignore_label, weights)


@dataclass(frozen=True)
class Segmentation:
    """Targets are int32 (B, H, W); outputs are logits (B, H, W, K)."""

    classes: tuple[str, ...]
    dice: float = 0.5
    ignore_label: int | None = None
    weights: tuple[float, ...] | None = None

    fields = ("mask",)
    monitor = "mean_iou"

    @property
    def legend(self) -> Mapping[str, tuple[int, int, int]]:
        """Return each class's colour in masks, and that of pixels which do not count."""
        colours = [tuple(map(int, colour)) for colour in palette(len(self.classes))]
        return dict(zip(self.classes, colours, strict=True)) | {"(ignored)": IGNORED}

    @cached_property
    def measures(self) -> Mapping[str, Measure]:
        """Dataset-level mean IoU first, then the share of pixels that are right."""

        def pixels(scores: Scores) -> np.ndarray:
            return np.stack([scores["correct_pixels"], scores["valid_pixels"]], axis=1).astype(np.float64)

        def ratio(sums: np.ndarray) -> np.ndarray:
            right, total = sums[..., 0], sums[..., 1]
            return np.divide(right, total, out=np.full_like(right, np.nan), where=total > 0)

        return {"mean_iou": Measure(_overlaps, mean_iou), "pixel_accuracy": Measure(pixels, ratio)}

    def check(self, model: keras.Model) -> None:
        """Raise UserError unless the model gives one logit for each class at each pixel of its input."""
        wanted = (None, *model.input_shape[1:3], len(self.classes))
        if tuple(model.output_shape) != wanted:
            raise UserError(
                f"the task segmentation needs outputs of the shape {wanted}, but the model {model.name} gives "
                f"{tuple(model.output_shape)}; choose a model that labels pixels, such as model: unet."
            )

    def encode(self, batch: dict[str, Any]) -> Any:
        """Return the masks, int32 (B, H, W)."""
        return ops.cast(batch["mask"], "int32")

    def loss(self, y: Any, outputs: Any) -> Any:
        """Return (1 - dice) · cross-entropy + dice · Dice loss of each image, float32 (B,).

        The cross-entropy is the mean over the pixels that count; an image without any has a loss of zero.
        """
        logits = ops.cast(outputs, "float32")
        valid = ops.cast(valid_pixels(y, self.ignore_label, len(self.classes)), "float32")
        targets = ops.one_hot(y, len(self.classes), dtype="float32") * valid[..., None]
        loss = 0.0
        if self.dice < 1:
            pixels = cross_entropy(targets, logits, class_weights=self.weights)
            loss += (1 - self.dice) * ops.sum(pixels, axis=(1, 2)) / ops.maximum(ops.sum(valid, axis=(1, 2)), 1.0)
        if self.dice > 0:
            loss += self.dice * dice_loss(targets, ops.softmax(logits, axis=-1) * valid[..., None])
        return loss

    def metrics(self) -> list[keras.metrics.Metric]:
        """Return the mean IoU."""
        return [MeanIoU(len(self.classes), self.ignore_label, name="mean_iou")]

    def decode(self, outputs: Any) -> Any:
        """Return probabilities, float32 (B, H, W, K)."""
        return ops.softmax(ops.cast(outputs, "float32"), axis=-1)

    def score(self, y: np.ndarray, predictions: np.ndarray) -> Scores:
        """Return each image's intersection, union and true pixels by class (N, K), and its right and valid pixels.

        Raises UserError on a label that is neither a class nor ignored.
        """
        kinds, valid = len(self.classes), self._counts(y)
        unknown = y[valid & ((y < 0) | (y >= kinds))]
        if len(unknown):
            raise UserError(
                f"a mask holds the label {unknown[0]}, but the {kinds} classes are 0 to {kinds - 1}; "
                "mend the mask, or set task.ignore_label to that label."
            )
        answer = np.argmax(predictions, axis=-1)
        truth = np.where(valid, y, 0)
        intersection, union, pixels = overlap(truth, answer, valid, kinds)
        if self.ignore_label is not None and 0 <= self.ignore_label < kinds:
            union[:, self.ignore_label] = 0  # a class that is ignored is no part of the mean
        return {
            "intersection": intersection,
            "union": union,
            "pixels": pixels,
            "correct_pixels": np.sum((answer == truth) & valid, axis=(1, 2)),
            "valid_pixels": np.sum(valid, axis=(1, 2)),
        }

    def tables(self, scores: Scores) -> dict[str, pd.DataFrame]:
        """Return `per_class`: IoU with intervals."""
        return {
            "per_class": per_class_table(self.classes, scores["intersection"], scores["union"], scores["pixels"]),
        }

    def rows(self, scores: Scores) -> pd.DataFrame:
        """Return each image's own mean IoU, its right and valid pixels, and its IoU by class as a JSON list."""
        overlaps = _overlaps(scores)
        return pd.DataFrame(
            {
                "mean_iou": mean_iou(overlaps),
                "correct_pixels": scores["correct_pixels"],
                "valid_pixels": scores["valid_pixels"],
                "iou": [
                    "[" + ", ".join("null" if np.isnan(v) else f"{v:.6g}" for v in row) + "]" for row in iou(overlaps)
                ],
            }
        )

    def badness(self, scores: Scores) -> np.ndarray:
        """Return 1 - the image's own mean IoU: 0 where every pixel that counts is right."""
        return np.nan_to_num(1.0 - mean_iou(_overlaps(scores)))

    def show(self, image: np.ndarray, y: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, str]:
        """Return image, truth and prediction side by side, each class in its own colour, ignored pixels grey."""
        scores = self.score(y[None], prediction[None])
        picture, gap = as_rgb(image), np.full((image.shape[0], max(1, image.shape[1] // 32), 3), 255, np.uint8)
        truth = overlay(picture, np.where(self._counts(y), y, -1), len(self.classes))
        answer = overlay(picture, np.argmax(prediction, axis=-1), len(self.classes))
        share = 1.0 - self.badness(scores)[0]
        return np.concatenate([picture, gap, truth, gap, answer], axis=1), f"mean IoU {share:.0%}"

    def _counts(self, y: np.ndarray) -> np.ndarray:
        return ~np.isin(y, [VOID] if self.ignore_label is None else [VOID, self.ignore_label])


def valid_pixels(y: Any, ignore_label: int | None, classes: int) -> Any:
    """Return where a mask holds a class that counts, bool, with keras.ops."""
    valid = ops.logical_and(ops.logical_and(y >= 0, y < classes), y != VOID)
    return valid if ignore_label is None else ops.logical_and(valid, y != ignore_label)


def _overlaps(scores: Scores) -> np.ndarray:
    return np.concatenate([scores["intersection"], scores["union"]], axis=1).astype(np.float64)


class MeanIoU(keras.metrics.Metric):
    """Dataset-level mean IoU of logits (B, H, W, K) against masks (B, H, W), over the classes that occur.

    Keras's own takes no weight per image, and counts an ignored class as one that is always wrong.
    """

    def __init__(self, classes: int, ignore_label: int | None, name: str = "mean_iou") -> None:
        super().__init__(name=name)
        self.classes, self.ignore_label = classes, ignore_label
        self.intersection = self.add_variable((classes,), "zeros", name="intersection")
        self.union = self.add_variable((classes,), "zeros", name="union")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch; `sample_weight` is one number per image."""
        weight = ops.cast(valid_pixels(y_true, self.ignore_label, self.classes), "float32")
        if sample_weight is not None:
            weight = weight * ops.reshape(ops.cast(sample_weight, "float32"), (-1, 1, 1))
        truth = ops.one_hot(y_true, self.classes, dtype="float32") * weight[..., None]
        answer = ops.one_hot(ops.argmax(y_pred, axis=-1), self.classes, dtype="float32") * weight[..., None]
        both = ops.sum(ops.minimum(truth, answer), axis=(0, 1, 2))
        self.intersection.assign_add(both)
        self.union.assign_add(ops.sum(truth, axis=(0, 1, 2)) + ops.sum(answer, axis=(0, 1, 2)) - both)

    def result(self) -> Any:
        """Return the mean over classes; 0 before any pixel was seen."""
        counts = ops.ones((self.classes,), "float32")
        if self.ignore_label is not None and 0 <= self.ignore_label < self.classes:
            counts = counts - ops.one_hot(self.ignore_label, self.classes, dtype="float32")
        present = ops.cast(self.union > 0, "float32") * counts
        ratio = self.intersection / ops.maximum(self.union, 1e-7)
        return ops.sum(ratio * present) / ops.maximum(ops.sum(present), 1.0)
