"""Receptive fields by hand, against the pixels that a gradient reaches, and against the figures that are published."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.models import layers as ours
from pipeline.models.attention import channel_attention, squeeze_excite
from pipeline.models.inspect import Field, receptive_fields
from pipeline.models.valueless import without_values
from pipeline.registry import MODELS

L = keras.layers


def field_behind(*parts, shape=(33, 33, 4)) -> Field | None:
    """Return the field behind a chain of layers."""
    x = inputs = keras.Input(shape)
    for part in parts:
        x = part(x)
    return receptive_fields(keras.Model(inputs, L.Activation("linear", name="last")(x)))["last"]


def square(size: float, stride: float, centre: float) -> Field:
    return Field((size, size), (stride, stride), (centre, centre))


def conv(kernel=3, **options):
    return L.Conv2D(4, kernel, **options)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([], square(1, 1, 0)),
        ([conv()], square(3, 1, 1)),
        ([conv(padding="same")], square(3, 1, 0)),
        ([conv(), conv(), conv()], square(7, 1, 3)),
        ([conv(strides=2), conv()], square(7, 2, 3)),
        ([conv(dilation_rate=2)], square(5, 1, 2)),
        ([conv(padding="same", dilation_rate=2), conv(padding="same", dilation_rate=4)], square(13, 1, 0)),
        ([conv((3, 5))], Field((3, 5), (1, 1), (1, 2))),
        # 33 pixels at stride 2 have a border of one on both sides, 16 pixels only one behind them.
        ([conv(padding="same", strides=2)], square(3, 2, 0)),
        ([conv(18), conv(padding="same", strides=2)], square(20, 2, 8.5 + 1)),
        ([L.MaxPooling2D(), conv()], square(6, 2, 0.5 + 2)),
        ([L.DepthwiseConv2D(3), L.SeparableConv2D(4, 3)], square(5, 1, 2)),
        ([ours.StochasticPooling2D(3, 2), L.AveragePooling2D(2)], square(5, 4, 2)),
        ([L.ZeroPadding2D(2), conv(5)], square(5, 1, 0)),
        ([L.Cropping2D(((1, 1), (2, 2)))], Field((1, 1), (1, 1), (1, 2))),
        # Each pixel of the output is made of one unit, the first two of the first.
        ([L.Conv2DTranspose(4, 2, strides=2)], square(1, 0.5, -0.25)),
        ([L.Conv2DTranspose(4, 3, padding="same")], square(3, 1, 0)),
        ([conv(strides=2), L.UpSampling2D()], square(3, 1, 1 - 0.5)),
        ([conv(strides=2), L.UpSampling2D(interpolation="bilinear")], square(5, 1, 1 - 0.5)),
        ([L.AdaptiveAveragePooling2D(11)], square(3, 3, 1)),
        ([conv(), L.GlobalAveragePooling2D()], square(33, 31, 16)),
        ([conv(), L.Flatten(), L.Dense(3), L.Reshape((1, 1, 3))], square(33, 31, 16)),
        ([L.GroupNormalization(2), conv()], square(35, 1, 1)),
        ([lambda x: squeeze_excite(x, 2, name="gate"), conv()], square(35, 1, 1)),
        ([lambda x: channel_attention(x, 2, name="gate"), conv()], square(35, 1, 1)),
        ([lambda x: ours.channel_shuffle(x, 2, name="mix"), conv()], square(3, 1, 1)),
        ([conv(), lambda x: x * 2.0, lambda x: keras.ops.mean(x, axis=-1, keepdims=True)], square(3, 1, 1)),
        ([conv(), lambda x: keras.ops.mean(x, axis=(1, 2))], square(33, 31, 16)),
        ([L.Permute((3, 1, 2))], None),
        ([L.Reshape((1089, 4)), L.LayerNormalization(), L.GlobalAveragePooling1D(), L.Dense(2)], None),
        ([L.LayerNormalization(axis=(1, 2))], None),
    ],
)
def test_a_chain_by_hand(parts, expected):
    assert field_behind(*parts) == expected


def test_branches_are_seen_together():
    inputs = keras.Input((32, 32, 2))
    wide, narrow = L.Conv2D(2, 5, padding="same")(inputs), L.Conv2D(2, 3, padding="same")(inputs)
    shifted = L.Cropping2D(((0, 2), (0, 2)))(L.ZeroPadding2D(((2, 0), (2, 0)))(narrow))
    model = keras.Model(inputs, [L.Add(name="both")([narrow, wide]), L.Concatenate(name="apart")([wide, shifted])])
    fields = receptive_fields(model)
    assert fields["both"] == square(5, 1, 0)
    # -2 to 2, and -3 to -1.
    assert fields["apart"] == square(6, 1, -0.5)


def test_a_model_inside_the_model_is_seen_through():
    inner_input = keras.Input((33, 33, 4))
    inner = keras.Model(inner_input, conv(strides=2)(conv()(inner_input)), name="inner")
    assert field_behind(inner, conv()) == square(5 + 2 * 2, 2, 2 + 2)


@st.composite
def chains(draw) -> list[keras.layers.Layer]:
    """Draw layers along the rows whose weights are positive, so that no gradient is zero by chance."""
    ones = {"kernel_initializer": "ones", "use_bias": False}
    made = []
    for _ in range(draw(st.integers(1, 4))):
        size, padding = draw(st.integers(1, 3)), draw(st.sampled_from(["valid", "same"]))
        stride = draw(st.integers(1, 2))
        kind = draw(st.sampled_from(["conv", "dilated", "pool"]))
        if kind == "pool":
            made.append(L.AveragePooling2D((size, 1), strides=(stride, 1), padding=padding))
        elif kind == "dilated":
            made.append(L.Conv2D(1, (size, 1), dilation_rate=(2, 1), padding=padding, **ones))
        else:
            made.append(L.Conv2D(1, (size, 1), strides=(stride, 1), padding=padding, **ones))
    return made


@settings(max_examples=30, deadline=None, derandomize=True)
@given(chains(), st.integers(50, 53))
def test_the_field_is_what_a_gradient_reaches(parts, height):
    field = field_behind(*parts, shape=(height, 1, 1))
    shape = (1, height, 1, 1)
    for part in parts:
        shape = part.compute_output_shape(shape)
    unit = shape[1] // 2

    # Compiled, so that the kernels' gradients are left out, which corrupt memory: see pipeline.training.pointwise.
    @tf.function(autograph=False)
    def gradient(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = x
            for part in parts:
                y = part(y)
            value = y[0, unit, 0, 0]
        return tape.gradient(value, x)

    reached = np.flatnonzero(gradient(tf.ones((1, height, 1, 1))).numpy())
    low, high = (edge + field.stride[0] * unit for edge in field.edges()[0])
    assume(low >= 0 and high < height)
    assert (reached.min(), reached.max()) == (low, high)


# Araujo et al. 2019, "Computing receptive fields", table of models, for MobileNet (stride 32); by hand for the others:
# resnet20 has 6 3x3 convolutions at stride 1 behind its stem, 1 + 5 at 1 and 2, 1 + 5 at 2 and 4.
# ResNet-18 and -50 with strides in the 3x3 convolutions: 7 + 2·2 behind the stem, then one 3x3 at the old stride and
# the others at the new, 4 of them a stage (18) or 3, 4, 6, 3 (50).
PUBLISHED = {
    "resnet20": {"c0": 15, "c1": 15 + 2 + 5 * 4, "c2": 37 + 4 + 5 * 8, "pool": 81 + 7 * 4},
    "mobilenet_v1": {"c5": 315},
    "resnet18": {"c2": 11 + 4 * 8, "c5": 435},
    "resnet50": {"c2": 11 + 3 * 8, "c5": 427},
}


@pytest.mark.parametrize(("name", "expected"), PUBLISHED.items())
def test_networks_have_the_known_fields(name, expected):
    with without_values():
        fields = receptive_fields(MODELS.build(name))
    assert {layer: max(fields[layer].size) for layer in expected} == expected
    assert None not in fields.values()
