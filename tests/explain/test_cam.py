"""Grad-CAM on networks whose map is known by hand."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from seeding import set_seed

from pipeline.errors import UserError
from pipeline.explain.cam import grad_cam

SHAPE = (6, 8, 3)
layers = keras.layers


def trunk(image):
    return layers.Conv2D(4, 3, padding="same", use_bias=False, name="features")(image)


def linear(nested: bool = False) -> keras.Model:
    """Return convolution, mean, dense without bias: the class activation map is weights × features."""
    set_seed(0)
    image = keras.Input(SHAPE)
    if nested:
        inner = keras.Input(SHAPE)
        x = keras.Model(inner, trunk(inner), name="backbone")(image)
    else:
        x = trunk(image)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(image, layers.Dense(5, use_bias=False, name="head")(x))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).normal(size=SHAPE)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("label", [0, 3])
def test_of_a_linear_network_it_is_weights_times_features(image, nested, label):
    model = linear(nested)
    holder = model.get_layer("backbone") if nested else model
    [kernel] = holder.get_layer("features").get_weights()
    [head] = model.get_layer("head").get_weights()
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))  # (H, W, C, 3, 3)
    features = np.einsum("hwcij,ijcf->hwf", windows, kernel)
    expected = np.maximum(features @ head[:, label], 0)
    assert expected.any()
    np.testing.assert_allclose(grad_cam(model, image, label), expected / expected.max(), atol=1e-5)
    assert "call" not in vars(holder.get_layer("features"))  # the model is as it was


def test_a_coarse_map_is_enlarged_and_a_layer_can_be_named(image):
    set_seed(1)
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="fine")(inputs)
    x = layers.MaxPooling2D(2, name="coarse")(x)
    x = layers.GlobalAveragePooling2D(keepdims=True, name="one_place")(x)
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(layers.Conv2D(8, 1, name="top")(x))))
    heat = grad_cam(model, image, 0)
    assert heat.shape == SHAPE[:2]
    assert 0 <= heat.min() <= heat.max() == 1
    np.testing.assert_array_equal(heat, grad_cam(model, image, 0, layer="coarse"))
    assert (heat != grad_cam(model, image, 0, layer="fine")).any()
    with pytest.raises(UserError, match="no layer 'corse' with a feature map; did you mean 'coarse'"):
        grad_cam(model, image, 0, layer="corse")
    with pytest.raises(UserError, match="no layer 'top'"):  # one place only
        grad_cam(model, image, 0, layer="top")


def test_where_nothing_speaks_for_the_class_it_is_zero(image):
    model = linear()
    features, head = model.get_layer("features"), model.get_layer("head")
    features.set_weights([np.abs(features.get_weights()[0])])
    image = np.abs(image)
    head.set_weights([-np.abs(head.get_weights()[0])])
    np.testing.assert_array_equal(grad_cam(model, image, 0), np.zeros(SHAPE[:2]))


def test_what_has_no_map_is_refused(image):
    inputs = keras.Input(SHAPE)
    flat = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(inputs)), name="flat")
    with pytest.raises(UserError, match="flat has no layer with a feature map"):
        grad_cam(flat, image, 0)
    with pytest.raises(UserError, match="one answer for each image"):
        grad_cam(keras.Model(inputs, trunk(inputs)), image, 0)


# Two maps, of which the second is made by a strided 1x1 convolution of few channels.
SHORTCUT = """
import keras, numpy as np, pipeline
from pipeline.explain.cam import grad_cam
image = keras.Input((33, 33, 3))
x = keras.layers.Conv2D(8, 3, padding="same", name="before")(image)
x = keras.layers.Conv2D(16, 1, strides=2, name="shortcut")(keras.layers.Cropping2D(((0, 1), (0, 1)))(x))
model = keras.Model(image, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x)))
maps = [grad_cam(model, np.ones((33, 33, 3)), 0, layer="before") for _ in range(100)]
assert np.array_equal(maps[0], maps[-1])
"""


@pytest.mark.slow
def test_a_strided_shortcut_of_few_channels_does_not_end_the_process():
    """Its kernel's gradient, which nobody asks for, writes past its memory in oneDNN: pipeline.training.pointwise."""
    subprocess.run([sys.executable, "-c", SHORTCUT], check=True, capture_output=True)
