import numpy as np
import pytest
import tensorflow as tf

from pipeline.registry import SCHEDULES


def rates(name: str, steps: int = 100, learning_rate: float = 0.5, **options) -> np.ndarray:
    schedule = SCHEDULES.build(name, learning_rate, steps, **options)
    return np.array([float(schedule(tf.constant(step, tf.int64))) for step in range(steps)])


def test_there_are_seven_schedules():
    assert SCHEDULES.names() == [
        *("constant", "cosine", "cosine_restarts", "exponential", "one_cycle", "polynomial", "step"),
    ]


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_every_schedule_is_graph_safe_positive_and_at_most_the_peak(name):
    schedule = SCHEDULES.build(name, 0.5, 40)
    eager = np.array([float(schedule(tf.constant(step, tf.int64))) for step in range(40)])
    traced = tf.function(schedule)
    graph = np.array([float(traced(tf.constant(step, tf.int64))) for step in range(40)])
    np.testing.assert_allclose(graph, eager, atol=1e-6)
    assert np.all(eager > 0)
    assert np.all(eager <= 0.5 + 1e-6)


@pytest.mark.parametrize("name", [name for name in SCHEDULES.names() if name != "one_cycle"])
def test_warmup_rises_in_a_straight_line_to_the_peak(name):
    found = rates(name, steps=100, warmup=0.04)
    np.testing.assert_allclose(found[:5], 0.5 * np.array([1, 2, 3, 4, 5]) / 5, rtol=1e-6)


def test_constant():
    np.testing.assert_allclose(rates("constant"), 0.5)


def test_step_divides_at_its_shares():
    found = rates("step", at=[0.75, 0.5], factor=0.1)
    np.testing.assert_allclose(found[[0, 49, 50, 74, 75, 99]], [0.5, 0.5, 0.05, 0.05, 0.005, 0.005], rtol=1e-6)


def test_exponential_reaches_its_share_at_the_end():
    found = rates("exponential", final=0.01)
    np.testing.assert_allclose(found[[0, 50]], [0.5, 0.05], rtol=1e-5)
    np.testing.assert_allclose(found[1:] / found[:-1], 0.01**0.01, rtol=1e-5)


def test_polynomial_by_hand():
    found = rates("polynomial", learning_rate=1.0, power=2.0, final=0.2)
    np.testing.assert_allclose(found[[0, 50, 99]], [1.0, 0.2 + 0.8 * 0.25, 0.2 + 0.8 * 0.0001], rtol=1e-5)


def test_cosine_by_hand():
    found = rates("cosine", learning_rate=1.0, final=0.2)
    half = 0.5 * (1 + np.cos(np.pi * 0.25))
    np.testing.assert_allclose(found[[0, 25, 50]], [1.0, 0.2 + 0.8 * half, 0.6], rtol=1e-6)


def test_restarts_begin_again_at_the_peak_and_grow():
    found = rates("cosine_restarts", steps=70, learning_rate=1.0, cycles=3, growth=2.0)  # cycles of 10, 20, 40 steps
    np.testing.assert_allclose(found[[0, 5, 10, 20, 30, 50]], [1, 0.5, 1, 0.5, 1, 0.5], atol=1e-6)
    assert np.flatnonzero(np.diff(found) > 0).tolist() == [9, 29]


def test_one_cycle_rises_and_falls():
    found = rates("one_cycle", learning_rate=1.0, rise=0.4, start=0.1, final=0.0)
    np.testing.assert_allclose(found[[0, 20, 40, 70]], [0.1, 0.55, 1.0, 0.5], atol=1e-6)
    assert np.argmax(found) == 40


def test_the_curve_starts_after_the_warmup():
    found = rates("cosine", steps=100, warmup=0.2)
    np.testing.assert_allclose(found[20], 0.5)
    np.testing.assert_allclose(found[60], 0.25, rtol=1e-6)


def test_steps_past_what_float32_can_count_are_told_apart():
    schedule = SCHEDULES.build("constant", 1.0, 2**26, warmup=0.5)
    first, second = (float(schedule(tf.constant(step, tf.int64))) for step in (2**25 - 2, 2**25 + 2))
    assert first <= second == 1.0
