"""NumPy figures of classification, as functions of sums over examples where they can be bootstrapped."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import sparse

from pipeline.ops.intervals import wilson

CALIBRATION_BINS = 15


def confusion_matrix(truth: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """Count examples by truth (rows) and prediction (columns), int64 (K, K)."""
    return np.bincount(truth.astype(np.int64) * classes + prediction, minlength=classes**2).reshape(classes, classes)


def ranks(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the place of the true class in each answer, 0 for the first; ties count in class order, as in argmax."""
    own = probabilities[np.arange(len(truth)), truth][:, None]
    earlier = np.arange(probabilities.shape[1])[None] < truth[:, None]
    return np.sum((probabilities > own) | ((probabilities == own) & earlier), axis=1)


def negative_log_likelihood(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return -ln p(truth) in nats, (N,); p is kept above 1e-7, since quantised files answer 0."""
    own = probabilities[np.arange(len(truth)), truth].astype(np.float64)
    return -np.log(np.maximum(own, 1e-7))


def count_terms(truth: np.ndarray, prediction: np.ndarray, classes: int) -> sparse.csr_array:
    """Return what each example adds to (right, of this truth, predicted) of every class, sparse (N, 3 K)."""
    rows = np.arange(len(truth))
    right = truth == prediction
    columns = np.concatenate([truth[right], classes + truth, 2 * classes + prediction])
    values = np.ones(len(columns))
    return sparse.csr_array((values, (np.concatenate([rows[right], rows, rows]), columns)), (len(truth), 3 * classes))


def _split_counts(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    right, support, predicted = np.split(np.asarray(sums), 3, axis=-1)
    return right, support, predicted, (support + predicted) > 0


def _mean_over(present: np.ndarray, part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Average part / whole over the classes that occur; 0 / 0 counts as 0, as in scikit-learn."""
    ratio = np.divide(part, whole, out=np.zeros_like(part, dtype=np.float64), where=whole > 0)
    return np.sum(ratio * present, axis=-1) / np.maximum(np.sum(present, axis=-1), 1)


def macro_f1(sums: np.ndarray) -> np.ndarray:
    """Average F1 over the classes that occur in truth or prediction, from summed `count_terms`."""
    right, support, predicted, present = _split_counts(sums)
    return _mean_over(present, 2 * right, support + predicted)


def macro_precision(sums: np.ndarray) -> np.ndarray:
    """Average precision over the classes that occur in truth or prediction, from summed `count_terms`."""
    right, _, predicted, present = _split_counts(sums)
    return _mean_over(present, right, predicted)


def macro_recall(sums: np.ndarray) -> np.ndarray:
    """Average recall over the classes that occur in truth or prediction, from summed `count_terms`."""
    right, support, _, present = _split_counts(sums)
    return _mean_over(present, right, support)


def _bins(confidence: np.ndarray) -> np.ndarray:
    """Number the 15 equal bins (0, 1/15], ..., (14/15, 1]."""
    return np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)


def calibration_terms(confidence: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Return what each example adds to (count, confidence, right) of every bin, (N, 45)."""
    member = np.eye(CALIBRATION_BINS)[_bins(confidence)]
    return np.concatenate([member, member * confidence[:, None], member * correct[:, None]], axis=1)


def calibration_error(sums: np.ndarray) -> np.ndarray:
    """Return the expected calibration error (Guo et al., arXiv 1706.04599), 0 to 1, from summed `calibration_terms`."""
    count, confidence, right = np.split(np.asarray(sums), 3, axis=-1)
    return np.sum(np.abs(confidence - right), axis=-1) / np.sum(count, axis=-1)


def calibration_table(confidence: np.ndarray, correct: np.ndarray) -> pd.DataFrame:
    """Return one row per bin that has examples: mean confidence, accuracy with its Wilson interval, count."""
    bins = _bins(confidence)
    rows = []
    for number in np.unique(bins):
        inside = bins == number
        accuracy = wilson(int(correct[inside].sum()), int(inside.sum()))
        rows.append(
            {
                "from": number / CALIBRATION_BINS,
                "to": (number + 1) / CALIBRATION_BINS,
                "confidence": float(confidence[inside].mean()),
                "accuracy": accuracy.value,
                "accuracy_low": accuracy.low,
                "accuracy_high": accuracy.high,
                "count": accuracy.n,
            }
        )
    return pd.DataFrame(rows)


def per_class_table(classes: Sequence[str], matrix: np.ndarray) -> pd.DataFrame:
    """Return precision and recall with Wilson intervals, F1 and support of each class from a confusion matrix.

    A ratio of nothing (a class that never occurs, or is never predicted) is nan.
    """
    rows = []
    for number, name in enumerate(classes):
        right, support, predicted = matrix[number, number], matrix[number].sum(), matrix[:, number].sum()
        precision, recall = wilson(int(right), int(predicted)), wilson(int(right), int(support))
        rows.append(
            {
                "class": name,
                "precision": precision.value,
                "precision_low": precision.low,
                "precision_high": precision.high,
                "recall": recall.value,
                "recall_low": recall.low,
                "recall_high": recall.high,
                "f1": 2 * right / (support + predicted) if support + predicted else np.nan,
                "support": int(support),
                "predicted": int(predicted),
            }
        )
    return pd.DataFrame(rows)
