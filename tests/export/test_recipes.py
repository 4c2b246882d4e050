import keras
import numpy as np
import pytest
import tensorflow as tf
from seeding import set_seed

from pipeline.errors import UserError
from pipeline.export import flatbuffer
from pipeline.export.convert import convert, rebuild
from pipeline.export.interpreter import LiteModel
from pipeline.export.quantizer import checked
from pipeline.quiet import quiet
from pipeline.registry import RECIPES

# variant: input type, output type, largest error of a probability, size against float32
PROMISES = {
    "float32": ("float32", "float32", 1e-5, (1.0, 1.0)),
    "float16": ("float32", "float32", 0.01, (0.45, 0.6)),
    "dynamic": ("float32", "float32", 0.06, (0.25, 0.4)),
    "int8": ("int8", "int8", 0.1, (0.25, 0.4)),
    "uint8": ("uint8", "float32", 0.1, (0.25, 0.4)),
    "int16x8": ("int16", "int16", 0.03, (0.25, 0.4)),
    "mixed": ("int8", "int8", 0.1, (0.25, 0.4)),
    "w4a8": ("int8", "int8", 0.3, (0.15, 0.3)),
    "weight_int4": ("float32", "float32", 0.3, (0.15, 0.3)),
}


FOUR_BITS = ("w4a8", "weight_int4")


def test_every_recipe_has_a_promise():
    assert set(PROMISES) == set(RECIPES.names())
    assert len(PROMISES) == 9


@pytest.mark.parametrize("name", sorted(PROMISES))
def test_variant_keeps_its_promise(name, variants, images, expected):
    taken, given, error, (smallest, largest) = PROMISES[name]
    file = LiteModel(variants[name])
    assert (file.input.dtype, file.output.dtype) == (taken, given)
    assert smallest <= len(variants[name]) / len(variants["float32"]) <= largest
    answers = file.predict(images)
    assert np.abs(answers - expected).max() < error
    assert (answers.argmax(-1) == expected.argmax(-1)).mean() > (0.9 if name in FOUR_BITS else 0.95)


@pytest.mark.parametrize(("name", "kernel"), [("dynamic", "int8"), ("int8", "int8"), ("uint8", "int8")])
def test_no_convolution_stays_in_float(name, kernel, variants):
    operators = [op for op in flatbuffer.operators(variants[name]) if op.name in flatbuffer.WITH_WEIGHTS]
    assert len(operators) == 5
    assert {operator.inputs[1].dtype for operator in operators} == {kernel}


@pytest.mark.parametrize("name", ["int8", "dynamic"])
def test_kernel_of_more_than_32_mib_is_rounded_like_a_small_one(name):
    image = keras.Input((4, 4, 1), name="image")
    wide = keras.layers.Conv2D(1024, 1, activation="relu")(image)
    model = keras.Model(image, keras.layers.Conv2D(1024, 3, name="large")(wide))
    kernel = np.random.default_rng(0).normal(0, np.geomspace(0.01, 1, 1024), (3, 3, 1024, 1024)).astype(np.float32)
    assert kernel.nbytes > 2**25
    model.get_layer("large").kernel.assign(kernel)
    with quiet():
        content = RECIPES.build(name, convert(model, keras.ops.softmax), [np.full((4, 4, 1), 255, np.float32)])
    file = flatbuffer.read(content)
    [stored] = [tensor for tensor in file.subgraphs[0].tensors if tuple(tensor.shape) == (1024, 3, 3, 1024)]
    steps = file.buffers[stored.buffer].data.view(np.int8).reshape(stored.shape)
    channels = kernel.transpose(3, 0, 1, 2)
    scales = np.abs(channels).max((1, 2, 3), keepdims=True) / 127
    np.testing.assert_allclose(stored.quantization.scale, scales.ravel(), rtol=1e-5)
    assert (np.abs(steps - channels / scales) < 0.501).all()


