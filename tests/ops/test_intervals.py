"""Intervals against textbook values, SciPy and their own promises."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import binomtest
from scipy.stats import bootstrap as scipy_bootstrap

from pipeline.ops.intervals import bootstrap, percentile_interval, resampled_sums, student, wilson


def mean(sums):
    return sums[..., 0] / sums[..., 1]


def mean_terms(values):
    return np.stack([values, np.ones_like(values)], axis=1)


def test_wilson_textbook_value():
    # Newcombe (1998), Statistics in Medicine 17:857, table I: 81 of 263 gives 0.2553 to 0.3662.
    found = wilson(81, 263)
    assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_point_inside_zero_and_one_and_equals_scipy(case):
    successes, n = case
    found = wilson(successes, n)
    assert 0 <= found.low <= found.value <= found.high <= 1
    theirs = binomtest(successes, n).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_wilson_of_nothing_is_everything():
    found = wilson(0, 0)
    assert np.isnan(found.value)
    assert (found.low, found.high, found.n) == (0.0, 1.0, 0)


def test_resampled_sums_draw_as_many_examples_as_there_are_and_are_repeatable():
    terms = np.stack([np.ones(50), np.arange(50.0)], axis=1)
    sums = resampled_sums(terms, seed=3, resamples=20)
    assert sums.shape == (20, 2)
    assert np.all(sums[:, 0] == 50)
    assert np.array_equal(sums, resampled_sums(terms, seed=3, resamples=20))
    assert not np.array_equal(sums, resampled_sums(terms, seed=4, resamples=20))


def test_sparse_terms_give_the_same_sums():
    terms = np.random.default_rng(0).integers(0, 2, (40, 6)).astype(float)
    assert np.array_equal(resampled_sums(sparse.csr_array(terms)), resampled_sums(terms))


def test_bootstrap_of_a_mean_equals_scipy():
    values = np.random.default_rng(0).exponential(size=400)
    ours = bootstrap(mean_terms(values), mean)
    theirs = scipy_bootstrap((values,), np.mean, n_resamples=4000, rng=np.random.default_rng(1), method="BCa")
    interval = theirs.confidence_interval
    assert ours.value == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), abs=0.15 * (ours.high - ours.low))


def test_bootstrap_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(0)
    inside = 0
    for repeat in range(200):
        found = bootstrap(mean_terms(rng.normal(1.0, 1.0, 100)), mean, seed=repeat)
        inside += found.low <= 1.0 <= found.high
    assert 180 <= inside <= 199


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=50), st.floats(-10, 10))
def test_percentile_interval_holds_the_value(replicates, value):
    found = percentile_interval(value, np.array(replicates), 5)
    assert found.low <= value <= found.high


def test_percentile_interval_leaves_out_what_is_no_number():
    found = percentile_interval(1.0, np.array([np.nan, 0.9, 1.1, np.nan]), 7)
    assert 0.9 <= found.low <= found.high <= 1.1
    assert percentile_interval(1.0, np.array([np.nan]), 7).low == 1.0


def test_bootstrap_of_ten_thousand_examples_is_quick():
    terms = np.random.default_rng(0).random((10_000, 40))
    start = time.process_time()
    bootstrap(terms, lambda sums: sums.mean(axis=-1))
    assert time.process_time() - start < 6  # about 0.5 s alone on the machine; the bound only catches a wrong order


def test_students_interval_by_hand():
    # Three repetitions, t(2, 0.975) = 4.303: the standard error of 1, 2, 3 is 1 / sqrt(3).
    found = student([1.0, 2.0, 3.0])
    assert (found.value, found.high, found.n) == (2.0, pytest.approx(2 + 4.3027 / 3**0.5, abs=1e-4), 3)
    overlapping = student([1.0, 2.0, 3.0], overlap=0.5)
    assert overlapping.high - 2 == pytest.approx(4.3027 * (1 / 3 + 1 / 2) ** 0.5, abs=1e-4)
    assert student([0.5]).high == np.inf
