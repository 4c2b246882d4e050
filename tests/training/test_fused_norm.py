import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from seeding import set_seed
from tiny import loop, model, pictures, runtime, weights

from pipeline.training.fused_norm import fused_batch_norm, fused_norm


def relative(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def test_the_op_agrees_with_float64_numpy():
    rng = np.random.default_rng(0)
    x, gradient = rng.normal(3, 2, (8, 5, 5, 4)), rng.normal(size=(8, 5, 5, 4))
    gamma, beta, epsilon = rng.normal(1, 0.2, 4), rng.normal(size=4), 1e-3
    with tf.GradientTape() as tape:
        inputs = [tf.constant(value, tf.float32) for value in (x, gamma, beta)]
        tape.watch(inputs)
        outputs, mean, variance = fused_batch_norm(*inputs, epsilon)
        total = tf.reduce_sum(outputs * tf.constant(gradient, tf.float32))
    found = tape.gradient(total, inputs)
    axes = (0, 1, 2)
    normal = (x - x.mean(axes)) / np.sqrt(x.var(axes) + epsilon)
    inner = gradient - gradient.mean(axes) - normal * (gradient * normal).mean(axes)
    truth = [gamma / np.sqrt(x.var(axes) + epsilon) * inner, (gradient * normal).sum(axes), gradient.sum(axes)]
    np.testing.assert_allclose(outputs, normal * gamma + beta, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(mean, x.mean(axes), rtol=1e-6)
    np.testing.assert_allclose(variance, x.var(axes), rtol=1e-5)  # the population's, as Keras keeps it
    for ours, exact in zip(found, truth, strict=True):
        assert relative(ours.numpy(), exact) < 2e-6


def residual_network(dtype: str, activation: str) -> keras.Model:
    layers = keras.layers
    inputs = keras.Input((16, 16, 3), dtype=dtype)

    def norm(x):
        return layers.BatchNormalization(dtype=dtype)(x)

    def conv(x, width, kernel=3, strides=1):
        return layers.Conv2D(width, kernel, strides, "same", use_bias=False, dtype=dtype)(x)

    x = layers.Activation(activation, dtype=dtype)(norm(conv(inputs, 8)))
    for width, strides in ((8, 1), (16, 2), (16, 1), (32, 2)):
        branch = layers.Activation(activation, dtype=dtype)(norm(conv(x, width, 3, strides)))
        branch = norm(conv(branch, width))
        x = norm(conv(x, width, 1, strides)) if strides > 1 else x
        x = layers.Activation(activation, dtype=dtype)(layers.Add(dtype=dtype)([x, branch]))
    x = layers.GlobalAveragePooling2D(dtype=dtype)(x)
    return keras.Model(inputs, layers.Dense(10, dtype=dtype)(x))


def gradients(net: keras.Model, dtype: str, *, fused: bool) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    x, y = tf.constant(rng.normal(size=(32, 16, 16, 3)), dtype), tf.constant(np.eye(10)[rng.integers(0, 10, 32)], dtype)

    @tf.function
    def compute():
        with tf.GradientTape() as tape:
            losses = tf.nn.softmax_cross_entropy_with_logits(y, net(x, training=True))
            loss = tf.reduce_mean(losses)
        return tape.gradient(loss, net.trainable_variables)

    with fused_norm(net) if fused else contextlib.nullcontext():
        return [gradient.numpy() for gradient in compute()]


@pytest.mark.parametrize(("activation", "tolerance"), [("silu", 1e-4), ("relu", 5e-2)])
def test_across_a_residual_network_fused_is_as_near_to_float64_as_keras(activation, tolerance):
    """Two float32 networks with ReLU differ by up to a percent: an input within rounding of 0 falls on either side.

    Both differ as much from float64, and with a smooth activation all agree to 1e-5.
    """
    set_seed(0)
    exact, stock, ours = (residual_network(dtype, activation) for dtype in ("float64", "float32", "float32"))
    for net in (exact, ours):
        net.set_weights(stock.get_weights())
    truth = gradients(exact, "float64", fused=False)
    errors = {}
    for name, net in (("keras", stock), ("fused", ours)):
        found = gradients(net, "float32", fused=name == "fused")
        errors[name] = np.array([relative(a, b) for a, b in zip(found, truth, strict=True)])
        assert errors[name].max() < tolerance
    assert np.median(errors["fused"]) < 4 * np.median(errors["keras"])
    for a, b in zip(ours.non_trainable_variables, exact.non_trainable_variables, strict=True):
        assert relative(a.numpy(), b.numpy()) < 1e-4


def test_the_training_curve_is_the_same(tmp_path):
    curves = []
    for fused in (False, True):
        rows = loop(tmp_path / str(fused), choices=runtime(cpu_ops=fused), epochs=4).run()
        curves.append([(row["loss"], row["val_loss"]) for row in rows])
    np.testing.assert_allclose(curves[1], curves[0], rtol=2e-4)


def test_the_layers_are_put_back(tmp_path):
    net = model()
    images, _ = pictures()
    before = net.predict(images, verbose=0)
    with contextlib.suppress(RuntimeError), fused_norm(net) as count:
        assert count == 1
        net(images, training=True)
        raise RuntimeError
    assert all("call" not in vars(layer) for layer in net.layers)
    net.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for a, b in zip(weights(loaded), weights(net), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(before, net.predict(images, verbose=0))  # the moving statistics did move


def test_inference_inside_is_kerass_own():
    net = model()
    images, _ = pictures()
    plain = net(images, training=False)
    with fused_norm(net):
        np.testing.assert_array_equal(net(images, training=False), plain)


def test_only_what_the_op_can_do_is_replaced():
    layers = keras.layers
    inputs = keras.Input((4, 4, 3))
    inner = keras.Sequential([keras.Input((4, 4, 3)), layers.BatchNormalization(scale=False, center=False)])
    x = layers.BatchNormalization(axis=1)(inner(inputs))
    x = layers.BatchNormalization(synchronized=True)(x)
    x = layers.BatchNormalization()(layers.GlobalAveragePooling2D()(x))
    net = keras.Model(inputs, x)
    with fused_norm(net) as count:
        assert count == 1
        batch = np.random.default_rng(0).normal(5, 3, (16, 4, 4, 3)).astype(np.float32)
        outputs = inner(batch, training=True)
    np.testing.assert_allclose(np.mean(outputs, axis=(0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(np.std(outputs, axis=(0, 1, 2)), 1, atol=1e-3)


def test_a_frozen_layer_keeps_its_statistics():
    net = model()
    [norm] = [layer for layer in net.layers if isinstance(layer, keras.layers.BatchNormalization)]
    norm.trainable = False
    images, _ = pictures()
    with fused_norm(net):
        net(images, training=True)
    np.testing.assert_array_equal(norm.moving_mean.numpy(), 0)


def test_bfloat16_inputs_keep_float32_statistics():
    set_seed(0)
    x = np.random.default_rng(0).normal(2, 3, (16, 4, 4, 8)).astype(np.float32)
    norms = [keras.layers.BatchNormalization(dtype="mixed_bfloat16") for _ in range(2)]
    nets = [keras.Sequential([keras.Input((4, 4, 8)), norm]) for norm in norms]
    stock = nets[0](x, training=True)
    with fused_norm(nets[1]):
        fused = nets[1](x, training=True)
    assert fused.dtype == stock.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(fused, "float32"), tf.cast(stock, "float32"), atol=0.03)
    for a, b in zip(norms[1].weights, norms[0].weights, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4)
