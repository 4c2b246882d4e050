import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from seeding import set_seed

from pipeline.training.pointwise import faster_ops, pointwise_products


def network(dtype: str = "float32") -> keras.Model:
    layers = keras.layers
    values = dtype.removeprefix("mixed_")
    inputs = keras.Input((9, 9, 3), dtype=values)
    x = layers.Conv2D(8, 3, padding="same", dtype=dtype)(inputs)
    y = layers.Conv2D(16, 1, activation="relu", dtype=dtype)(x)
    y = layers.Conv2D(6, 1, strides=2, padding="same", use_bias=False, dtype=dtype)(y)
    x = layers.Conv2D(6, 1, strides=2, groups=2, dtype=dtype)(x)
    inner = keras.Sequential([keras.Input((5, 5, 6), dtype=values), layers.Conv2D(4, 1, strides=3, dtype=dtype)])
    return keras.Model(inputs, layers.Flatten(dtype=dtype)(inner(layers.Add(dtype=dtype)([x, y]))))


def gradients(net: keras.Model, dtype: str, *, products: bool) -> tuple[np.ndarray, list[np.ndarray]]:
    x = tf.constant(np.random.default_rng(0).normal(size=(8, 9, 9, 3)), dtype)

    @tf.function
    def compute():
        with tf.GradientTape() as tape:
            outputs = net(x, training=True)
            loss = tf.reduce_mean(outputs**2)
        return outputs, tape.gradient(loss, net.trainable_variables)

    with pointwise_products(net) if products else contextlib.nullcontext():
        outputs, found = compute()
    return outputs.numpy(), [each.numpy() for each in found]


def test_outputs_and_gradients_are_those_of_float64():
    set_seed(0)
    exact, ours = network("float64"), network()
    exact.set_weights(ours.get_weights())
    truth, true_gradients = gradients(exact, "float64", products=False)
    found, found_gradients = gradients(ours, "float32", products=True)
    np.testing.assert_allclose(found, truth, rtol=1e-4, atol=1e-5)
    for a, b in zip(found_gradients, true_gradients, strict=True):
        assert np.linalg.norm(a - b) < 1e-5 * np.linalg.norm(b)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(policy):
    set_seed(0)
    mixed = network(policy)
    _, found = gradients(mixed, "float32", products=True)
    _, truth = gradients(mixed, "float32", products=False)
    for a, b in zip(found, truth, strict=True):
        assert np.linalg.norm(a - b) < 0.02 * np.linalg.norm(b)
        assert a.dtype == np.float32


def test_only_plain_pointwise_convolutions_are_changed_and_put_back():
    net = network()
    with contextlib.suppress(RuntimeError), pointwise_products(net) as count:
        assert count == 3
        raise RuntimeError
    assert all("convolution_op" not in vars(layer) for layer in net.layers)
    with faster_ops(net):
        pass
    assert all(not {"call", "convolution_op"} & set(vars(layer)) for layer in net.layers)
