"""ConvNeXt: torchvision's counts, costs, equality with keras.applications, and its blocks."""

import functools

import keras
import numpy as np
import pytest
from copied_weights import check_equal

from pipeline.models.inspect import summary
from pipeline.models.valueless import without_values
from pipeline.registry import MODELS

summarize = functools.cache(summary)

# Parameters and billions of multiply-accumulates as torchvision has them (num_params, _ops), and ours.
FIGURES = {
    "convnext_tiny": (28_589_128, 4.456),
    "convnext_small": (50_223_688, 8.684),
    "convnext_base": (88_591_464, 15.355),
    "convnext_large": (197_767_336, 34.361),
    "convnext_micro_tiny": (137_040, 0.01317),
}


@pytest.mark.parametrize(("name", "parameters", "billions"), [(name, *row) for name, row in FIGURES.items()])
def test_networks_have_torchvisions_size(name, parameters, billions):
    assert summarize(name).parameters == summarize(name).trainable == parameters
    assert summarize(name).macs / 1e9 == pytest.approx(billions, rel=2e-3)  # layer scale is a product more


@functools.cache
def tiny() -> keras.Model:
    return MODELS.build("convnext_micro_tiny", (32, 32, 3), 5)


def test_a_branch_starts_scaled_down():
    with without_values():
        scale = MODELS.build("convnext_tiny", (32, 32, 3), 5).get_layer("stage4_block3_scale")
    assert scale.depthwise_initializer.value == 1e-6
    assert scale.kernel.shape == (1, 1, 768, 1)
    np.testing.assert_array_equal(tiny().get_layer("stage1_block1_scale").kernel, np.full((1, 1, 8, 1), 0.5, "float32"))


def test_only_branches_are_dropped_and_ever_more_often():
    model = MODELS.build("convnext_micro_tiny", (32, 32, 3), 5, stochastic_depth=0.8)
    drops = {layer.name: layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)}
    assert {name: layer.rate for name, layer in drops.items()} == {
        "stage2_block1_drop": 0.2, "stage3_block1_drop": 0.4, "stage3_block2_drop": pytest.approx(0.6),
        "stage4_block1_drop": 0.8,
    }  # fmt: skip
    assert {layer.noise_shape for layer in drops.values()} == {(None, 1, 1, 1)}


def test_resolutions_fall_by_patches_and_small_images_keep_theirs():
    with without_values():
        large = MODELS.build("convnext_micro_tiny", (96, 96, 3), 5)
    for model, kernel in ((large, (4, 4)), (tiny(), (3, 3))):
        assert model.get_layer("stem_conv").kernel_size == kernel
        assert model.get_layer("stage2_conv").kernel_size == model.get_layer("stage2_conv").strides == (2, 2)


def test_equal_weights_give_the_outputs_of_keras_applications():
    """The builder of all of theirs makes our smallest; the rows of the larger ones are counted above."""
    shape = (64, 64, 3)
    theirs = keras.src.applications.convnext.ConvNeXt(
        depths=(1, 1, 2, 1), projection_dims=(8, 16, 32, 64), weights=None, input_shape=shape, classes=20,
        classifier_activation=None, include_preprocessing=False,
    )  # fmt: skip
    check_equal(MODELS.build("convnext_micro_tiny", shape, 20, stem="imagenet"), theirs)
