"""A pruned model is smaller, and equals the original with the same channels masked: tie by tie, and whole models."""

import keras
import numpy as np
import pytest
from zoo import difference, every_model, images, precise, registered, settle

from pipeline.errors import UserError
from pipeline.export.compress import find_channels, mask_channels, prune_channels, prune_iteratively
from pipeline.registry import MODELS

layers = keras.layers


def network(body, shape=(8, 8, 3), head=True) -> keras.Model:
    """Put a body between a convolution of 16 channels and a classifier."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input(shape, name="image")
    x = body(layers.Conv2D(16, 3, padding="same", name="stem")(inputs))
    if head:
        x = layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(x) if len(x.shape) == 4 else x)
    return settle(keras.Model(inputs, x, name="network"))


def equal(model: keras.Model, ratio=0.5, **options) -> keras.Model:
    """Check that the pruned model is the masked one, and return it."""
    pruned, masked = prune_channels(model, ratio, **options), mask_channels(model, ratio, **options)
    assert pruned.count_params() < model.count_params()
    assert pruned.output_shape == model.output_shape
    x = images(model)
    assert difference(precise(masked)(x), precise(pruned)(x)) < 1e-5
    assert difference(model(x), pruned(x)) > 1e-3  # or masking would show nothing
    return pruned


def width(model: keras.Model, name: str) -> int:
    return model.get_layer(name).output.shape[-1]


def conv(filters=16, kernel=1, **options):
    return layers.Conv2D(filters, kernel, padding="same", **options)


def residual(x):
    return layers.Add()([x, conv(name="branch")(layers.ReLU()(x))])


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


APPLICATIONS = {
    **{"MobileNetV2": 96, "MobileNetV3Small": 96, "EfficientNetV2B0": 64, "ResNet50": 64, "DenseNet121": 64},
    **{
        "InceptionV3": 75,
        "Xception": 75,
        "NASNetMobile": 224,
        "ConvNeXtTiny": 64,
        "InceptionResNetV2": 75,
        "VGG16": 64,
    },
}


def test_the_tables_are_whole():
    assert len(MODELS.names()) == 15
    assert len(APPLICATIONS) == 11
    assert len(BODIES) == 19


@every_model
def test_every_registered_model_is_pruned(name):
    model = registered(name)
    pruned = equal(model, multiple=2)
    assert pruned.count_params() < 0.35 * model.count_params()
    assert [group.layers for group in find_channels(model).groups if group.reason] == [("logits",)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), APPLICATIONS.items())
def test_applications_are_pruned(name, size):
    keras.utils.set_random_seed(0)
    build = getattr(keras.applications, name)
    model = settle(build(weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None))
    pruned = equal(model)
    assert pruned.count_params() < 0.3 * model.count_params()
    (whole,) = [group for group in find_channels(model).groups if group.reason]
    assert whole.channels == 10
    keras.backend.clear_session()


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


def test_a_model_of_several_inputs_and_outputs_keeps_both():
    left, right = keras.Input((8, 8, 3), name="left"), keras.Input((8, 8, 16), name="right")
    x = layers.Conv2D(16, 1, name="tied_to_the_input")(left) + right
    y = layers.Conv2D(16, 1, name="free")(x)
    outputs = {"b": layers.Conv2D(16, 1, name="given_out")(y), "a": layers.GlobalAveragePooling2D()(x)}
    model = settle(keras.Model({"left": left, "right": right}, outputs))
    pruned, masked = prune_channels(model, 0.5), mask_channels(model, 0.5)
    assert [layer.output.shape[-1] for layer in pruned.layers if isinstance(layer, layers.Conv2D)] == [16, 8, 16]
    rng = np.random.default_rng(0)
    given = {"left": rng.normal(size=(2, 8, 8, 3)), "right": rng.normal(size=(2, 8, 8, 16))}
    for key in "ab":
        assert difference(masked(given)[key], pruned(given)[key]) < 1e-5


# Keras 3.15 saves weights through a numpy 1 interface.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_pruned_model_saves_plainly_and_keeps_policies(tmp_path):
    def body(x):
        return conv(dtype="mixed_bfloat16", kernel_regularizer="l2", name="mixed")(x)

    pruned = prune_channels(network(body), 0.5)
    assert pruned.get_layer("mixed").dtype_policy.name == "mixed_bfloat16"
    assert pruned.get_layer("mixed").kernel_regularizer is not None
    pruned.save(tmp_path / "pruned.keras")
    again = keras.saving.load_model(tmp_path / "pruned.keras", safe_mode=True)
    np.testing.assert_array_equal(pruned(images(pruned)), again(images(pruned)))


# How many go, and where.


def test_counts_are_multiples_and_never_none():
    model = network(lambda x: conv(20, name="b")(conv(6, name="a")(x)))
    widths = {
        (ratio, multiple): [width(prune_channels(model, ratio, multiple=multiple), name) for name in ("stem", "a", "b")]
        for ratio, multiple in [(0.5, 8), (0.3, 8), (0.99, 8), (0.5, 1), (0.99, 1), (0.3, 4), (0.0, 8)]
    }
    assert widths == {
        (0.5, 8): [8, 6, 8],
        (0.3, 8): [8, 6, 16],
        (0.99, 8): [8, 6, 8],
        (0.5, 1): [8, 3, 10],
        (0.99, 1): [1, 1, 1],
        (0.3, 4): [12, 4, 16],
        (0.0, 8): [16, 6, 20],
    }


def test_ratios_by_name_leave_other_layers_alone():
    model = network(lambda x: conv(16, name="b")(conv(16, name="a")(x)))
    pruned = equal(model, {"a": 0.75, "b": 0.5}, multiple=4)
    assert [width(pruned, name) for name in ("stem", "a", "b")] == [16, 4, 8]


def test_global_scope_takes_the_least_important_wherever_they_are():
    model = network(lambda x: conv(16, name="b")(conv(16, name="a")(x)))
    for name, important in (("stem", 8), ("a", 4), ("b", 12)):
        kernel, bias = model.get_layer(name).get_weights()
        # Scores are relative to the mean of the layer: the unimportant ones lie far below it in every layer.
        kernel = np.ones_like(kernel)
        kernel[..., important:] *= 1e-3
        model.get_layer(name).set_weights([kernel, bias])
    pruned = equal(model, 0.5, multiple=1, scope="global")
    assert [width(pruned, name) for name in ("stem", "a", "b")] == [8, 4, 12]


def test_iterative_pruning_reaches_the_ratio_in_equal_parts():
    seen = []

    def finetune(model):
        seen.append(width(model, "a"))
        return model

    pruned = prune_iteratively(network(lambda x: conv(64, name="a")(x)), 0.75, 2, finetune, multiple=1)
    assert seen == [32, 16]
    assert width(pruned, "a") == 16


def test_the_model_itself_is_left_as_it_is():
    model = network(residual)
    before = [np.copy(weight) for weight in model.get_weights()]
    prune_channels(model, 0.5)
    mask_channels(model, 0.5)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert len(model.get_layer("stem")._inbound_nodes) == 1


class Subclassed(keras.Model):
    def call(self, x):
        return x


@pytest.mark.parametrize(
    ("body", "ratio", "options", "message"),
    [
        (residual, 1.2, {}, "a pruning ratio of 1.2 must be at least 0 and less than 1"),
        (residual, -0.1, {}, "a pruning ratio of -0.1 must be at least 0"),
        (residual, 1.0, {}, "a pruning ratio of 1 would leave no channels; it must be at least 0 and less than 1"),
        (residual, {"stem": 1.0}, {}, "a pruning ratio of 1 for 'stem' would leave no channels"),
        (residual, {"stam": 0.5}, {}, "no layer 'stam' makes channels; did you mean 'stem'?"),
        (residual, {"logits": 0.5}, {}, "the layer 'logits' cannot be pruned: it is an output of the model"),
        (residual, {"stem": 0.5, "branch": 0.25}, {}, "'stem' and 'branch' share their channels; give both the same"),
        (residual, 0.5, {"importance": "l3"}, "importance 'l3' is unknown; give one of l1, l2, geometric_median, bat"),
        (residual, 0.5, {"scope": "all"}, "scope 'all' is unknown; give 'layer' or 'global'"),
        (residual, 0.5, {"multiple": 0}, "multiple is 0; give a number of channels of at least 1"),
        (lambda x: layers.Lambda(lambda y: y, name="secret")(x), 0.5, {}, "'secret' .Lambda. holds Python code"),
    ],
)
def test_bad_input_is_answered_in_one_sentence(body, ratio, options, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")) as caught:
        prune_channels(network(body), ratio, **options)
    assert "\n" not in str(caught.value)


def test_models_that_cannot_be_pruned_are_refused():
    with pytest.raises(UserError, match=r"'mine' \(Subclassed\) is subclassed"):
        prune_channels(Subclassed(name="mine"), 0.5)
    x = keras.Input((4,))
    with pytest.raises(UserError, match="'only' has no channels that can be pruned: 'out' is an output of the model"):
        prune_channels(keras.Model(x, layers.Dense(3, name="out")(x), name="only"), 0.5)
    with pytest.raises(UserError, match="steps is 0; give at least 1"):
        prune_iteratively(network(residual), 0.5, 0, lambda model: model)
