"""Intervals and paired tests against textbook values and their own promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from pipeline.evaluation.statistics import compare, interval, mcnemar, minimum_detectable_effect, wilson
from pipeline.tasks.base import mean_of, share_of

ACCURACY, LOSS = share_of("correct"), mean_of("loss", higher_is_better=False)


def pair(both, lost, won, neither):
    first = np.repeat([True, True, False, False], [both, lost, won, neither])
    second = np.repeat([True, False, True, False], [both, lost, won, neither])
    return first, second


def test_a_proportion_has_wilsons_interval():
    scores = {"correct": np.repeat([True, False], [81, 182])}
    assert interval(ACCURACY, scores) == wilson(81, 263)


def test_another_measure_has_the_bootstraps():
    values = np.random.default_rng(0).normal(3.0, 1.0, 400)
    found = interval(LOSS, {"loss": values})
    half = 1.96 * values.std() / np.sqrt(400)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.25 * half)
    assert found.n == 400


def test_mcnemar_textbook_value():
    # Airway hyper-responsiveness (Bentur et al. 2009) as in Fagerland, Lydersen and Laake (2013, 2014):
    # 1, 1, 7, 12 of 21; exact p = 0.0703; Wald with the Bonett-Price adjustment -0.508 to -0.013.
    found = mcnemar(*reversed(pair(both=1, lost=1, won=7, neither=12)))
    assert found.p_value == pytest.approx(0.0703, abs=5e-5)
    assert found.difference == pytest.approx(-6 / 21)
    assert (found.low, found.high) == pytest.approx((-0.508, -0.013), abs=1e-3)


@given(*[st.integers(0, 60)] * 4)
def test_mcnemar_is_symmetric(both, lost, won, neither):
    first, second = pair(both, lost, won, neither + 1)
    there, back = mcnemar(first, second), mcnemar(second, first)
    assert there.p_value == pytest.approx(back.p_value)
    assert there.difference == pytest.approx(-back.difference)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))
    assert -1 <= there.low <= there.high <= 1
    assert 0 <= there.p_value <= 1


def test_equal_answers_differ_by_nothing():
    found = mcnemar(*pair(90, 0, 0, 10))
    assert (found.difference, found.p_value) == (0.0, 1.0)
    assert found.low < 0 < found.high
    loss = np.random.default_rng(0).random(50)
    found = compare(LOSS, {"loss": loss}, {"loss": loss})
    assert (found.difference, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_results_that_are_not_paired_are_refused():
    with pytest.raises(ValueError, match="not paired"):
        mcnemar(np.ones(3, bool), np.ones(4, bool))
    with pytest.raises(ValueError, match="not paired"):
        compare(LOSS, {"loss": np.ones(3)}, {"loss": np.ones(4)})


def test_the_paired_bootstrap_finds_what_pairing_makes_plain():
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 5, 300)  # how hard an example is, the same for both
    first = {"loss": hard + rng.normal(0, 0.5, 300)}
    second = {"loss": hard + rng.normal(0.3, 0.5, 300)}
    found = compare(LOSS, first, second)
    assert found.test == "paired bootstrap"
    assert found.low < 0.3 < found.high
    assert found.high - found.low < 0.3
    assert found.p_value < 0.01
    assert interval(LOSS, first).high > interval(LOSS, second).low


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_the_paired_bootstrap_is_symmetric(seed):
    rng = np.random.default_rng(seed)
    first, second = {"loss": rng.random(30)}, {"loss": rng.random(30)}
    there, back = compare(LOSS, first, second), compare(LOSS, second, first)
    assert there.p_value == pytest.approx(back.p_value)
    assert there.difference == pytest.approx(-back.difference)


def test_minimum_detectable_effect_is_what_mcnemar_detects_four_times_in_five():
    n, discordance = 1000, 0.05
    effect = minimum_detectable_effect(n, discordance)
    # The exact test is a little more careful than the formula, hence the tolerance.
    up = (discordance + effect) / 2 / discordance
    power = 0.0
    for disagreements in range(n + 1):
        wins = np.arange(disagreements + 1)
        tail = 2 * binom.cdf(np.minimum(wins, disagreements - wins), disagreements, 0.5)
        found = binom.pmf(wins, disagreements, up)[tail < 0.05].sum()
        power += binom.pmf(disagreements, n, discordance) * found
    assert power == pytest.approx(0.8, abs=0.04)


def test_minimum_detectable_effect_shrinks_with_more_examples_and_fewer_disagreements():
    assert minimum_detectable_effect(10_000, 0.05) < minimum_detectable_effect(1_000, 0.05)
    assert minimum_detectable_effect(1_000, 0.02) < minimum_detectable_effect(1_000, 0.05)
    assert minimum_detectable_effect(1, 0.5) <= 1.0
