"""MobileNetV3 against keras.applications and torchvision: counts, multiply-accumulates, outputs; and its blocks."""

import functools

import keras
import pytest
from copied_weights import check_equal

from pipeline.models.inspect import summary
from pipeline.models.valueless import without_values
from pipeline.registry import MODELS

summarize = functools.cache(summary)

# All parameters as keras.applications counts them, and the trainable ones, which for small and large are torchvision's.
PARAMETERS = {
    "mobilenet_v3_small": (2_554_968, 2_542_856),
    "mobilenet_v3_large": (5_507_432, 5_483_032),
    "mobilenet_v3_small_minimalistic": (2_056_848, 2_044_736),
    "mobilenet_v3_large_minimalistic": (3_948_688, 3_924_288),
    "mobilenet_v3_tiny": (302_992, 299_760),  # its own, to notice a change
}


@pytest.mark.parametrize(("name", "expected"), PARAMETERS.items())
def test_networks_have_the_published_parameters(name, expected):
    assert (summarize(name).parameters, summarize(name).trainable) == expected


# arXiv 1905.02244, tables 3 and 4, and torchvision (0.217 and 0.057 billion).
@pytest.mark.parametrize(("name", "millions"), [("mobilenet_v3_large", 217), ("mobilenet_v3_small", 56)])
def test_networks_cost_the_published_multiply_accumulates(name, millions):
    assert summarize(name).macs / 1e6 == pytest.approx(millions, rel=0.01)


def test_blocks_are_those_of_the_paper():
    model = MODELS.build("mobilenet_v3_tiny", (32, 32, 3), 5)
    names = {layer.name for layer in model.layers}
    # The first block does not expand, and only blocks that keep their shape add, as on small images the first does.
    assert "block1_expand_conv" not in names
    assert {name for name in names if name.endswith("_add")} == {"block1_add", "block4_add"}
    assert model.get_layer("block3_depthwise_conv").kernel_size == (5, 5)
    reduce, expand = (model.get_layer(f"block3_attention_{part}") for part in ("reduce", "expand"))
    assert (reduce.filters, expand.filters) == (24, 96)  # a quarter of the expanded channels
    assert expand.activation is keras.activations.hard_sigmoid
    assert model.get_layer("block2_expand_relu").activation is keras.activations.relu
    assert model.get_layer("block3_expand_hard_silu").activation is keras.activations.hard_silu


def test_minimalistic_networks_have_relu_and_small_kernels_only():
    with without_values():
        model = MODELS.build("mobilenet_v3_small_minimalistic", (32, 32, 3), 5)
    activations = {layer.activation.__name__ for layer in model.layers if isinstance(layer, keras.layers.Activation)}
    assert activations == {"relu", "linear"}  # linear marks the stages
    kernels = {layer.kernel_size for layer in model.layers if isinstance(layer, keras.layers.DepthwiseConv2D)}
    assert kernels == {(3, 3)}
    assert not [layer for layer in model.layers if "attention" in layer.name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "application", "width", "minimalistic"),
    [
        ("mobilenet_v3_small", keras.applications.MobileNetV3Small, 1.0, False),
        ("mobilenet_v3_small_minimalistic", keras.applications.MobileNetV3Small, 0.5, True),
        ("mobilenet_v3_large", keras.applications.MobileNetV3Large, 1.25, False),
        ("mobilenet_v3_large_minimalistic", keras.applications.MobileNetV3Large, 1.0, True),
    ],
)
def test_equal_weights_give_the_outputs_of_keras_applications(name, application, width, minimalistic):
    shape = (96, 96, 3)
    options = {"weights": None, "classes": 20, "classifier_activation": None, "include_preprocessing": False}
    theirs = application(shape, alpha=width, minimalistic=minimalistic, **options)
    check_equal(MODELS.build(name, shape, 20, width=width), theirs)
