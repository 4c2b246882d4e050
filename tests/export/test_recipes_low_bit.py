"""Four-bit files, and what int8 does to a healthy network."""

import keras
import numpy as np
import pytest
from depthwise_digits import accuracy, digits, trained

from pipeline.export import flatbuffer, recipes
from pipeline.export.convert import convert
from pipeline.export.interpreter import LiteModel
from pipeline.export.mixed import mixed
from pipeline.export.noise import output_noise


def kernels(content: bytes) -> set[tuple[str, str]]:
    """Return operators with the type that their weights are stored in."""
    operators = list(flatbuffer.operators(content))
    stored = {op.outputs[0].name: op.inputs[0].dtype for op in operators if op.name == "DEQUANTIZE"}
    weighted = [op for op in operators if op.name in flatbuffer.WITH_WEIGHTS]
    return {(op.name, stored.get(op.inputs[1].name, op.inputs[1].dtype)) for op in weighted}


def read(content: bytes) -> float:
    return accuracy(LiteModel(content).predict(digits()[2]))


@pytest.fixture(scope="module")
def healthy() -> bytes:
    return convert(trained(), keras.ops.softmax)


@pytest.mark.parametrize("name", ["w4a8", "weight_int4"])
def test_kernels_have_four_bits_where_litert_has_such(name, healthy):
    content = getattr(recipes, name)(healthy, digits()[0][:100])
    expected = {("CONV_2D", "int4"), ("DEPTHWISE_CONV_2D", "int8"), ("FULLY_CONNECTED", "int4")}
    assert kernels(content) == expected
    assert read(content) > 0.9


def test_a_healthy_network_is_all_int8_in_mixed(healthy):
    images = digits()[0][:100]
    assert mixed(healthy, images) == recipes.int8(healthy, images)


def test_a_file_has_no_noise_against_itself(healthy):
    assert output_noise(healthy, healthy, np.asarray(digits()[0][:2])) == 0.0
