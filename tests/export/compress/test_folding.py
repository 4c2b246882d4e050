"""Folding a batch normalisation changes no answer, and is left undone where it would."""

import keras
import numpy as np
import pytest
from representatives import every_family
from seeding import set_seed
from zoo import calibrate, difference, images, precise, registered, settle

from pipeline.export.compress import fold_batch_norm

layers = keras.layers


def changed(model: keras.Model, folded: keras.Model) -> float:
    """Return the difference between the answers, without the rounding that depth adds up in float32."""
    return difference(precise(model)(images(model)), precise(folded)(images(model)))


def norms(model: keras.Model) -> int:
    return sum(isinstance(layer, layers.BatchNormalization) for layer in model.layers)


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (lambda **k: layers.Conv2D(6, 3, strides=2, **k), (9, 9, 4)),
        (lambda **k: layers.Conv2D(6, 3, groups=2, **k), (9, 9, 4)),
        (lambda **k: layers.Conv1D(6, 3, dilation_rate=2, **k), (9, 4)),
        (lambda **k: layers.Conv3D(6, 2, **k), (4, 4, 4, 3)),
        (lambda **k: layers.DepthwiseConv2D(3, depth_multiplier=2, **k), (9, 9, 4)),
        (lambda **k: layers.DepthwiseConv1D(3, depth_multiplier=3, **k), (9, 4)),
        (lambda **k: layers.SeparableConv2D(6, 3, depth_multiplier=2, **k), (9, 9, 4)),
        (lambda **k: layers.SeparableConv1D(6, 3, **k), (9, 4)),
        (lambda **k: layers.Conv2DTranspose(6, 3, strides=2, **k), (5, 5, 4)),
        (lambda **k: layers.Conv1DTranspose(6, 3, **k), (5, 4)),
        (lambda **k: layers.Conv3DTranspose(6, 2, **k), (3, 3, 3, 2)),
        (lambda **k: layers.Dense(6, **k), (7,)),
        (lambda **k: layers.Dense(6, **k), (5, 7)),
    ],
)
def test_each_kind_of_layer_folds(kind, shape, use_bias):
    set_seed(0)
    x = keras.Input(shape)
    y = layers.BatchNormalization(name="norm")(kind(use_bias=use_bias, name="layer")(x))
    model = settle(keras.Model(x, layers.ReLU()(y)))
    folded = fold_batch_norm(model)
    assert (norms(model), norms(folded)) == (1, 0)
    assert folded.get_layer("layer").use_bias
    data = np.random.default_rng(0).normal(size=(3, *shape))
    assert difference(model(data), folded(data)) < 1e-5


def test_a_norm_without_scale_and_centre_folds():
    x = keras.Input((8, 8, 3))
    model = keras.Model(x, layers.BatchNormalization(scale=False, center=False)(layers.Conv2D(4, 3)(x)))
    settle(model)
    assert changed(model, fold_batch_norm(model)) < 1e-5


def shared_conv(x):
    conv = layers.Conv2D(3, 1)
    return layers.BatchNormalization()(conv(x)) + conv(x + 1.0)


def read_twice(x):
    y = layers.Conv2D(3, 1)(x)
    return layers.BatchNormalization()(y) + y


class Doubling(layers.Conv2D):
    """A subclass may do anything with what it inherits."""

    def call(self, x):
        return 2.0 * super().call(x) + 1.0


@pytest.mark.parametrize(
    "body",
    [
        shared_conv,
        read_twice,
        lambda x: layers.Conv2D(3, 1)(layers.BatchNormalization()(x)),
        lambda x: layers.BatchNormalization()(layers.Conv2D(3, 1, activation="relu")(x)),
        lambda x: layers.BatchNormalization()(Doubling(3, 1)(x)),
        lambda x: layers.BatchNormalization(axis=1)(layers.Conv2D(3, 1)(x)),
        lambda x: layers.BatchNormalization()(layers.Conv2D(3, 1)(x), training=True),
    ],
)
def test_what_would_change_the_answer_is_left(body):
    x = keras.Input((4, 4, 3))
    model = settle(keras.Model(x, body(x)))
    folded = fold_batch_norm(model)
    assert norms(folded) == 1
    np.testing.assert_array_equal(model(images(model)), folded(images(model)))


def test_an_output_before_the_norm_is_kept():
    x = keras.Input((4, 4, 3))
    y = layers.Conv2D(3, 1)(x)
    model = settle(keras.Model(x, [y, layers.BatchNormalization()(y)]))
    assert norms(fold_batch_norm(model)) == 1


# Norms of tensors that no convolution gives: sums and joined outputs, in networks that normalise before they convolve,
# and what attention mixed.
UNFOLDED = {
    **{"densenet_tiny": 5 + 4, "densenet_bc_tiny": 3 + 3},  # one of each dense layer and one after each block
    **{"resnet8_v2": 3, "resnet_v2_tiny": 5, "wrn_10_1": 3, "botnet_tiny": 1},
}


# Where the last maps are of one pixel: the float32 rounding of 52 folded kernels, blown up by the norms in between.
LARGEST_CHANGE = {"applications:MobileNetV2": 5e-5}


@every_family
def test_every_registered_model_folds_whole(name):
    model = registered(name)
    folded = fold_batch_norm(model)
    assert norms(folded) == UNFOLDED.get(name, 0)
    assert changed(model, folded) < LARGEST_CHANGE.get(name, 1e-5)


@pytest.mark.applications
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "left"), [("DenseNet121", 62), ("MobileNetV2", 0), ("Xception", 0), ("ResNet50V2", 17)]
)
def test_applications_fold_but_for_the_norms_before_their_convolution(name, left):
    build = getattr(keras.applications, name)
    model = build(weights=None, input_shape=(75, 75, 3), classes=7, classifier_activation=None)
    calibrate(settle(model))
    folded = fold_batch_norm(model)
    assert norms(folded) == left
    assert changed(model, folded) < 1e-5
