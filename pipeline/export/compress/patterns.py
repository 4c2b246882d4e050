"""Which weights of a kernel are zero: the smallest ones, in a pattern."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.errors import UserError


@dataclass(frozen=True)
class Pattern:
    """A way to choose zeros.

    Args:
        text: how it was written.
        keep: from the weights (outputs, ..., inputs), in the order of a .tflite file, and a sparsity to the weights
            that stay, bool of the same shape.
        group: inputs that belong together; a kernel whose inputs are no multiple of it has no such pattern.
        sparsity: the one that the pattern stands for, or None.
    """

    text: str
    keep: Callable[[np.ndarray, float], np.ndarray]
    structured: bool
    group: int = 1
    sparsity: float | None = None


def read_pattern(text: str) -> Pattern:
    """Read "unstructured", blocks of outputs x inputs such as "1x16" or "4x1", or N:M such as "2:4".

    N:M keeps at most N of each M consecutive inputs of an output channel, at each position of the kernel.
    """
    if text == "unstructured":
        return Pattern(text, _smallest, structured=False)
    if found := re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text):
        rows, columns = map(int, found.groups())
        return Pattern(text, lambda weights, sparsity: _blocks(weights, sparsity, rows, columns), structured=True)
    if found := re.fullmatch(r"([1-9]\d*):([1-9]\d*)", text):
        n, m = map(int, found.groups())
        if n > m:
            raise UserError(f"the pattern {text!r} would keep {n} of each {m} weights; give N:M with N below M")
        return Pattern(text, lambda weights, sparsity: _n_of_m(weights, sparsity, m), True, m, 1 - n / m)
    raise UserError(
        f"the pattern {text!r} is unknown; give 'unstructured', blocks of outputs x inputs such as '1x16', or N:M "
        "such as '2:4'"
    )


def _smallest(weights: np.ndarray, sparsity: float) -> np.ndarray:
    """Keep all but the smallest; of equal ones the later stay, so that the count is exact."""
    kept = np.ones(weights.size, bool)
    kept[np.argsort(np.abs(weights), axis=None, kind="stable")[: round(sparsity * weights.size)]] = False
    return kept.reshape(weights.shape)


def _blocks(weights: np.ndarray, sparsity: float, rows: int, columns: int) -> np.ndarray:
    """Keep or drop whole blocks by their mean magnitude; those at the edges may be smaller."""
    sizes = np.abs(weights).reshape(weights.shape[0], -1, weights.shape[-1])
    sums = np.add.reduceat(np.add.reduceat(sizes, _starts(sizes, 0, rows), 0), _starts(sizes, 2, columns), 2)
    ones = np.ones_like(sizes)
    counts = np.add.reduceat(np.add.reduceat(ones, _starts(sizes, 0, rows), 0), _starts(sizes, 2, columns), 2)
    kept = _smallest(sums / counts, sparsity).repeat(rows, axis=0).repeat(columns, axis=2)
    return kept[: sizes.shape[0], :, : sizes.shape[2]].reshape(weights.shape)


def _starts(array: np.ndarray, axis: int, step: int) -> np.ndarray:
    return np.arange(0, array.shape[axis], step)


def _n_of_m(weights: np.ndarray, sparsity: float, m: int) -> np.ndarray:
    """Keep the largest of each group; below the full sparsity fewer are dropped from each."""
    sizes = np.abs(weights).reshape(-1, m)
    dropped = int(sparsity * m + 1e-6)
    ranks = np.argsort(np.argsort(sizes, axis=1, kind="stable"), axis=1)
    return (ranks >= dropped).reshape(weights.shape)
