"""A graph knows every call of a model, and gives back an equal model, or a changed one."""

import keras
import numpy as np
import pytest
from representatives import every_family
from seeding import set_seed
from zoo import difference, images, registered, settle

from pipeline.errors import UserError
from pipeline.export.compress.graph import Graph
from pipeline.export.compress.rebuild import copy, rebuild

layers = keras.layers


def branched() -> keras.Model:
    """Two dict inputs through one shared inner model, keras.ops calls, a keyword tensor, and nested outputs."""
    set_seed(0)
    x = keras.Input((8, 8, 3), name="inner_input")
    y = layers.Conv2D(4, 3, padding="same", kernel_regularizer="l2", name="conv")(x)
    inner = keras.Model(x, layers.BatchNormalization(name="norm")(y), name="inner")
    left, right = keras.Input((8, 8, 3), name="left"), keras.Input((8, 8, 3), name="right")
    a, b = inner(left), inner(right)
    joined = keras.ops.concatenate([a, b * 2.0], axis=-1) + 1.0
    pooled = keras.ops.reshape(layers.GlobalAveragePooling2D(name="pool")(joined), (-1, 2, 4))
    attended = layers.MultiHeadAttention(2, 2, name="attention")(pooled, value=pooled)
    # "conv" once more: the inner model's has the same name.
    second = layers.Conv2D(2, 1, dtype="mixed_bfloat16", name="conv")(joined)
    outputs = {"pixels": second, "both": [a[:, 1:3], layers.Dense(3, name="dense")(attended)]}
    return settle(keras.Model({"right": right, "left": left}, outputs, name="branched"))


def answers(model: keras.Model) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    given = {name: rng.uniform(-1, 1, (2, 8, 8, 3)).astype("float32") for name in ("left", "right")}
    return [keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")) for x in keras.tree.flatten(model(given))]


def test_nodes_are_calls_in_order_with_their_shapes():
    graph = Graph.of(branched())
    seen = set()
    for node in graph.nodes:
        assert set(node.inputs) <= seen, node.name
        seen |= set(node.outputs)
    named = {node.name: node for node in graph.nodes}
    assert named["left"].is_input
    assert named["conv"].outputs[0].shape == (None, 8, 8, 4)
    assert named["conv@1"].layer is named["conv"].layer
    assert len(graph.calls(named["conv"].layer)) == 2
    assert len(graph.consumers(named["norm"].outputs[0])) == 2  # the concatenation and the crop that is given out
    (reshape,) = [node for node in graph.nodes if type(node.layer).__name__ == "Reshape"]
    assert graph.producer(named["attention"].inputs[1]) is reshape
    assert len(named["attention"].inputs) == 2
    assert [graph.is_output(named[name].outputs[0]) for name in ("dense", "attention")] == [True, False]
    assert len(graph.layers) == len(graph.nodes) - 2


def test_a_rebuilt_model_is_equal_and_its_own():
    model = branched()
    again = rebuild(Graph.of(model))
    expected = answers(model)
    for left, right in zip(expected, answers(again), strict=True):
        np.testing.assert_array_equal(left, right)
    assert list(again.input) == list(model.input) == ["right", "left"]
    assert keras.tree.map_structure(lambda x: x.shape, again.output) == {
        "pixels": (None, 8, 8, 2),
        "both": [(None, 2, 8, 4), (None, 2, 3)],
    }
    assert not {id(layer) for layer in again.layers} & {id(layer) for layer in Graph.of(model).layers}
    assert again.get_layer("conv").kernel_regularizer.l2 == pytest.approx(0.01)
    assert {layer.name for layer in again.layers if isinstance(layer, layers.Conv2D)} == {"conv", "conv_1"}
    assert again.get_layer("conv_1").dtype_policy.name == "mixed_bfloat16"
    for weight in again.weights:
        weight.assign(keras.ops.zeros_like(weight))
    for left, right in zip(expected, answers(model), strict=True):
        np.testing.assert_array_equal(left, right)


# Keras 3.15 saves weights through a numpy 1 interface.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_rebuilt_model_saves_and_loads_plainly(tmp_path):
    again = rebuild(Graph.of(branched()))
    again.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    for left, right in zip(answers(again), answers(loaded), strict=True):
        np.testing.assert_array_equal(left, right)


@every_family
def test_every_registered_model_is_rebuilt_equal(name):
    model = registered(name)
    again = rebuild(Graph.of(model))
    assert again.get_config() == model.get_config()
    np.testing.assert_array_equal(model(images(model)), again(images(model)))


def test_sequential_frozen_and_random_layers_are_kept():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dropout(0.5, seed=3)], name="inner")
    inner.trainable = False
    model = keras.Sequential([keras.Input((4,)), inner, layers.Dense(2)], name="outer")
    again = rebuild(Graph.of(model))
    assert [len(m.trainable_weights) for m in (model, again)] == [2, 2]
    x = np.ones((8, 4), "float32")
    np.testing.assert_array_equal(model(x, training=True), again(x, training=True))


def test_an_adapted_normalization_is_kept():
    norm = layers.Normalization()
    norm.adapt(np.random.default_rng(0).normal(5, 3, (50, 4)))
    model = keras.Sequential([keras.Input((4,)), norm])
    x = np.ones((2, 4), "float32")
    np.testing.assert_array_equal(model(x), rebuild(Graph.of(model))(x))


