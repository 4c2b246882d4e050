"""Occlusion: hide a part of the image and see by how much the answer falls. It works on any predictor, files too."""

import numpy as np

from pipeline.evaluation.scoring import Predict

CELLS = 8
_AT_ONCE = 41  # images; a grid of 8 × 8 takes two equal batches, and a predictor that is compiled by shape one trace


def runs(cells: int = CELLS) -> int:
    """Return how many images a heat map of so many cells a side asks the predictor about."""
    return (cells + 1) ** 2 + 1


def occlusion(predict: Predict, image: np.ndarray, label: int, *, cells: int = CELLS) -> np.ndarray:
    """Return by how much the probability of `label` falls where the image is hidden: float32 (H, W), -1 to 1.

    A patch of 2 × 2 cells in the mean colour of the image slides by one cell and over the border, so that each cell is
    hidden four times, and has the mean of the four falls. Above 0 a cell speaks for the label, below 0 against it.
    The idea is Zeiler and Fergus' (arXiv 1311.2901), whose patch is grey.

    Args:
        predict: float32 (B, H, W, C) of 0 to 255 to probabilities (B, K).
        image: (H, W, C) in 0..255.
        cells: of the grid along each side; an image of fewer pixels has a cell for each.
    """
    rows, columns = (_edges(extent, cells) for extent in image.shape[:2])
    # Integers, since an integer file would round them and a Keras model would not.
    patch = np.rint(image.mean(axis=(0, 1)))
    hidden = [image]
    for top, bottom in _patches(rows):
        for left, right in _patches(columns):
            one = image.copy()
            one[top:bottom, left:right] = patch
            hidden.append(one)
    images = np.stack(hidden).astype(np.float32)
    parts = [predict(images[start : start + _AT_ONCE])[:, label] for start in range(0, len(images), _AT_ONCE)]
    probabilities = np.concatenate(parts)
    falls = (probabilities[0] - probabilities[1:]).reshape(len(rows), len(columns))
    heat = (falls[:-1, :-1] + falls[1:, :-1] + falls[:-1, 1:] + falls[1:, 1:]) / 4
    return np.repeat(np.repeat(heat, np.diff(rows), axis=0), np.diff(columns), axis=1).astype(np.float32)


def _edges(extent: int, cells: int) -> np.ndarray:
    return np.linspace(0, extent, min(cells, extent) + 1).round().astype(int)


def _patches(edges: np.ndarray) -> list[tuple[int, int]]:
    """Return start and end of every pair of neighbouring cells, and of the first and the last cell by itself."""
    padded = [edges[0], *edges, edges[-1]]
    return list(zip(padded[:-2], padded[2:], strict=True))
