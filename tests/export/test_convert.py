import keras
import numpy as np
import pytest
import tensorflow as tf
from small import CLASSES, SIZE, network

from pipeline.export import flatbuffer
from pipeline.export.convert import check, convert, rebuild
from pipeline.export.interpreter import LiteModel


class InverseError(keras.layers.Layer):
    def call(self, x):
        return keras.ops.erfinv(x / 1000)


class Inverse(keras.layers.Layer):
    def call(self, x):
        return tf.linalg.inv(x[..., 0] + 300 * tf.eye(SIZE))


def with_layer(layer: keras.layers.Layer) -> keras.Model:
    image = keras.Input((SIZE, SIZE, 1), name="image")
    x = keras.layers.Conv2D(1, 3, padding="same")(image)
    return keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(layer(x))))


def test_file_answers_as_the_model(float_file, images, expected):
    file = LiteModel(float_file)
    np.testing.assert_allclose(file.predict(images), expected, atol=1e-5)
    assert file.input.shape == (1, SIZE, SIZE, 3)
    assert file.output.shape == (1, CLASSES)
    assert np.ptp(expected, axis=0).max() > 0.5, "the network must answer different images differently"


def test_operators_are_builtin_and_norms_are_folded(float_file):
    operators = list(flatbuffer.operators(float_file))
    names = [operator.name for operator in operators]
    assert not any(operator.custom for operator in operators)
    assert names.count("CONV_2D") == 3
    assert names.count("DEPTHWISE_CONV_2D") == 1
    # One MUL and one ADD rescale the pixels, one ADD is the residual: the norms have gone into the convolutions.
    assert (names.count("MUL"), names.count("ADD")) == (1, 2)
    assert names[-1] == "SOFTMAX"
    for operator in operators:
        assert all(-1 not in tensor.shape for tensor in operator.outputs)


def test_mixed_precision_model_converts_clean(images):
    mixed = network("mixed_bfloat16")
    assert mixed.layers[2].compute_dtype == "bfloat16"
    content = convert(mixed, keras.ops.softmax)
    assert "CAST" not in {operator.name for operator in flatbuffer.operators(content)}
    exact = network()
    exact.set_weights(mixed.get_weights())
    wanted = keras.ops.softmax(exact(images.astype("float32"))).numpy()
    np.testing.assert_allclose(LiteModel(content).predict(images), wanted, atol=1e-5)


def test_rebuild_reaches_inner_models_and_wrapped_layers():
    image = keras.Input((SIZE, SIZE, 3), name="photo")
    inner = keras.Sequential([keras.layers.Conv2D(4, 3, dtype="mixed_float16")], name="inner")
    x = inner(image)
    x = keras.layers.TimeDistributed(keras.layers.Dense(2, dtype="mixed_float16"))(x)
    model = keras.Model(image, keras.ops.mean(x, axis=(1, 2)))
    copy = rebuild(model)
    assert copy.input.shape == (1, SIZE, SIZE, 3)
    assert copy.input.name == "image"
    layers = [layer for layer in copy._flatten_layers() if not isinstance(layer, keras.Model)]
    assert {layer.compute_dtype for layer in layers} == {"float32"}
    pixels = np.random.default_rng(0).uniform(0, 1, (1, SIZE, SIZE, 3)).astype("float32")
    np.testing.assert_allclose(copy(pixels), model(pixels), atol=0.02)


@pytest.mark.parametrize(("layer", "operator"), [(InverseError, "Erfinv"), (Inverse, "MatrixInverse")])
def test_foreign_operator_is_named_with_its_layer(layer, operator, user_error, capfd):
    with user_error(operator, "'odd_one'", "replace that layer"):
        convert(with_layer(layer(name="odd_one")), keras.ops.softmax)
    assert capfd.readouterr().err == ""


def test_layer_inside_an_inner_model_is_named(user_error):
    inner = keras.Sequential([keras.Input((SIZE, SIZE, 1)), InverseError(name="hidden")], name="inner")
    with user_error("Erfinv", "'hidden'"):
        convert(with_layer(inner), keras.ops.softmax)


def test_sequential_model_converts():
    layers = [keras.layers.Conv2D(2, 3), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((SIZE, SIZE, 1)), *layers])
    image = np.random.default_rng(0).uniform(0, 1, (2, SIZE, SIZE, 1)).astype("float32")
    answers = LiteModel(convert(model, keras.ops.softmax)).predict(image)
    np.testing.assert_allclose(answers, keras.ops.softmax(model(image)), atol=1e-6)


def test_conversion_is_silent(keras_model, capfd):
    convert(keras_model, keras.ops.softmax)
    assert capfd.readouterr() == ("", "")


def test_images_of_any_size_are_refused(user_error):
    image = keras.Input((None, None, 3), name="image")
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(image), name="any")
    with user_error("'any'", "any size", "build it for one size"):
        convert(model, keras.ops.softmax)


def test_two_inputs_are_refused(user_error):
    pair = [keras.Input((4,)), keras.Input((4,))]
    with user_error("'pair'", "2 inputs"):
        rebuild(keras.Model(pair, keras.layers.Add()(pair), name="pair"))


def edited(content: bytes, edit) -> bytes:
    model = flatbuffer.read(content)
    edit(model)
    return flatbuffer.write(model)


def test_check_finds_custom_operators_variables_and_unknown_shapes(float_file, user_error):
    def custom(model):
        model.operatorCodes[0].customCode = b"FlexErfinv"

    def variable(model):
        code = model.operatorCodes[0]
        code.builtinCode, code.deprecatedBuiltinCode = flatbuffer.schema.BuiltinOperator.VAR_HANDLE, 127

    def dynamic(model):
        model.subgraphs[0].tensors[model.subgraphs[0].outputs[0]].shapeSignature = [-1, CLASSES]

    check(float_file)
    with user_error("FlexErfinv", "not builtin"):
        check(edited(float_file, custom))
    with user_error("variable", "missing"):
        check(edited(float_file, variable))
    with user_error("SOFTMAX", "no static shape", "(-1, 5)"):
        check(edited(float_file, dynamic))
