"""Xception: golden counts, maps, shortcuts, and equality with keras.applications, weight for weight."""

import keras
import pytest
from copied_weights import check_equal

from pipeline.errors import UserError
from pipeline.models.inspect import summary
from pipeline.models.stages import stages
from pipeline.registry import MODELS


def test_it_has_the_parameters_of_keras_applications():
    cost = summary("xception")
    assert cost.parameters == 22_910_480
    assert cost.trainable == 22_855_952  # the paper's table 3 in millions: 22.86
    assert round(cost.macs / 1e9, 1) == 8.4  # arXiv 1707.07012, table 2


def test_the_tiny_row_has_its_parameters():
    assert summary("xception_tiny").parameters == 175_768  # our own count, to notice a change


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((32, 32, 3), {0: (32, 32), 1: (16, 16), 2: (8, 8), 3: (4, 4)}),
        ((299, 96, 1), {1: (147, 45), 2: (74, 23), 3: (37, 12), 4: (19, 6), 5: (10, 3)}),
    ],
)
def test_maps_are_the_published_or_exact_halves_of_small_images(shape, sizes):
    found = stages(MODELS.build("xception_tiny", shape, 2))
    assert {level: tensor.shape[1:3] for level, tensor in found.items()} == sizes


def test_the_middle_flow_adds_to_what_it_is_given():
    model = MODELS.build("xception_tiny", (96, 96, 3), 2)
    projected = [layer.name for layer in model.layers if layer.name.endswith("shortcut_conv")]
    assert projected == [f"block{index}_shortcut_conv" for index in (1, 2, 3, 5)]


def test_an_image_that_is_too_small_is_refused():
    with pytest.raises(UserError, match=r"model xception halves the image 5 times: .* give at least 32x32$"):
        MODELS.build("xception", (31, 31, 3), 10, stem="imagenet")


@pytest.mark.slow
def test_equal_weights_give_the_outputs_of_keras_applications():
    ours = MODELS.build("xception", (71, 96, 3), 20, stem="imagenet")
    options = {"weights": None, "input_shape": (71, 96, 3), "classes": 20, "classifier_activation": None}
    check_equal(ours, keras.applications.Xception(**options))
