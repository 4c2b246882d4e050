"""Channels that are tied go together, tie by tie; those whose ties are not known are kept and listed."""

import keras
import numpy as np
import pytest
from zoo import conv, equal, network, residual, width

from pipeline.export.compress import prune_channels

layers = keras.layers


def squeeze_excite(x):
    scale = layers.Reshape((1, 1, 16))(layers.GlobalAveragePooling2D()(x))
    return layers.Multiply()([x, conv(activation="sigmoid", name="excite")(conv(8, activation="relu")(scale))])


def squeeze_excite_by_ops(x):
    scale = layers.Dense(16, activation="hard_sigmoid")(keras.ops.mean(x, axis=(1, 2)))
    return x * keras.ops.reshape(scale, (-1, 1, 1, 16)) + 1.0


def dense_block(x):
    for index in range(2):
        y = conv(16, 3, name=f"grow{index}")(layers.ReLU()(layers.BatchNormalization()(x)))
        x = layers.Concatenate()([x, y])
    return x


def concatenation_that_is_added(x):
    """Channel i of the sum comes from the first branch for i < 16 and from the second after that."""
    return conv(32, name="wide")(x) + keras.ops.concatenate([conv(name="left")(x), conv(name="right")(x)], axis=-1)


def depthwise(x):
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(x)
    return layers.PReLU(shared_axes=[1, 2])(layers.BatchNormalization()(x))


def separable(x):
    return layers.SeparableConv2D(16, 3, depth_multiplier=2, name="separable")(layers.PReLU()(x))


def grouped(x):
    return layers.ReLU()(conv(32, 3, groups=4, name="grouped")(x))


def group_normalised(x):
    x = layers.GroupNormalization(groups=4, name="norm")(layers.ReLU()(layers.GroupNormalization(-1)(x)))
    return conv()(layers.ReLU()(x))


def layer_normalised(x):
    y = layers.Dense(64, activation="gelu", name="wide")(layers.LayerNormalization()(x))
    return layers.LayerNormalization(center=False)(x + layers.Dense(16, name="narrow")(y))


def otherwise_normalised(x):
    return layers.UnitNormalization()(conv()(layers.RMSNormalization()(x)))


def resized(x):
    x = layers.ZeroPadding2D()(layers.Cropping2D(1)(layers.MaxPooling2D(2, padding="same")(x)))
    x = layers.Conv2DTranspose(16, 3, strides=2, padding="same", name="up")(x)
    return layers.Resizing(5, 5)(layers.UpSampling2D(2)(layers.AveragePooling2D(2)(x)))


def flattened(x):
    return layers.Dense(16, activation="relu", name="hidden")(layers.Flatten()(layers.MaxPooling2D(2)(x)))


def unflattened(x):
    x = layers.Dense(4 * 4 * 16, name="seed")(layers.GlobalAveragePooling2D()(x))
    return conv(name="after")(layers.Reshape((4, 4, 16))(x))


def one_dimensional(x):
    x = layers.Conv1D(16, 3, groups=1, name="line")(layers.Reshape((64, 16))(x))
    x = layers.SeparableConv1D(16, 3)(layers.DepthwiseConv1D(3)(x))
    return layers.GlobalMaxPooling1D()(layers.Conv1DTranspose(16, 3)(layers.ZeroPadding1D(1)(x)))


def attention(x):
    tokens = layers.Reshape((64, 16))(layers.BatchNormalization()(x))
    y = layers.MultiHeadAttention(4, 4, name="attention")(tokens, tokens)
    z = layers.Dense(16)(layers.LayerNormalization()(tokens + y))
    y = layers.MultiHeadAttention(2, 4, value_dim=6, use_bias=False, output_shape=8, name="cross")(
        y, value=z, key=tokens
    )
    return layers.GlobalAveragePooling1D()(y)


def shared(x):
    twice = conv(name="shared")
    return twice(layers.ReLU()(twice(x)))


def nested(x):
    inner = keras.Input((8, 8, 16))
    block = keras.Model(inner, residual(inner), name="block")
    return block(keras.Sequential([conv(name="first"), layers.BatchNormalization()], name="small")(block(x)))


def over_channels(x):
    pools = [keras.ops.mean(x, axis=-1, keepdims=True), keras.ops.max(x, axis=-1, keepdims=True)]
    x = x * conv(1, 3, activation="sigmoid", name="gate")(layers.Concatenate()(pools))
    return x + keras.ops.reshape(keras.ops.mean(x, axis=(1, 2)), (-1, 1, 1, 16))


def everything_else(x):
    x = layers.SpatialDropout2D(0.1)(layers.Activation("silu")(layers.LeakyReLU()(x)))
    x = layers.Maximum()([x, layers.Average()([x, layers.Subtract()([conv()(x), 2.0 * x])])])
    x = x * layers.Softmax(axis=1)(x)  # alone, its average over the image would be a constant
    return keras.ops.relu6(keras.ops.squeeze(keras.ops.expand_dims(x, 1), 1)) / 2.0


