"""Four-bit files, and int8 files that keep their worst layers in float."""

import keras
import numpy as np
import pytest
from depthwise_digits import accuracy, digits, scaled_apart, trained

from pipeline.export import flatbuffer, recipes
from pipeline.export.convert import convert
from pipeline.export.interpreter import LiteModel
from pipeline.export.noise import noisiest, output_noise


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


@pytest.fixture(scope="module")
def broken() -> bytes:
    return convert(scaled_apart(trained()), keras.ops.softmax)


@pytest.mark.parametrize("name", ["w4a8", "weight_int4"])
def test_kernels_have_four_bits_where_litert_has_such(name, healthy):
    content = getattr(recipes, name)(healthy, digits()[0][:100])
    expected = {("CONV_2D", "int4"), ("DEPTHWISE_CONV_2D", "int8"), ("FULLY_CONNECTED", "int4")}
    assert kernels(content) == expected
    assert read(content) > 0.9


def test_a_healthy_network_is_all_int8_in_mixed(healthy):
    images = digits()[0][:100]
    assert recipes.mixed(healthy, images) == recipes.int8(healthy, images)


def test_mixed_finds_the_layers_that_int8_breaks(broken, caplog):
    images = digits()[0][:100]
    with caplog.at_level("INFO"):
        content = recipes.mixed(broken, images)
    assert "mixed: 4 of 6 layers with weights stay float" in caplog.text
    assert kernels(content) >= {("CONV_2D", "int8"), ("DEPTHWISE_CONV_2D", "float32"), ("FULLY_CONNECTED", "int8")}
    assert read(recipes.int8(broken, images)) < 0.6
    assert read(content) > read(broken) - 0.01


def test_noise_points_at_the_depthwise_layers(broken):
    images = digits()[0][:16]
    content = recipes.int8(broken, digits()[0][:100])
    operators = {op.outputs[0].name: op.name for op in flatbuffer.operators(broken)}
    ranking = noisiest(broken, content, images)
    assert len(ranking) == 6
    assert [operators[names[-1]] for names in ranking[:2]] == ["DEPTHWISE_CONV_2D"] * 2
    assert output_noise(broken, content, images) > 0.1


def test_a_file_has_no_noise_against_itself(healthy):
    assert output_noise(healthy, healthy, np.asarray(digits()[0][:2])) == 0.0
