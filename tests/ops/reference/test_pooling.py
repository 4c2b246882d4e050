"""The pooling oracles by hand and against Keras: values, and gradients where a layer has them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.ops.reference import pooling

quickly = settings(max_examples=25, deadline=None, derandomize=True)
small = st.integers(1, 3)
LAYERS = {
    keras.layers.MaxPooling2D: (pooling.max_pool, pooling.max_pool_backward),
    keras.layers.AveragePooling2D: (pooling.average_pool, pooling.average_pool_backward),
}


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


def test_every_kind_by_hand():
    image = np.array([[1.0, 2, 5], [3, 4, 6]]).reshape(1, 2, 3, 1)
    assert pooling.max_pool(image, (2, 2), stride=1).ravel() == pytest.approx([4, 6])
    assert pooling.average_pool(image, (2, 2), padding="same").ravel() == pytest.approx([2.5, 5.5])
    assert pooling.adaptive_pool(image, (1, 2)).ravel() == pytest.approx([2.5, 4.25])  # the middle column is in both
    assert pooling.adaptive_pool(image, (1, 2), np.max).ravel() == pytest.approx([4, 6])
    weights = np.array([[1.0], [10]]).reshape(2, 1, 1)
    assert pooling.weighted_pool(image, weights).ravel() == pytest.approx([31, 42, 65])
    assert pooling.generalized_mean(image, 2).ravel() == pytest.approx([np.sqrt((1 + 4 + 25 + 9 + 16 + 36) / 6)])
    draws = np.array([0.05, 0.99]).reshape(1, 1, 2, 1)
    assert pooling.stochastic_pool(image, (2, 2), draws, stride=1).ravel() == pytest.approx([1, 6])
    found = pooling.stochastic_pool_mean(image, (2, 2), stride=1).ravel()
    assert found == pytest.approx([(1 + 4 + 9 + 16) / 10, (4 + 25 + 16 + 36) / 17])


@quickly
@given(
    st.sampled_from(list(LAYERS)),
    st.tuples(st.integers(3, 8), st.integers(3, 8)),
    st.tuples(small, small),
    small,
    st.sampled_from(["valid", "same"]),
)
def test_values_and_gradients_are_those_of_keras(kind, image, size, stride, padding):
    forward, backward = LAYERS[kind]
    images, layer = pixels(2, *image, 3), kind(size, strides=stride, padding=padding, dtype="float64")
    x = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(x)
        result = layer(x)
        upstream = pixels(*result.shape)
        loss = tf.reduce_sum(result * upstream)
    geometry = {"stride": stride, "padding": padding}
    np.testing.assert_allclose(forward(images, size, **geometry), result, atol=1e-12)
    found = backward(images, upstream, size, **geometry)
    np.testing.assert_allclose(found, tape.gradient(loss, x), atol=1e-12)


@quickly
@given(st.tuples(st.integers(1, 9), st.integers(1, 9)), st.tuples(st.integers(1, 5), st.integers(1, 5)))
def test_adaptive_pooling_is_that_of_keras(image, output):
    images = pixels(2, *image, 3)
    for layer, reduce in (
        (keras.layers.AdaptiveAveragePooling2D, np.mean),
        (keras.layers.AdaptiveMaxPooling2D, np.max),
    ):
        expected = pooling.adaptive_pool(images, output, reduce)
        np.testing.assert_allclose(layer(output, dtype="float64")(images), expected, atol=1e-12)


def test_the_kinds_agree_where_they_are_one():
    images = pixels(2, 6, 4, 3)
    np.testing.assert_allclose(pooling.adaptive_pool(images, (3, 2)), pooling.average_pool(images, (2, 2)))
    equal = np.full((2, 2, 3), 0.25)
    np.testing.assert_allclose(pooling.weighted_pool(images, equal), pooling.average_pool(images, (2, 2)))
    positive = np.abs(images) + 0.1
    np.testing.assert_allclose(pooling.generalized_mean(positive, 1), positive.mean(axis=(1, 2)))
    np.testing.assert_allclose(pooling.generalized_mean(positive, 200), positive.max(axis=(1, 2)), rtol=0.02)


def test_stochastic_pooling_has_the_stated_mean_and_zeros_stay_zero():
    images = np.tile(pixels(1, 4, 4, 2), (20_000, 1, 1, 1))
    images[:, :2, :2, 0] = -1.0
    draws = np.random.default_rng(0).uniform(size=(20_000, 2, 2, 2))
    found = pooling.stochastic_pool(images, (2, 2), draws)
    assert set(np.unique(found)) <= {0.0, *images[0].ravel()}
    np.testing.assert_allclose(found.mean(axis=0), pooling.stochastic_pool_mean(images[:1], (2, 2))[0], atol=0.02)
    assert not found[:, 0, 0, 0].any()
