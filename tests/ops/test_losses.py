"""Losses by hand and against keras.losses."""

import keras
import numpy as np
import pytest

from pipeline.ops.losses import cross_entropy, dice_loss, divergence, smooth

LOGITS = np.log(np.array([[0.7, 0.2, 0.1], [0.25, 0.5, 0.25]], np.float32))
ONE_HOT = np.eye(3, dtype=np.float32)[[0, 2]]


def numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def test_cross_entropy_by_hand():
    assert numpy(cross_entropy(ONE_HOT, LOGITS)) == pytest.approx([-np.log(0.7), -np.log(0.25)], rel=1e-6)


def test_cross_entropy_with_soft_targets_by_hand():
    targets = np.array([[0.5, 0.5, 0.0]], np.float32)
    assert numpy(cross_entropy(targets, LOGITS[:1])) == pytest.approx([-0.5 * np.log(0.7) - 0.5 * np.log(0.2)])


def test_a_row_of_zeros_has_no_loss():
    assert numpy(cross_entropy(np.zeros((1, 3), np.float32), LOGITS[:1])) == pytest.approx([0.0])


def test_class_weights_scale_each_class():
    weighted = numpy(cross_entropy(ONE_HOT, LOGITS, class_weights=(2.0, 1.0, 0.5)))
    assert weighted == pytest.approx([-2 * np.log(0.7), -0.5 * np.log(0.25)], rel=1e-6)


def test_focal_by_hand():
    found = numpy(cross_entropy(ONE_HOT, LOGITS, focal_gamma=2.0))
    assert found == pytest.approx([-(0.3**2) * np.log(0.7), -(0.75**2) * np.log(0.25)], rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_equals_keras(smoothing):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(8, 5)).astype(np.float32)
    targets = rng.dirichlet(np.ones(5), 8).astype(np.float32)
    theirs = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing, reduction=None)
    ours = cross_entropy(smooth(targets, smoothing), logits)
    assert numpy(ours) == pytest.approx(numpy(theirs(targets, logits)), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_focal_equals_keras(gamma):
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(8, 5)).astype(np.float32)
    targets = np.eye(5, dtype=np.float32)[rng.integers(0, 5, 8)]
    theirs = keras.losses.CategoricalFocalCrossentropy(alpha=1.0, gamma=gamma, from_logits=True, reduction=None)
    ours = cross_entropy(targets, logits, focal_gamma=gamma)
    assert numpy(ours) == pytest.approx(numpy(theirs(targets, logits)), rel=1e-4)


def test_focal_gradient_is_finite_where_the_answer_is_certain():
    import tensorflow as tf

    logits = tf.constant([[100.0, 0.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = cross_entropy(ONE_HOT[:1], logits, focal_gamma=0.5)
    assert np.all(np.isfinite(tape.gradient(loss, logits).numpy()))


def test_dice_by_hand():
    # Two pixels of class 0, answered with 0.8 and 0.6; class 1 is not in the truth and does not count.
    targets = np.array([[[[1, 0], [1, 0]]]], np.float32)
    answer = np.array([[[[0.8, 0.2], [0.6, 0.4]]]], np.float32)
    assert numpy(dice_loss(targets, answer)) == pytest.approx([1 - 2 * 1.4 / (2 + 1.4)], rel=1e-6)


def test_dice_of_a_perfect_answer_is_zero_and_of_nothing_too():
    targets = np.eye(3, dtype=np.float32)[[[[0, 1], [2, 2]]]]
    assert numpy(dice_loss(targets, targets)) == pytest.approx([0.0], abs=1e-6)
    assert numpy(dice_loss(targets * 0, targets * 0)) == pytest.approx([0.0])


def test_dice_equals_keras_where_every_class_is_present():
    rng = np.random.default_rng(2)
    labels = rng.permuted(np.tile(np.arange(4), (2, 4)), axis=1).reshape(2, 4, 4)
    targets = np.eye(4, dtype=np.float32)[labels]
    answer = rng.dirichlet(np.ones(4), (2, 4, 4)).astype(np.float32)
    # Keras averages over nothing when given axes: (B, K) come back.
    theirs = keras.losses.dice(targets, answer, axis=(1, 2))
    assert numpy(dice_loss(targets, answer)) == pytest.approx(numpy(theirs).mean(axis=-1), rel=1e-5)


def softmax(x, temperature=1.0):
    e = np.exp(np.asarray(x, np.float64) / temperature)
    return e / e.sum(axis=-1, keepdims=True)


def test_the_divergence_by_hand():
    teacher, student = np.log([[0.5, 0.25, 0.25]]), np.log([[0.25, 0.5, 0.25]])
    expected = 0.5 * np.log(2) - 0.25 * np.log(2)
    np.testing.assert_allclose(divergence(teacher, student, 1.0), [expected], rtol=1e-5)
    p, q = softmax([[4.0, 0, 2]], 2.0), softmax([[1.0, 3, 0]], 2.0)
    expected = 4 * (p * np.log(p / q)).sum()
    found = divergence(np.array([[4.0, 0, 2]]), np.array([[1.0, 3, 0]]), 2.0)
    np.testing.assert_allclose(found, [expected], rtol=1e-5)
    np.testing.assert_allclose(divergence(teacher, teacher + 7, 3.0), [0.0], atol=1e-5)


def test_the_divergence_is_averaged_over_pixels():
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=(2, 2, 4, 5, 3))
    found = divergence(teacher, student, 1.0)
    each = [
        divergence(t.reshape(-1, 3), s.reshape(-1, 3), 1.0).numpy().mean()
        for t, s in zip(teacher, student, strict=True)
    ]
    np.testing.assert_allclose(found, each, rtol=1e-5)