def small() -> keras.Model:
    set_seed(0)
    x = inputs = keras.Input((6,), name="x")
    for index in range(2):
        x = layers.Dense(4, name=f"dense{index}")(x)
        x = layers.ReLU(name=f"relu{index}")(x)
    return settle(keras.Model(inputs, layers.Dense(2, name="out")(x), name="small"))


X = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")


def test_layers_are_replaced_and_take_over_what_fits():
    model, graph = small(), Graph.of(small())
    dense0, dense1, out = (graph.layers[i] for i in (1, 3, 5))
    narrow = {dense0: copy(dense0, units=3), dense1: layers.Dense(4, activation="tanh", name="dense1")}
    weights = {
        dense0: [array[..., :3] for array in dense0.get_weights()],
        dense1: [dense1.get_weights()[0][:3], dense1.get_weights()[1]],
    }
    small_model = rebuild(graph, replace=narrow.get, weights=weights)
    hidden = np.maximum(X @ weights[dense0][0] + weights[dense0][1], 0)
    hidden = np.maximum(np.tanh(hidden @ weights[dense1][0] + weights[dense1][1]), 0)
    kernel, bias = out.get_weights()
    np.testing.assert_allclose(small_model(X), hidden @ kernel + bias, atol=1e-5)
    assert small_model.count_params() == model.count_params() - 7 - 4


def test_a_layer_of_another_kind_takes_over_weights_by_name():
    class Doubled(layers.Dense):
        def build(self, shape):
            super().build(shape)
            self.scale = self.add_weight(name="scale", initializer="ones")

        def call(self, x):
            return 2 * self.scale * super().call(x)

    graph = Graph.of(small())

    def doubled(layer):
        return Doubled.from_config(layer.get_config()) if layer.name == "out" else None

    np.testing.assert_allclose(rebuild(graph, replace=doubled)(X), 2 * small()(X), rtol=1e-6)


def test_nodes_are_dropped_and_tensors_are_wrapped():
    graph = Graph.of(small())
    relu = [node for node in graph.nodes if node.name.startswith("relu")]
    without = rebuild(graph, drop=relu)
    assert [layer.name for layer in without.layers] == ["x", "dense0", "dense1", "out"]

    def halve_the_input(node, index, tensor):
        return layers.Rescaling(0.5, name="half")(tensor) if node.is_input else tensor

    def double_the_input(node, index, tensor):
        return layers.Rescaling(2.0, name="double")(tensor) if node.name == "dense0" else tensor

    np.testing.assert_allclose(rebuild(graph, after=halve_the_input)(X), small()(X / 2), rtol=1e-5)
    np.testing.assert_allclose(rebuild(graph, before=double_the_input)(X), small()(X * 2), rtol=1e-5)
    both = rebuild(graph, after=halve_the_input, before=double_the_input)
    assert difference(small()(X), both(X)) < 1e-6
    assert [layer.name for layer in both.layers][:4] == ["x", "half", "double", "dense0"]


def test_before_counts_the_places_of_a_tensor_that_is_taken_twice():
    x = keras.Input((3,))
    model = keras.Model(x, layers.Subtract()([x, x]))

    def scale_the_second(node, index, tensor):
        return layers.Rescaling(3.0)(tensor) if index == 1 else tensor

    np.testing.assert_allclose(rebuild(Graph.of(model), before=scale_the_second)(np.ones((1, 3))), -2 * np.ones((1, 3)))


class Subclassed(keras.Model):
    def call(self, x):
        return x


class Overridden(keras.Model):
    def call(self, x):
        return super().call(x) + 1


def wrapped(layer) -> keras.Model:
    x = keras.Input(batch_shape=(2, 4, 4), name="x")
    return keras.Model(x, layer(x))


def quantised() -> keras.Model:
    model = wrapped(layers.Dense(2, name="dense"))
    model.get_layer("dense").quantize("int8")
    return model


def overridden() -> keras.Model:
    x = keras.Input((3,))
    return Overridden(x, layers.Dense(2)(x), name="changed")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Subclassed(name="mine"), r"'mine' \(Subclassed\) is subclassed"),
        (lambda: wrapped(Subclassed(name="part")), r"'part' \(Subclassed\) is subclassed"),
        (overridden, r"'changed' \(Overridden\) is subclassed"),
        (lambda: keras.Sequential([layers.Dense(3)], name="open"), "'open' is not built; give its input shape"),
        (lambda: wrapped(layers.Lambda(lambda x: x, name="secret")), r"'secret' \(Lambda\) holds Python code"),
        (lambda: wrapped(layers.GRU(2, stateful=True, name="memory")), r"'memory' \(GRU\) keeps state"),
        (lambda: wrapped(lambda x: keras.ops.map(lambda y: y + 1, x)), r"\(Map\) takes Python code"),
        (quantised, r"'dense' \(Dense\) is already quantised"),
    ],
)
def test_what_cannot_be_handled_is_refused_by_name(make, message):
    with pytest.raises(UserError, match=message):
        Graph.of(make())