def test_int8_and_int16_files_hold_no_float_at_all(variants):
    for name in ("int8", "int16x8"):
        tensors = [t for op in flatbuffer.operators(variants[name]) for t in (*op.inputs, *op.outputs)]
        assert not [tensor for tensor in tensors if tensor.dtype.startswith("float")]


def test_integer_input_is_the_pixel_minus_128(variants, images):
    port = LiteModel(variants["int8"]).input
    assert (port.scale, port.zero_point) == (1.0, -128)
    assert (port.store(images.astype(np.float32)) == images.astype(np.int16) - 128).all()
    port = LiteModel(variants["uint8"]).input
    assert (port.scale, port.zero_point) == (1.0, 0)
    assert (port.store(images.astype(np.float32)) == images).all()


def test_uint8_computes_what_int8_computes(variants, images):
    np.testing.assert_array_equal(*(LiteModel(variants[name]).predict(images) for name in ("uint8", "int8")))


def test_probabilities_of_int8_are_256ths(variants):
    port = LiteModel(variants["int8"]).output
    assert (port.scale, port.zero_point) == (1 / 256, -128)


def test_int8_agrees_with_the_converter_of_tensorflow(keras_model, variants, images, expected):
    single = rebuild(keras_model)
    serving = keras.Model(single.input, {"probabilities": keras.ops.softmax(single.output)})
    converter = tf.lite.TFLiteConverter.from_keras_model(serving)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    extremes = [np.zeros_like(images[0]), np.full_like(images[0], 255)]
    converter.representative_dataset = lambda: ([x[None].astype("float32")] for x in [*images[:48], *extremes])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    with quiet(), pytest.warns(UserWarning, match="Statistics for quantized inputs"):
        content = converter.convert()
    theirs = np.abs(LiteModel(content).predict(images) - expected)
    ours = np.abs(LiteModel(variants["int8"]).predict(images) - expected)
    assert ours.mean() < 1.3 * theirs.mean()
    assert len(variants["int8"]) < 1.1 * len(content)


def test_recipe_is_a_function_of_its_inputs(float_file, variants, images):
    assert RECIPES.build("int8", float_file, images[:48]) == variants["int8"]


@pytest.mark.parametrize("name", ["int8", "uint8", "int16x8"])
def test_calibration_needs_images(name, float_file, user_error):
    with user_error("export.calibration_images"):
        RECIPES.build(name, float_file, [])


def test_quantising_is_silent(float_file, images, capfd):
    RECIPES.build("int8", float_file, images[:4])
    assert capfd.readouterr() == ("", "")


def test_a_layer_left_in_float_is_an_error(float_file, user_error):
    with user_error("int8", "float32", "export.variants"):
        checked(float_file, "int8", ports=("float32", "float32"), weights="int8", activations="int8")
    with pytest.raises(UserError, match="takes float32 and gives float32, not int8"):
        checked(float_file, "int8", ports=("int8", "int8"), weights="int8", activations="int8")


def test_segmentation_network_in_every_variant():
    image = keras.Input((16, 16, 3), name="image")
    x = skip = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(keras.layers.Rescaling(1 / 255)(image))
    x = keras.layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(x)
    x = keras.layers.Resizing(16, 16, interpolation="nearest")(x)
    x = keras.layers.Concatenate()([x, skip])
    x = keras.layers.Conv2DTranspose(8, 3, padding="same", activation="relu")(x)
    set_seed(0)
    model = keras.Model(image, keras.layers.Conv2D(3, 1)(x))
    pictures = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype(np.uint8)
    wanted = keras.ops.softmax(model(pictures.astype("float32"))).numpy()
    content = convert(model, keras.ops.softmax)
    for name in RECIPES.names():
        answers = LiteModel(RECIPES.build(name, content, pictures)).predict(pictures)
        assert answers.shape == (8, 16, 16, 3)
        assert np.abs(answers - wanted).max() < 0.05, name
