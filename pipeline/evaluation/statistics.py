"""Every score with its interval, every comparison paired, with its effect size and what it could have detected."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri
from scipy.stats import binomtest

from pipeline.ops.intervals import Z95, Interval, bootstrap, percentile_interval, resampled_sums, wilson
from pipeline.tasks.base import Measure, Scores

__all__ = [
    "Comparison",
    "Interval",
    "bootstrap",
    "compare",
    "interval",
    "mcnemar",
    "minimum_detectable_effect",
    "paired_bootstrap",
    "wilson",
]

POWER_Z = float(ndtri(0.8))


@dataclass(frozen=True)
class Comparison:
    """How `second` differs from `first` on the same examples, in the measure's own unit (0.01 is one point).

    Args:
        difference: second minus first, with its paired 95 % interval `low` to `high`.
        p_value: two-sided, of no difference.
        detectable: the smallest true difference that n such examples would show (p < 0.05) four times in five.
        test: the name of the test.
    """

    difference: float
    low: float
    high: float
    p_value: float
    detectable: float
    n: int
    test: str


def interval(measure: Measure, scores: Scores) -> Interval:
    """Return a measure's figure with its 95 % interval: Wilson's for a proportion, else the bootstrap over examples."""
    if measure.proportion is not None:
        hits = scores[measure.proportion]
        return wilson(int(np.sum(hits)), len(hits))
    return bootstrap(measure.terms(scores), measure.figure)


def compare(measure: Measure, first: Scores, second: Scores) -> Comparison:
    """Compare two models' results on the same examples in the same order, by the test that suits the measure."""
    if measure.proportion is not None:
        return mcnemar(first[measure.proportion], second[measure.proportion])
    return paired_bootstrap(measure, first, second)


def mcnemar(first: np.ndarray, second: np.ndarray) -> Comparison:
    """Compare two proportions on the same examples by McNemar's exact test.

    The interval is the Wald interval with Bonett and Price's (2012) adjustment, which keeps its coverage in small
    samples and when the two never disagree.

    Args:
        first, second: bool (N,), right or not, example by example.
    """
    first, second = _paired(first, second)
    n = len(first)
    lost, won = int(np.sum(first & ~second)), int(np.sum(~first & second))
    p_value = binomtest(won, won + lost).pvalue if won + lost else 1.0
    down, up = (lost + 1) / (n + 2), (won + 1) / (n + 2)
    half = Z95 * math.sqrt((down + up - (up - down) ** 2) / (n + 2))
    return Comparison(
        difference=(won - lost) / n,
        low=max(up - down - half, -1.0),
        high=min(up - down + half, 1.0),
        p_value=float(p_value),
        detectable=minimum_detectable_effect(n, down + up),
        n=n,
        test="McNemar, exact",
    )


def minimum_detectable_effect(n: int, discordance: float) -> float:
    """Return the difference of two paired proportions that McNemar's test finds at 5 % with a power of 80 %.

    Connor (1987), solved for the difference; at most 1.

    Args:
        discordance: share of examples on which exactly one of the two is right, 0 to 1.
    """
    root = math.sqrt(max(n + POWER_Z**2 - Z95**2, 0.0))
    return min(math.sqrt(discordance) * (Z95 * math.sqrt(n) + POWER_Z * root) / (n + POWER_Z**2), 1.0)


def paired_bootstrap(measure: Measure, first: Scores, second: Scores, *, seed: int = 0) -> Comparison:
    """Compare any measure of two models by resampling their common examples."""
    terms = [measure.terms(scores) for scores in (first, second)]
    n = terms[0].shape[0]
    if terms[1].shape[0] != n:
        raise ValueError(f"the two are not paired: {n} and {terms[1].shape[0]} examples")
    # Equal seeds draw equal examples for both.
    before, after = (measure.figure(resampled_sums(one, seed=seed)) for one in terms)
    replicates = after - before
    replicates = replicates[np.isfinite(replicates)]
    found = percentile_interval(measure.aggregate(second) - measure.aggregate(first), replicates, n)
    tail = min(np.sum(replicates <= 0), np.sum(replicates >= 0))
    return Comparison(
        difference=found.value,
        low=found.low,
        high=found.high,
        p_value=float(min(1.0, 2 * (tail + 1) / (len(replicates) + 1))),
        detectable=float((Z95 + POWER_Z) * np.std(replicates)) if len(replicates) else math.nan,
        n=n,
        test="paired bootstrap",
    )


def _paired(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.asarray(first, bool), np.asarray(second, bool)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"the two are not paired: their shapes are {first.shape} and {second.shape}")
    return first, second
