"""The embedded default: real handwritten digits that scikit-learn ships, so that the main job runs offline."""

import numpy as np
import tensorflow as tf

from pipeline.data.source import Sample, Source, Split
from pipeline.registry import SOURCES


@SOURCES.register
def digits() -> Source:
    """1,797 handwritten digits of 8×8 grey pixels, inside scikit-learn; test digits are by other writers.

    The test split is scikit-learn's own: the second half in file order (n = 899).
    https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits
    """
    images, labels = load_digits()
    half = len(images) // 2
    return Source(
        classes=tuple("0123456789"),
        fields=frozenset({"label"}),
        splits={"train": _split(images, labels, 0, half), "test": _split(images, labels, half, len(images))},
    )


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return all digits in file order: uint8 (1797, 8, 8) in 0..255 and int32 (1797,)."""
    import sklearn.datasets  # takes seconds to import, and only the embedded sources need it

    bunch = sklearn.datasets.load_digits()
    return np.round(bunch.images * (255 / 16)).astype(np.uint8), bunch.target.astype(np.int32)


def _split(images: np.ndarray, labels: np.ndarray, start: int, stop: int) -> Split:
    columns: Sample = {
        "image": tf.constant(images[start:stop, ..., None]),
        "label": tf.constant(labels[start:stop]),
        "id": tf.constant([f"digit {index}" for index in range(start, stop)]),
    }
    return Split(
        stop - start,
        load=lambda index: {name: tf.gather(column, index) for name, column in columns.items()},
        labels=labels[start:stop],
    )
