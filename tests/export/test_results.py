import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluation.statistics import Comparison, compare, mcnemar
from pipeline.export.latency import Latency
from pipeline.export.results import fastest, images_needed, summary, verdict
from pipeline.tasks.base import share_of


def comparison(low: float, high: float) -> Comparison:
    limits = {"low": low - 0.001, "high": high + 0.001, "lower": low, "upper": high}
    return Comparison((low + high) / 2, **limits, p_value=0.5, detectable=0.01, n=100, test="by hand")


def latency(*rounds: float) -> Latency:
    return Latency.of(1, [np.array([each]) for each in rounds], 40.0)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-0.0045, 0.002, "ok"),  # the one-sided limit is above -0.5 points, the end of the interval is not
        (-0.006, 0.002, "not shown"),
        (-0.02, -0.004, "not shown"),
        (-0.02, -0.006, "worse"),
        (0.01, 0.02, "ok"),
    ],
)
def test_verdict_by_hand(low, high, said):
    assert verdict(comparison(low, high), margin=0.5) == said
    assert verdict(comparison(-high, -low), margin=0.5, higher_is_better=False) == said


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 50))
def test_a_larger_margin_is_never_harder(low, width, margin):
    order = ["worse", "not shown", "ok"]
    found = comparison(low, low + width)
    assert order.index(verdict(found, margin)) <= order.index(verdict(found, margin + 1))


def test_equal_answers_are_ok_and_many_losses_are_worse():
    right = np.arange(899) > 10
    assert verdict(mcnemar(right, right), margin=0.5) == "ok"
    assert verdict(mcnemar(right, right & (np.arange(899) > 60)), margin=0.5) == "worse"


def test_the_images_that_would_be_needed_by_hand():
    # The limit lies 1 point below a difference of 0; to bring it to half a point takes four times the images.
    assert images_needed(comparison(-0.01, 0.01), margin=0.5) == 400
    assert images_needed(comparison(-0.003, 0.003), margin=0.5) < 100
    assert np.isnan(images_needed(comparison(-0.03, -0.01), margin=0.5)), "no number of images makes a loss a gain"


@pytest.mark.parametrize(
    ("n", "lost", "won", "least"),
    [
        (100, 0, 0, 464),  # 1.645 * sqrt(2) / (464 + 2) is less than 0.005, and / (463 + 2) is not
        (300, 1, 0, 3745),
        (500, 5, 4, 5513),
        (1000, 30, 32, 3453),
    ],
)
def test_the_images_that_a_proportion_needs_pass_its_own_test(n, lost, won, least):
    def comparison_of(images: int) -> Comparison:
        """Compare real answers, of which the same shares are lost and won."""
        before, after = (np.ones(images, bool) for _ in range(2))
        after[: round(lost * images / n)] = False
        before[images - round(won * images / n) :] = False
        return compare(share_of("correct"), {"correct": before}, {"correct": after})

    needed = images_needed(comparison_of(n), margin=0.5)
    assert needed == least
    step = n if lost or won else 1  # at its multiples the shares are the same
    enough = step * math.ceil(needed / step)
    assert verdict(comparison_of(enough), margin=0.5) == "ok"
    assert verdict(comparison_of(enough - step), margin=0.5) == "not shown"


def test_the_images_that_a_falling_error_needs_are_those_of_a_rising_share():
    all_right, one_wrong = np.arange(300) >= 0, np.arange(300) > 0
    loss, gain = mcnemar(all_right, one_wrong), mcnemar(one_wrong, all_right)
    assert images_needed(loss, margin=0.5) == images_needed(gain, margin=0.5, higher_is_better=False) == 3745
    assert images_needed(gain, margin=0.5) == images_needed(loss, margin=0.5, higher_is_better=False) == 350
    assert np.isnan(images_needed(loss, margin=0.3)), "one of 300 is more than 0.3 points"


def test_fastest_is_named_with_its_ratio():
    timed = {"float32": latency(2.0, 2.2, 2.0), "int8": latency(1.0, 1.1, 1.0), "int16x8": latency(60, 60, 60)}
    said = fastest(timed)
    assert "int8, 1 ms" in said
    assert "2.00 times as fast as float32 (2.00 to 2.00 over 3 rounds)" in said


def test_fastest_within_the_noise_is_said_to_be():
    timed = {"float32": latency(2.0, 1.9, 2.1, 2.0), "int8": latency(1.9, 2.0, 2.1, 1.8)}
    assert "int8, but within the noise" in fastest(timed)


def test_float32_may_be_the_fastest():
    assert fastest({"float32": latency(1.0), "int8": latency(2.0)}).startswith("fastest here: float32, 1 ms")
    assert fastest({"int8": latency(2.0)}) == "fastest here: int8, 2 ms per image on one thread"


def test_summary_has_short_columns():
    row = {"variant": "int8", "bytes": 2048, "score": 0.98765, "low": 0.97, "high": 0.99, "difference": -0.123}
    row |= {"p_value": 0.5, "verdict": "ok", "memory_mb": 50.6, "latency_ms_p50": 0.12345, "latency_ms_p50_2t": 0.1}
    [line] = summary(pd.DataFrame([row])).to_dict("records")
    assert line == {
        "variant": "int8",
        "KiB": 2,
        "score": "98.77",
        "95 %": "97.0–99.0",
        "points": "-0.12",
        "p": "0.5",
        "verdict": "ok",
        "ms": "0.123",
        "ms 2t": "0.1",
        "MiB": 51,
    }
