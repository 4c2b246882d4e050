"""NumPy figures of segmentation, as functions of sums over images."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.ops.intervals import percentile_interval, resampled_sums

VOID = 255  # the mask index that is no class, as in Pascal VOC and Cityscapes; letterbox bars have it


def overlap(truth: np.ndarray, prediction: np.ndarray, valid: np.ndarray, classes: int) -> tuple[np.ndarray, ...]:
    """Count each image's pixels by class among the valid ones.

    Args:
        truth, prediction: int (B, H, W), 0 to classes - 1 wherever `valid` (bool (B, H, W)).

    Returns:
        intersection, union and truth, each int64 (B, K).
    """
    images = len(truth)
    # One bin per image, true class and predicted class; invalid pixels fall into an extra last bin.
    bins = (np.arange(images)[:, None, None] * classes + truth) * classes + prediction
    bins = np.where(valid, bins, images * classes**2)
    matrix = np.bincount(bins.ravel(), minlength=images * classes**2 + 1)[:-1].reshape(images, classes, classes)
    intersection = np.diagonal(matrix, axis1=1, axis2=2)
    own, predicted = matrix.sum(axis=2), matrix.sum(axis=1)
    return intersection, own + predicted - intersection, own


def iou(sums: np.ndarray) -> np.ndarray:
    """Divide summed intersections by summed unions, (..., 2 K) to (..., K); nan for a class that never occurs."""
    intersection, union = np.split(np.asarray(sums, np.float64), 2, axis=-1)
    return np.divide(intersection, union, out=np.full_like(union, np.nan), where=union > 0)


def mean_iou(sums: np.ndarray) -> np.ndarray:
    """Average the IoU over the classes that occur in truth or prediction; nan where none does."""
    ratio = iou(sums)
    present = ~np.isnan(ratio)
    count = present.sum(axis=-1)
    total = np.where(present, ratio, 0.0).sum(axis=-1)
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def per_class_table(
    classes: Sequence[str], intersection: np.ndarray, union: np.ndarray, pixels: np.ndarray
) -> pd.DataFrame:
    """Return each class's IoU with its bootstrap interval over images, its recall and its count of true pixels."""
    terms = np.concatenate([intersection, union], axis=1).astype(np.float64)
    value, replicates = iou(terms.sum(axis=0)), iou(resampled_sums(terms))
    own = pixels.sum(axis=0)
    rows = []
    for number, name in enumerate(classes):
        found = percentile_interval(float(value[number]), replicates[:, number], len(terms))
        rows.append(
            {
                "class": name,
                "iou": found.value,
                "iou_low": found.low,
                "iou_high": found.high,
                "recall": intersection[:, number].sum() / own[number] if own[number] else np.nan,
                "images": int(np.sum(pixels[:, number] > 0)),
                "pixels": int(own[number]),
            }
        )
    return pd.DataFrame(rows)
