"""The convolution oracles by hand, against Keras (values and gradients), finite differences, and each other."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.ops.reference.convolution import (
    convolve,
    convolve_backward,
    convolve_im2col,
    convolve_transposed,
    convolve_winograd,
    im2col,
)
from pipeline.ops.reference.windows import Windows

quickly = settings(max_examples=30, deadline=None, derandomize=True)
small = st.integers(1, 3)


@st.composite
def cases(draw, groups=small) -> dict:
    """Draw images, a kernel, a bias and a geometry that fit each other; Keras cannot stride and dilate at once."""
    groups, kernel, dilation = draw(groups), (draw(small), draw(small)), (draw(small), draw(small))
    span = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    stride = draw(small) if dilation == (1, 1) else 1
    size = [draw(st.integers(least, least + 5)) for least in span]
    channels, filters = groups * draw(small), groups * draw(small)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return {
        "images": rng.normal(size=(draw(st.integers(1, 2)), *size, channels)),
        "kernel": rng.normal(size=(*kernel, channels // groups, filters)),
        "bias": rng.normal(size=filters),
        "groups": groups,
        "geometry": {"stride": stride, "dilation": dilation, "padding": draw(st.sampled_from(["valid", "same"]))},
    }


def by_keras(images, kernel, bias, *, groups, geometry):
    """Return what keras.layers.Conv2D answers, and the gradients of a weighted sum of it."""
    layer = keras.layers.Conv2D(
        kernel.shape[-1],
        kernel.shape[:2],
        strides=geometry["stride"],
        padding=geometry["padding"],
        dilation_rate=geometry["dilation"],
        groups=groups,
        dtype="float64",
    )
    layer.build(images.shape)
    layer.set_weights([kernel, bias])
    x = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(x)
        result = layer(x)
        upstream = np.random.default_rng(0).normal(size=result.shape)
        loss = tf.reduce_sum(result * upstream)
    gradients = tape.gradient(loss, [x, *layer.trainable_variables])
    return result.numpy(), upstream, [one.numpy() for one in gradients]


def test_three_by_three_by_hand():
    image = np.arange(9.0).reshape(1, 3, 3, 1)
    kernel = np.array([[1.0, 2], [3, 4]]).reshape(2, 2, 1, 1)
    expected = np.array([[27, 37], [57, 67]]).reshape(1, 2, 2, 1)  # 0 + 2·1 + 3·3 + 4·4 = 27, ...
    np.testing.assert_array_equal(convolve(image, kernel), expected)
    np.testing.assert_array_equal(im2col(image, (2, 2))[0], [0, 1, 3, 4])
    # `same` at stride 2 needs one pixel more, and puts it after the image.
    corners = convolve(image, kernel, stride=2, padding="same")
    np.testing.assert_array_equal(corners[0, :, :, 0], [[27, 2 + 15], [6 + 14, 8]])


def test_the_gradient_by_hand():
    image, kernel = np.array([3.0, 5, 7]).reshape(1, 1, 3, 1), np.array([2.0, -1]).reshape(1, 2, 1, 1)
    found = convolve_backward(image, kernel, np.array([10.0, 1]).reshape(1, 1, 2, 1))
    assert found.images.ravel() == pytest.approx([20, -10 + 2, -1])
    assert found.kernel.ravel() == pytest.approx([30 + 5, 50 + 7])
    assert found.bias == pytest.approx([11])


def check_against_keras(case):
    expected, upstream, gradients = by_keras(**case)
    options = {"groups": case["groups"], **case["geometry"]}
    found = convolve(case["images"], case["kernel"], case["bias"], **options)
    np.testing.assert_allclose(found, expected, atol=1e-10)
    backward = convolve_backward(case["images"], case["kernel"], upstream, **options)
    for one, other in zip(backward, gradients, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10)


@quickly
@given(cases(groups=st.just(1)))
def test_values_and_gradients_are_those_of_keras(case):
    check_against_keras(case)


@settings(quickly, max_examples=4)  # on a CPU Keras compiles every grouped convolution with XLA
@given(cases(groups=st.integers(2, 3)))
def test_groups_are_those_of_keras(case):
    check_against_keras(case)


@quickly
@given(cases(), st.integers(1, 3))
def test_gradients_are_finite_differences(case, stride):
    """Stride and dilation at once, too, which TensorFlow refuses. The result is linear in each argument: one step."""
    arguments = {name: case[name] for name in ("images", "kernel", "bias")}
    options = {"groups": case["groups"], **case["geometry"], "stride": stride}
    before = convolve(**arguments, **options)
    rng = np.random.default_rng(1)
    upstream = rng.normal(size=before.shape)
    gradients = convolve_backward(case["images"], case["kernel"], upstream, **options)
    for name, gradient in zip(arguments, gradients, strict=True):
        step = rng.normal(size=gradient.shape)
        after = convolve(**(arguments | {name: arguments[name] + step}), **options)
        assert np.sum((after - before) * upstream) == pytest.approx(np.sum(gradient * step), abs=1e-8)


@quickly
@given(cases())
def test_im2col_is_the_same_convolution(case):
    kernel = np.repeat(case["kernel"], case["groups"], axis=2)
    expected = convolve(case["images"], kernel, **case["geometry"])
    np.testing.assert_allclose(convolve_im2col(case["images"], kernel, **case["geometry"]), expected, atol=1e-10)


@quickly
@given(st.tuples(st.integers(3, 9), st.integers(3, 9)), small, small, st.sampled_from(["valid", "same"]))
def test_winograd_is_the_same_convolution(size, channels, filters, padding):
    rng = np.random.default_rng(0)
    images, kernel = rng.normal(size=(2, *size, channels)), rng.normal(size=(3, 3, channels, filters))
    expected = convolve(images, kernel, padding=padding)
    np.testing.assert_allclose(convolve_winograd(images, kernel, padding=padding), expected, atol=1e-10)


@quickly
@given(st.tuples(small, small), st.tuples(small, small), small, st.sampled_from(["valid", "same"]))
def test_the_transposed_convolution_is_that_of_keras(size, kernel_size, stride, padding):
    rng = np.random.default_rng(0)
    images, kernel = rng.normal(size=(2, *size, 3)), rng.normal(size=(*kernel_size, 2, 3))
    layer = keras.layers.Conv2DTranspose(
        2, kernel_size, strides=stride, padding=padding, use_bias=False, dtype="float64"
    )
    expected = layer(images).shape
    layer.set_weights([kernel])
    found = convolve_transposed(images, kernel, stride=stride, padding=padding)
    assert found.shape == expected
    np.testing.assert_allclose(found, layer(images), atol=1e-10)


def test_depthwise_and_separable_are_grouped():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 6, 5, 4))
    layer = keras.layers.SeparableConv2D(3, 3, depth_multiplier=2, padding="same", use_bias=False, dtype="float64")
    layer.build(images.shape)
    depthwise, pointwise = (weight.numpy() for weight in layer.weights)
    spread = convolve(images, depthwise.reshape(3, 3, 1, 8), groups=4, padding="same")
    np.testing.assert_allclose(convolve(spread, pointwise), layer(images), atol=1e-10)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="no window of 5x5 pixels fits an image of 4x9"):
        Windows.over((4, 9), (3, 3), dilation=2)
    with pytest.raises(ValueError, match="does not fit 4 channels in 2 groups"):
        convolve(np.zeros((1, 3, 3, 4)), np.zeros((1, 1, 4, 2)), groups=2)
