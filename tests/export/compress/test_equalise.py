"""Equalised networks compute the same with channels of one size."""

import keras
import numpy as np
import pytest
from seeding import set_seed
from zoo import difference, images, precise, registered

from pipeline.export.compress.equalise import correct_bias, equalise
from pipeline.export.compress.quantize_aware import quantize_aware

layers = keras.layers


def pair(between, *, first=None) -> keras.Model:
    """Return convolution, `between`, dense with hand-made kernels: ranges 8 and 2, read with 0.5 and 2."""
    image = keras.Input((4, 4, 1))
    x = (first or layers.Conv2D(2, 1, name="first"))(image)
    model = keras.Model(image, layers.Dense(1, name="second")(layers.GlobalAveragePooling2D()(between(x))))
    model.get_layer("first").set_weights([np.array([[[[8.0, -2.0]]]]), np.array([4.0, 1.0])])
    model.get_layer("second").set_weights([np.array([[0.5], [2.0]]), np.array([3.0])])
    return model


def test_each_channel_gets_the_geometric_mean_of_its_two_ranges():
    result = equalise(pair(layers.ReLU()))
    kernel, bias = result.get_layer("first").get_weights()
    np.testing.assert_allclose(kernel.ravel(), [2.0, -2.0])
    np.testing.assert_allclose(bias, [1.0, 1.0])
    np.testing.assert_allclose(result.get_layer("second").kernel, [[2.0], [2.0]])


@pytest.mark.parametrize(
    ("between", "relu"),
    [(layers.ReLU(6.0), "re_lu"), (layers.Activation("relu6"), "activation")],
)
def test_relu6_becomes_relu_and_is_told(between, relu, caplog):
    with caplog.at_level("INFO"):
        result = equalise(pair(between))
    assert "equalised 1 pairs of layers; 1 ReLU6 became ReLU" in caplog.text
    pixels = np.full((1, 4, 4, 1), 10.0, "float32")
    np.testing.assert_allclose(result(pixels), pair(layers.ReLU())(pixels), rtol=1e-5)


def test_relu6_inside_a_layer_becomes_relu():
    result = equalise(pair(layers.Identity(), first=layers.Conv2D(2, 1, activation="relu6", name="first")))
    assert result.get_layer("first").activation is keras.activations.relu


@pytest.mark.parametrize("between", [layers.Activation("tanh"), layers.Softmax(), layers.LayerNormalization()])
def test_what_is_not_homogeneous_is_left_alone(between):
    model = pair(between)
    np.testing.assert_allclose(equalise(model).get_layer("first").kernel, model.get_layer("first").kernel)


@pytest.mark.parametrize("name", ["resnet18", "unet", "simple_cnn"])
def test_networks_with_relu_compute_the_same(name):
    model = registered(name)
    assert difference(precise(model)(images(model)), precise(equalise(model))(images(model))) < 1e-5


def test_corrected_biases_bring_each_channel_back_to_its_mean():
    set_seed(0)
    image = keras.Input((6, 6, 3))
    x = layers.Conv2D(8, 3, activation="relu", name="conv")(image)
    model = keras.Model(image, layers.Dense(4, name="dense")(layers.GlobalAveragePooling2D()(x)))
    pixels = images(model, 16).round()
    corrected = correct_bias(model, pixels, bits=4)
    rounded, before = (np.asarray(quantize_aware(m, weights=4)(pixels)) for m in (corrected, model))
    expected = np.asarray(model(pixels)).mean(axis=0)
    np.testing.assert_allclose(rounded.mean(axis=0), expected, rtol=1e-4, atol=1e-3)
    assert np.abs(before.mean(axis=0) - expected).max() > 0.1


def test_a_relu6_that_clips_elsewhere_stays_and_so_does_its_pair():
    image = keras.Input((4, 4, 1))
    clip = layers.ReLU(6.0)
    first = layers.Conv2D(2, 1, name="first")(image)
    x = layers.Concatenate()([clip(first), clip(layers.MaxPooling2D(1)(image))])
    alone = layers.Dense(1, name="second")(layers.GlobalAveragePooling2D()(clip(layers.Conv2D(2, 1)(image))))
    model = keras.Model(image, [alone, layers.GlobalAveragePooling2D()(x)])
    pixels = np.full((1, 4, 4, 1), 100.0, "float32")
    for before, after in zip(model(pixels), equalise(model)(pixels), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-5)


def test_a_layer_that_is_named_like_half_of_a_separable_one_gets_its_bias():
    set_seed(0)
    image = keras.Input((6, 6, 3))
    x = layers.SeparableConv2D(4, 3, name="other")(layers.Conv2D(8, 3, name="mine_pointwise")(image))
    model = keras.Model(image, layers.GlobalAveragePooling2D()(x))
    corrected = correct_bias(model, images(model, 4), bits=4)
    assert all(np.abs(corrected.get_layer(name).bias).max() > 0 for name in ("mine_pointwise", "other"))
