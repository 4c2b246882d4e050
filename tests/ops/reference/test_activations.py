"""Activations against Keras, their derivatives against the tape and finite differences."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipeline.ops.reference.activations import ACTIVATIONS, elu, leaky_relu

SPREAD = np.linspace(-8, 8, 161) + 0.013  # beside every kink
KINKS = np.array([-3.0, 0.0, 3.0, 6.0])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_value_and_derivative_are_those_of_keras(name):
    ours, theirs = ACTIVATIONS[name], getattr(keras.activations, name)
    x = tf.constant(np.concatenate([SPREAD, KINKS, [-500.0, 500.0]]))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = theirs(x)
    np.testing.assert_allclose(ours.value(x.numpy()), y, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(ours.derivative(x.numpy()), tape.gradient(y, x), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivative_is_a_finite_difference(name):
    value, derivative = ACTIVATIONS[name]
    step = 1e-5
    np.testing.assert_allclose(
        derivative(SPREAD), (value(SPREAD + step) - value(SPREAD - step)) / (2 * step), atol=1e-7
    )


def test_slopes_are_those_of_the_layers():
    x = SPREAD.astype("float32")[None]
    leaky = keras.layers.LeakyReLU(negative_slope=0.1)
    learned = keras.layers.PReLU(alpha_initializer=keras.initializers.Constant(0.1))
    for layer in (leaky, learned):
        np.testing.assert_allclose(layer(x), leaky_relu(0.1).value(x), rtol=1e-6)
    np.testing.assert_allclose(keras.layers.ELU(alpha=0.5)(x), elu(0.5).value(x), rtol=1e-5, atol=1e-7)
