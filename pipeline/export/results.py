"""The export's table: one row per file, with a verdict against the margin, and which file is the fastest."""

import math
from bisect import bisect_left
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.evaluation.statistics import Comparison, bonett_price, compare, interval
from pipeline.export.agreement import Agreement
from pipeline.export.latency import Latency
from pipeline.ops.intervals import Z90
from pipeline.tasks.base import Measure, Task

MOST_UNREST = 0.5  # of a file's rounds: beyond that a ranking says more about the machine's other work than about files
_MOST_IMAGES = 10**12  # a loss that takes more than these is the margin itself, but for rounding


def tabulate(
    agreement: Agreement,
    task: Task,
    paths: Mapping[str, Path],
    latency: Mapping[tuple[Path, int], Latency],
    margin: float,
) -> pd.DataFrame:
    """Return one row per variant.

    `score`, `low` and `high` are the task's monitored measure with its 95 % interval; `difference` is points (0.01)
    against the Keras model on the same images, with its paired interval; `margin` is points.
    """
    measure = task.measures[task.monitor]
    rows = []
    for variant, path in paths.items():
        answers = agreement.files[variant]
        found = interval(measure, answers.scores)
        difference = compare(measure, agreement.keras.scores, answers.scores)
        row = {
            "variant": variant,
            "file": path.name,
            "bytes": path.stat().st_size,
            "measure": task.monitor,
            "score": found.value,
            "low": found.low,
            "high": found.high,
            "n": found.n,
            **judge(difference, measure, margin),
            "max_abs_difference": answers.max_abs_difference,
            "mean_abs_difference": answers.mean_abs_difference,
        }
        rows.append(row | _timings([timing for (timed, _), timing in latency.items() if timed == path]))
    return pd.DataFrame(rows)


def judge(difference: Comparison, measure: Measure, margin: float) -> dict[str, Any]:
    """Return the columns that follow from a comparison with the Keras model; `margin` is points."""
    better = {"higher_is_better": measure.higher_is_better}
    return {
        "difference": 100 * difference.difference,
        "difference_low": 100 * difference.low,
        "difference_high": 100 * difference.high,
        "p_value": difference.p_value,
        "verdict": verdict(difference, margin, **better),
        "images_needed": images_needed(difference, margin, **better),
    }


def verdict(difference: Comparison, margin: float, *, higher_is_better: bool = True) -> str:
    """Say whether the one-sided 95 % limit of the difference stays above the margin (points): non-inferiority.

    `ok`: a loss beyond the margin is excluded; `worse`: a loss beyond it is certain; `not shown`: neither, more
    test images would tell.
    """
    lower, _, upper = _gains(difference, higher_is_better)
    if lower > -margin:
        return "ok"
    return "worse" if upper < -margin else "not shown"


def images_needed(difference: Comparison, margin: float, *, higher_is_better: bool = True) -> float:
    """Return how many test images would exclude a loss beyond the margin (points), if this difference is the true one.

    For a proportion it is the smallest number on which the test itself would, the shares of lost and won answers
    staying as they are; else the limit's distance is taken to shrink with the square root of the number. It is nan
    where no number would do.
    """
    lower, gain, _ = _gains(difference, higher_is_better)
    if gain <= -margin:
        return math.nan
    if difference.lost is not None and difference.won is not None:
        lost, won = (count / difference.n for count in (difference.lost, difference.won))
        return _fewest(*((lost, won) if higher_is_better else (won, lost)), margin)
    return float(math.ceil(difference.n * ((gain - lower) / (gain + margin)) ** 2))


def _fewest(lost: float, won: float, margin: float) -> float:
    """Return how many images exclude a loss beyond the margin (points) where these shares of them are lost and won."""

    def excludes(n: int) -> bool:
        return 100 * bonett_price(lost * n, won * n, n, Z90)[0] > -margin

    numbers = range(1, _MOST_IMAGES)
    found = bisect_left(numbers, True, key=excludes)
    return float(numbers[found]) if found < len(numbers) else math.nan


def _gains(difference: Comparison, higher_is_better: bool) -> tuple[float, float, float]:
    """Return lower limit, value and upper limit in points, a gain being positive."""
    points = 100 if higher_is_better else -100
    lower, upper = sorted((points * difference.lower, points * difference.upper))
    return lower, points * difference.difference, upper


def summary(results: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that fit a terminal of 80 characters, rounded; scores and differences are in percent."""
    return pd.DataFrame(
        {
            "variant": results["variant"],
            "KiB": (results["bytes"] / 2**10).round().astype(int),
            "score": [f"{100 * score:.2f}" for score in results["score"]],
            "95 %": [
                f"{100 * low:.1f}–{100 * high:.1f}" for low, high in zip(results["low"], results["high"], strict=True)
            ],
            "points": [f"{points:+.2f}" for points in results["difference"]],
            "p": results["p_value"].map("{:.2g}".format),
            "verdict": results["verdict"],
            "ms": results["latency_ms_p50"].map("{:.3g}".format),
            "ms 2t": results["latency_ms_p50_2t"].map("{:.3g}".format),
            "MiB": results["memory_mb"].round().astype(int),
        }
    )


def _timings(timings: list[Latency]) -> dict[str, float]:
    columns = {}
    for timing in timings:
        suffix = "" if timing.threads == 1 else f"_{timing.threads}t"
        for name, value in (("p10", timing.p10), ("p50", timing.p50), ("p90", timing.p90)):
            columns[f"latency_ms_{name}{suffix}"] = value
        columns[f"memory_mb{suffix}"] = timing.memory_mb
    return columns


def _unrest(timing: Latency) -> float:
    """Return by how much one file's rounds differ: their 10th to 90th percentile over their median."""
    low, median, high = np.percentile(timing.rounds, (10, 50, 90))
    return float((high - low) / median)


def fastest(latency: Mapping[str, Latency]) -> str:
    """Name the file with the lowest median time, and its ratio to float32, as measured round by round.

    On a machine that is too busy to tell, no file is named.
    """
    unrest = float(np.median([_unrest(one) for one in latency.values()]))
    if unrest > MOST_UNREST:
        return f"fastest: not ranked, the machine was busy (the same file's rounds differ by {unrest:.0%})"
    best = min(latency, key=lambda variant: latency[variant].p50)
    if "float32" not in latency or best == "float32":
        return f"fastest here: {best}, {latency[best].p50:.3g} ms per image on one thread"
    # The rounds alternated between the files, so a ratio within a round is free of the machine's slow changes.
    rounds = min(len(latency[best].rounds), len(latency["float32"].rounds))
    ratios = np.divide(latency["float32"].rounds[:rounds], latency[best].rounds[:rounds])
    low, ratio, high = np.percentile(ratios, (10, 50, 90))
    spread = f"{ratio:.2f} times as fast as float32 ({low:.2f} to {high:.2f} over {rounds} rounds)"
    if low <= 1:
        return f"fastest here: {best}, but within the noise: {spread}"
    return f"fastest here: {best}, {latency[best].p50:.3g} ms per image on one thread, {spread}"
