"""Every score with its interval, every comparison paired, with its effect size and what it could have detected."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri
from scipy.stats import binomtest

from pipeline.ops.intervals import Z90, Z95, Interval, bootstrap, percentile_interval, resampled_sums, wilson
from pipeline.tasks.base import Measure, Scores

__all__ = [
    "Comparison",
    "Interval",
    "bonett_price",
    "bootstrap",
    "compare",
    "compare_terms",
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
        lower, upper: its one-sided 95 % limits, each by itself.
        p_value: two-sided, of no difference.
        detectable: the smallest true difference that n such examples would show (p < 0.05) four times in five.
        test: the name of the test.
        lost, won: how many examples only `first`, and only `second`, has right; None for other than proportions.
    """

    difference: float
    low: float
    high: float
    lower: float
    upper: float
    p_value: float
    detectable: float
    n: int
    test: str
    lost: int | None = None
    won: int | None = None


def interval(measure: Measure, scores: Scores) -> Interval:
    """Return a measure's figure with its 95 % interval: Wilson's for a proportion, else the bootstrap over examples."""
    if measure.proportion is not None:
        hits = scores[measure.proportion]
        return wilson(int(np.sum(hits)), len(hits))
    return bootstrap(measure.terms(scores), measure.figure)


def compare(measure: Measure, first: Scores, second: Scores) -> Comparison:
    """Compare two models' results on the same examples in the same order, by the test that suits the measure."""
    return compare_terms(measure, measure.terms(first), measure.terms(second))


def compare_terms(measure: Measure, first: Any, second: Any) -> Comparison:
    """Compare two models by what each example adds to the measure, as `measure.terms` gives it, (N, M) each."""
    if measure.proportion is not None:  # its terms begin with 1 or 0: right or wrong
        return mcnemar(first[:, 0] > 0, second[:, 0] > 0)
    return paired_bootstrap(measure, first, second)


def mcnemar(first: np.ndarray, second: np.ndarray) -> Comparison:
    """Compare two proportions on the same examples by McNemar's exact test; the interval is `bonett_price`'s.

    Args:
        first, second: bool (N,), right or not, example by example.
    """
    first, second = _paired(first, second)
    n = len(first)
    lost, won = int(np.sum(first & ~second)), int(np.sum(~first & second))
    p_value = binomtest(won, won + lost).pvalue if won + lost else 1.0
    low, high = bonett_price(lost, won, n, Z95)
    lower, upper = bonett_price(lost, won, n, Z90)
    return Comparison(
        difference=(won - lost) / n,
        low=low,
        high=high,
        lower=lower,
        upper=upper,
        p_value=float(p_value),
        detectable=minimum_detectable_effect(n, (lost + won + 2) / (n + 2)),
        n=n,
        test="McNemar, exact",
        lost=lost,
        won=won,
    )


def bonett_price(lost: float, won: float, n: int, z: float) -> tuple[float, float]:
    """Return the limits of won minus lost, as shares of n examples, `z` standard errors to either side.

    They are the Wald interval's with Bonett and Price's (2012) adjustment, which keeps its coverage in small samples
    and when the two never disagree.
    """
    down, up = (lost + 1) / (n + 2), (won + 1) / (n + 2)
    error = math.sqrt((down + up - (up - down) ** 2) / (n + 2))
    return max(up - down - z * error, -1.0), min(up - down + z * error, 1.0)


def minimum_detectable_effect(n: int, discordance: float) -> float:
    """Return the difference of two paired proportions that McNemar's test finds at 5 % with a power of 80 %.

    Connor (1987), solved for the difference; at most 1.

    Args:
        discordance: share of examples on which exactly one of the two is right, 0 to 1.
    """
    root = math.sqrt(max(n + POWER_Z**2 - Z95**2, 0.0))
    return min(math.sqrt(discordance) * (Z95 * math.sqrt(n) + POWER_Z * root) / (n + POWER_Z**2), 1.0)


def paired_bootstrap(measure: Measure, first: Any, second: Any, *, seed: int = 0) -> Comparison:
    """Compare any measure of two models by resampling their common examples; both are the measure's terms (N, M)."""
    n = first.shape[0]
    if second.shape[0] != n:
        raise ValueError(f"the two are not paired: {n} and {second.shape[0]} examples")
    # Equal seeds draw equal examples for both.
    before, after = (measure.figure(resampled_sums(terms, seed=seed)) for terms in (first, second))
    replicates = after - before
    replicates = replicates[np.isfinite(replicates)]
    totals = [np.asarray(terms.sum(axis=0), np.float64) for terms in (first, second)]
    difference = float(measure.figure(totals[1]) - measure.figure(totals[0]))
    found = percentile_interval(difference, replicates, n)
    one_sided = percentile_interval(difference, replicates, n, z=Z90)
    tail = min(np.sum(replicates <= 0), np.sum(replicates >= 0))
    return Comparison(
        difference=found.value,
        low=found.low,
        high=found.high,
        lower=one_sided.low,
        upper=one_sided.high,
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