BODIES = {
    **{"residual": (residual, {"stem": 8, "branch": 8}), "squeeze_excite": (squeeze_excite, {"stem": 8, "excite": 8})},
    **{"squeeze_excite_by_ops": (squeeze_excite_by_ops, {"stem": 8}), "dense_block": (dense_block, {"grow0": 8})},
    "concatenation_that_is_added": (concatenation_that_is_added, {"wide": 16, "left": 8, "right": 8}),
    **{"depthwise": (depthwise, {"stem": 8}), "separable": (separable, {"stem": 8, "separable": 8})},
    **{"grouped": (grouped, {"stem": 8, "grouped": 16}), "group_normalised": (group_normalised, {"norm": 8})},
    **{"layer_normalised": (layer_normalised, {"wide": 32, "narrow": 8, "stem": 8}), "resized": (resized, {"up": 8})},
    **{"otherwise_normalised": (otherwise_normalised, {"stem": 8}), "flattened": (flattened, {"hidden": 8, "stem": 8})},
    **{"unflattened": (unflattened, {"seed": 128, "after": 8}), "one_dimensional": (one_dimensional, {"line": 8})},
    **{"attention": (attention, {"stem": 8, "attention": 8, "cross": 4}), "shared": (shared, {"shared": 8})},
    "over_channels": (over_channels, {"stem": 8}),
    **{"nested": (nested, {"stem": 8, "branch": 8, "first": 8}), "everything_else": (everything_else, {"stem": 8})},
}


@pytest.mark.parametrize("name", BODIES)
def test_tied_channels_go_together(name):
    body, widths = BODIES[name]
    pruned = equal(network(body), multiple=4)
    assert {layer: width(pruned, layer) for layer in widths} == widths


def test_attention_loses_whole_heads():
    pruned = equal(network(attention), multiple=4)
    assert [pruned.get_layer(name).num_heads for name in ("attention", "cross")] == [2, 1]
    assert [pruned.get_layer(name).key_dim for name in ("attention", "cross")] == [4, 4]


def test_the_table_is_whole():
    assert len(BODIES) == 20


# What cannot be followed keeps its channels, and says why.


class Mixing(layers.Layer):
    """A layer that nobody knows: it mirrors the channels."""

    def call(self, x):
        return keras.ops.flip(x, axis=-1)


class Renamed(layers.Conv2D):
    """A subclass may do anything with what it inherits."""


def softmax_over_channels(x):
    return layers.Softmax()(x)


def softmax_in_the_kernel_layer(x):
    return layers.Conv2D(16, 1, activation="softmax", name="soft")(x)


def one_channel_for_all(x):
    return x * layers.Conv2D(1, 1, activation="sigmoid", name="gate")(x)


UNKNOWN = {
    "unknown layer": (lambda x: Mixing(name="mixing")(x), "stem", r"meets 'mixing' \(Mixing\), which has no rule"),
    "subclass": (lambda x: Renamed(8, 1, name="mine")(x), "stem", r"meets 'mine' \(Renamed\)"),
    "softmax": (softmax_over_channels, "stem", r"\(Softmax\), which has no rule"),
    "softmax inside": (softmax_in_the_kernel_layer, "soft", "has the activation softmax, over all channels"),
    "vector": (lambda x: x * np.arange(16.0, dtype="float32"), "stem", r"\(Multiply\), which has no rule"),
    "vector offset": (lambda x: layers.Rescaling(2.0, np.arange(16.0))(x), "stem", r"(Rescaling), which has no rule"),
    "slice": (lambda x: x[..., 4:12], "stem", r"\(GetItem\), which has no rule"),
    "transposed": (lambda x: layers.Permute((3, 1, 2))(x), "stem", r"\(Permute\), which has no rule"),
    "norm over height": (lambda x: layers.LayerNormalization(axis=(1, 3))(x), "stem", r"\(LayerNormalization\)"),
    "spread": (one_channel_for_all, "gate", "is spread over all channels by 'multiply"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_channels_with_unknown_ties_are_kept_and_listed(name, caplog):
    body, layer, reason = UNKNOWN[name]
    model = network(lambda x: layers.Conv2D(24, 1, name="free")(body(x)))
    pruned = equal(model)
    assert width(pruned, "free") == 16
    assert width(pruned, layer) == width(model, layer)
    with caplog.at_level("INFO"):
        prune_channels(model, 0.5)
    (line,) = [line for line in caplog.messages if f"kept all of {layer}, which" in line]
    assert np.char.find(line, reason.replace("\\", "")) > 0
