"""The integer file gives the answers of the quantisation-aware Keras model."""

import keras
import numpy as np
import pytest
from quantisable import every_rule, pictures, ready, with_islands
from seeding import set_seed

from pipeline.errors import UserError
from pipeline.export import flatbuffer
from pipeline.export.compress.quantize_aware import calibrate, float_islands, quantize_aware
from pipeline.export.compress.quantized_file import convert_quantized
from pipeline.export.interpreter import LiteModel
from pipeline.registry import MODELS

layers = keras.layers


def identity(outputs):
    return outputs


def steps_apart(aware: keras.Model, content: bytes, images: np.ndarray) -> int:
    """Return how many output steps the file is from the Keras model."""
    lite = LiteModel(content)
    return round(np.abs(lite.predict(images) - np.asarray(aware(images))).max() / lite.output.scale)


@pytest.mark.parametrize(("bits", "kernel"), [(8, "int8"), (4, "int4")])
def test_the_file_is_integer_throughout_and_answers_the_same(bits, kernel):
    aware = ready(every_rule(), weights=bits)
    content = convert_quantized(aware, identity)
    operators = list(flatbuffer.operators(content))
    assert {op.outputs[0].dtype for op in operators} == {"int8"}
    assert {op.inputs[1].dtype for op in operators if op.name in ("CONV_2D", "FULLY_CONNECTED")} == {kernel}
    assert {op.inputs[1].dtype for op in operators if op.name == "DEPTHWISE_CONV_2D"} == {"int8"}
    assert not {"QUANTIZE", "DEQUANTIZE"} & {op.name for op in operators}
    lite = LiteModel(content)
    assert (lite.input.scale, lite.input.zero_point) == (1.0, -128)
    assert steps_apart(aware, content, pictures()) <= 3


def test_uint8_ports_take_the_pixels_themselves_and_answer_the_same():
    aware = ready(every_rule())
    integer, bytes_in = (LiteModel(convert_quantized(aware, identity, ports=ports)) for ports in ("int8", "uint8"))
    assert (bytes_in.input.dtype, bytes_in.output.dtype) == ("uint8", "float32")
    assert (bytes_in.input.scale, bytes_in.input.zero_point) == (1.0, 0)
    np.testing.assert_allclose(bytes_in.predict(pictures()), integer.predict(pictures()), rtol=1e-5)


def test_channels_that_a_norm_switched_off_keep_their_bias():
    set_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    norm = layers.BatchNormalization()
    x = layers.ReLU()(norm(layers.Conv2D(4, 3)(layers.Rescaling(1 / 255)(image))))
    model = keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    norm.gamma.assign([0.0, 1e-8, -2.0, 1.0])
    norm.beta.assign([1.0, 2.0, 0.5, -100.0])
    aware = quantize_aware(model)
    calibrate(aware, [pictures(size=8)])
    assert steps_apart(aware, convert_quantized(aware, identity), pictures(size=8)) <= 1


def test_float_islands_lie_between_integers():
    aware = ready(with_islands(), per_layer={"kept": None})
    content = convert_quantized(aware, identity)
    types = {op.name: op.inputs[1].dtype for op in flatbuffer.operators(content) if len(op.inputs) > 1}
    assert (types["CONV_2D"], types["FULLY_CONNECTED"]) == ("float32", "int8")
    assert LiteModel(content).input.dtype == LiteModel(content).output.dtype == "int8"
    assert steps_apart(aware, content, pictures()) <= 2


def test_a_layer_that_is_shared_keeps_one_kernel_and_has_a_range_at_each_place():
    set_seed(0)
    image = keras.Input((16, 16, 3), name="image")
    conv, norm = layers.Conv2D(3, 3, padding="same", name="shared"), layers.BatchNormalization()
    x = image
    for _ in range(2):
        x = layers.ReLU()(norm(conv(x)))
    aware = ready(keras.Model(image, layers.Dense(4)(layers.GlobalAveragePooling2D()(x))))
    assert {"shared_range", "shared.1_range"} <= {layer.name for layer in aware.layers}
    content = convert_quantized(aware, identity)
    assert {operator.outputs[0].dtype for operator in flatbuffer.operators(content)} == {"int8"}
    assert steps_apart(aware, content, pictures()) <= 1


def test_bits_are_chosen_per_layer():
    aware = ready(every_rule(), weights=4, per_layer={"stem": 8, "logits": 8})
    kernels = [op.inputs[1] for op in flatbuffer.operators(convert_quantized(aware, identity)) if "CONV_2D" in op.name]
    assert next(kernel.dtype for kernel in kernels if kernel.shape == (8, 3, 3, 3)) == "int8"
    assert "int4" in {kernel.dtype for kernel in kernels}


def test_a_float_model_as_a_quantised_file():
    with pytest.raises(UserError, match="not quantisation-aware"):
        convert_quantized(every_rule(), identity)


def test_ranges_that_were_never_set():
    with pytest.raises(UserError, match="never set; train it, or calibrate it"):
        convert_quantized(quantize_aware(every_rule()), identity)


@pytest.mark.parametrize(
    ("name", "options", "steps"),
    [
        ("unet", {"backbone": "resnet8"}, 1),  # upsampling
        ("mobilenet_v3_tiny", {"width": 0.25}, 6),  # hard activations; hard-swish rounds inside its kernel too
        ("shufflenet_v2_tiny", {}, 1),  # channels split and shuffled
    ],
)
def test_a_network_is_integer_throughout(name, options, steps):
    set_seed(0)
    aware = quantize_aware(MODELS.build(name, (32, 32, 3), 5, **options))
    calibrate(aware, [pictures(size=32)])
    assert not float_islands(aware)
    content = convert_quantized(aware, identity)
    assert {op.outputs[0].dtype for op in flatbuffer.operators(content)} == {"int8"}
    lite, images = LiteModel(content), pictures(size=32, count=4)
    # On average: a step in an early layer is several at the end of so deep a network.
    assert np.abs(lite.predict(images) - np.asarray(aware(images))).mean() <= steps * lite.output.scale
