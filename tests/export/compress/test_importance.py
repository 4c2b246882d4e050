"""The channels that stay are those that a hand can point at."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from seeding import set_seed

from pipeline.errors import UserError
from pipeline.export.compress import find_channels, prune_channels
from pipeline.export.compress.importance import score, taylor

layers = keras.layers


def chain(norm: bool = False) -> keras.Model:
    """A dense layer of four units, perhaps a normalisation, and a dense layer that reads them."""
    set_seed(0)
    inputs = keras.Input((3,), name="x")
    x = layers.Dense(4, name="hidden")(inputs)
    if norm:
        x = layers.BatchNormalization(epsilon=0.0, name="norm")(x)
    return keras.Model(inputs, layers.Dense(2, name="out")(layers.ReLU()(x)))


def scores(model: keras.Model, importance) -> np.ndarray:
    """Return the scores of the four hidden units, relative to their mean."""
    channels = find_channels(model)
    return score(channels, importance)[channels.made(model.get_layer("hidden"), "outputs")]


KERNEL = np.array([[1.0, 0.0, 2.0, -1.0], [1.0, 0.0, 0.0, -1.0], [0.0, 3.0, 0.0, -1.0]])


@pytest.mark.parametrize(
    ("importance", "expected"),
    [
        ("l1", [2.0, 3.0, 2.0, 3.0]),
        ("l2", [2**0.5, 3.0, 2.0, 3**0.5]),
        (
            "geometric_median",  # columns a=(1,1,0), b=(0,0,3), c=(2,0,0), d=(-1,-1,-1)
            [11**0.5 + 2**0.5 + 3, 11**0.5 + 13**0.5 + 18**0.5, 2**0.5 + 13**0.5 + 11**0.5, 3 + 18**0.5 + 11**0.5],
        ),
    ],
)
def test_measures_of_the_weights(importance, expected):
    model = chain()
    model.get_layer("hidden").kernel.assign(KERNEL)
    np.testing.assert_allclose(scores(model, importance), np.array(expected) / np.mean(expected), rtol=1e-6)


def test_batch_norm_measures_the_scale_and_falls_back_to_l1():
    model = chain(norm=True)
    model.get_layer("norm").gamma.assign([0.5, -3.0, 1.0, 0.1])
    np.testing.assert_allclose(scores(model, "batch_norm"), np.array([0.5, 3.0, 1.0, 0.1]) / 1.15, rtol=1e-6)
    plain = chain()
    np.testing.assert_allclose(scores(plain, "batch_norm"), scores(plain, "l1"))


def squared(targets, outputs):
    return tf.reduce_mean((outputs - targets) ** 2, axis=-1)


BATCHES = [
    (np.random.default_rng(i).normal(size=(8, 3)).astype("float32"), np.ones((8, 2), "float32")) for i in range(3)
]


@pytest.mark.parametrize("norm", [False, True])
def test_taylor_is_gradient_times_activation(norm):
    model = chain(norm)
    source = model.get_layer("norm" if norm else "hidden")
    (source.beta if norm else source.bias).assign([0.3, -0.2, 0.1, 0.4])
    first = keras.Model(model.input, source.output)
    expected = np.zeros(4)
    for inputs, targets in BATCHES:
        activation = tf.convert_to_tensor(first(inputs))
        with tf.GradientTape() as tape:
            tape.watch(activation)
            value = tf.reduce_mean(squared(targets, model.get_layer("out")(tf.nn.relu(activation))))
        expected += np.sum(tape.gradient(value, activation) * activation, axis=0) ** 2
    np.testing.assert_allclose(scores(model, taylor(squared, BATCHES)), expected / expected.mean(), rtol=1e-4)


def test_taylor_removes_what_the_loss_does_not_see():
    model = chain()
    kernel = model.get_layer("out").kernel.numpy()
    kernel[[0, 2]] = 0
    model.get_layer("out").kernel.assign(kernel)
    pruned = prune_channels(model, 0.5, multiple=1, importance=taylor(squared, BATCHES))
    np.testing.assert_allclose(pruned(BATCHES[0][0]), model(BATCHES[0][0]), atol=1e-6)


def test_taylor_needs_batches():
    with pytest.raises(UserError, match="no batches; give it at least one"):
        prune_channels(chain(), 0.5, importance=taylor(squared, []))


def test_a_layer_of_large_weights_does_not_decide_for_the_others():
    set_seed(0)
    inputs = keras.Input((3,))
    left, right = layers.Dense(4, name="hidden")(inputs), layers.Dense(4, name="other")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(left + right))
    small, large = np.array([1.0, 2.0, 3.0, 4.0]), 1000 * np.array([4.0, 1.0, 1.0, 1.0])
    model.get_layer("hidden").kernel.assign(np.tile(small, (3, 1)))
    model.get_layer("other").kernel.assign(np.tile(large, (3, 1)))
    expected = (small / small.mean() + large / large.mean()) / 2
    np.testing.assert_allclose(scores(model, "l1"), expected / expected.mean(), rtol=1e-6)


def test_every_measure_prunes_a_model_of_all_kinds():
    inputs = keras.Input((16, 16))
    x = layers.MultiHeadAttention(4, 4)(inputs, inputs)
    x = layers.LayerNormalization()(layers.DepthwiseConv1D(3)(layers.Conv1DTranspose(16, 2)(x)))
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(layers.SeparableConv1D(16, 3)(x))))
    batch = np.ones((2, 16, 16), "float32"), np.zeros((2, 2), "float32")
    for importance in ("l1", "l2", "geometric_median", "batch_norm", taylor(squared, [batch])):
        assert prune_channels(model, 0.5, importance=importance).count_params() < 0.6 * model.count_params()


def masked_attention(x):
    return layers.MultiHeadAttention(2, 4)(x, x, attention_mask=keras.ops.ones_like(x[..., :6]))


@pytest.mark.parametrize(
    "body",
    [
        masked_attention,
        lambda x: layers.MultiHeadAttention(2, 4, use_gate=True)(x, x),
        lambda x: layers.Reshape((6, 12))(layers.MultiHeadAttention(2, 4, output_shape=(3, 4))(x, x)),
        lambda x: layers.Conv1D(5, 1, data_format="channels_first")(x),
        lambda x: layers.DepthwiseConv1D(1, data_format="channels_first")(x),
    ],
)
@pytest.mark.parametrize("importance", ["l1", taylor(squared, BATCHES[:1])])
def test_kernels_of_calls_that_are_not_understood_have_no_say(body, importance):
    inputs = keras.Input((3,))
    x = body(layers.Reshape((6, 8))(layers.Dense(48)(inputs)))
    model = keras.Model(inputs, layers.Dense(2)(layers.Dense(8, name="hidden")(layers.GlobalAveragePooling1D()(x))))
    assert prune_channels(model, 0.5, multiple=1, importance=importance).get_layer("hidden").units == 4
