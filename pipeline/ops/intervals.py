"""95 % intervals: Wilson's for proportions, the bootstrap for functions of sums, Student's for repetitions."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

Z95 = float(ndtri(0.975))
Z90 = float(ndtri(0.95))
RESAMPLES = 1000


@dataclass(frozen=True)
class Interval:
    """A figure, its 95 % interval, and the number of examples behind it."""

    value: float
    low: float
    high: float
    n: int


def wilson(successes: int, n: int) -> Interval:
    """Return Wilson's score interval of a proportion (Wilson 1927); without examples it is all of [0, 1]."""
    if n == 0:
        return Interval(math.nan, 0.0, 1.0, 0)
    value, z2 = successes / n, Z95**2
    centre = (value + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(value * (1 - value) / n + z2 / (4 * n * n))
    return Interval(value, min(max(centre - half, 0.0), value), max(min(centre + half, 1.0), value), n)


def student(values: Sequence[float], *, overlap: float = 0.0) -> Interval:
    """Return the mean of a few repetitions with Student's interval; n is their number.

    Args:
        overlap: what the repetitions share makes them more alike than independent ones. For k-fold cross-validation
            it is the ratio of tested to trained images (Nadeau and Bengio 2003, the corrected t-test).
    """
    n = len(values)
    mean = float(np.mean(values))
    if n < 2:
        return Interval(mean, -math.inf, math.inf, n)
    half = float(stdtrit(n - 1, 0.975)) * math.sqrt(np.var(values, ddof=1) * (1 / n + overlap))
    return Interval(mean, mean - half, mean + half, n)


def resampled_sums(terms: Any, *, seed: int = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """Sum the rows of `terms` over bootstrap resamples of them.

    Equal seeds and row counts draw equal rows, which is what pairs two sets of results.

    Args:
        terms: (N, M), a NumPy array or a SciPy sparse array.

    Returns:
        float64 (resamples, M).
    """
    n = terms.shape[0]
    rng = np.random.default_rng(seed)
    at_once = max(1, 2_000_000 // n)  # bounds the drawn indices to 16 MB
    sums = []
    for start in range(0, resamples, at_once):
        rows = min(at_once, resamples - start)
        drawn = rng.integers(0, n, (rows, n)) + n * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)
        sums.append(times @ terms)
    return np.concatenate(sums)


def percentile_interval(value: float, replicates: np.ndarray, n: int, *, z: float = Z95) -> Interval:
    """Return the bias-corrected percentile interval of a bootstrap (Efron 1981).

    The correction matters for figures that resampling pushes to one side, such as the calibration error. Replicates
    that are not a number (a resample without any of the pixels in question) are left out. `z` is the standard normal
    quantile of the limits; Z90 makes each a one-sided 95 % limit.
    """
    replicates = replicates[np.isfinite(replicates)]
    if not len(replicates):
        return Interval(value, value, value, n)
    below = np.mean(replicates < value) + 0.5 * np.mean(replicates == value)
    shift = 2 * float(np.clip(ndtri(below), -Z95, Z95))
    low, high = np.quantile(replicates, [ndtr(shift - z), ndtr(shift + z)])
    return Interval(value, min(float(low), value), max(float(high), value), n)


def bootstrap(terms: Any, figure: Callable[[np.ndarray], np.ndarray], *, seed: int = 0) -> Interval:
    """Return the bootstrap interval over examples of `figure(sums of terms)`.

    Args:
        terms: (N, M), dense or sparse: what each example adds.
        figure: maps sums (..., M) to figures (...).
    """
    n = terms.shape[0]
    value = float(figure(np.asarray(terms.sum(axis=0), dtype=np.float64)))
    return percentile_interval(value, figure(resampled_sums(terms, seed=seed)), n)
