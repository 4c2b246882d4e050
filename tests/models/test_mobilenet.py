"""The MobileNets against keras.applications: counts, strides and, weight for weight, outputs."""

import keras
import pytest
from copied_weights import check_equal

from pipeline.errors import UserError
from pipeline.models.blocks import scaled
from pipeline.models.inspect import summary
from pipeline.models.stages import stages
from pipeline.registry import MODELS


@pytest.mark.parametrize(("name", "expected"), [("mobilenet_v1", 4_253_864), ("mobilenet_v2", 3_538_984)])
def test_full_networks_have_the_parameters_of_keras_applications(name, expected):
    assert summary(name).parameters == expected


@pytest.mark.parametrize(
    ("filters", "width", "expected"),
    [(32, 1.0, 32), (32, 0.35, 16), (24, 0.35, 8), (96, 0.35, 32), (16, 0.1, 8), (32, 0.75, 24), (320, 1.4, 448)],
)
def test_widths_are_rounded_to_eights(filters, width, expected):
    assert scaled(filters, width) == expected


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2"])
@pytest.mark.parametrize(("size", "levels"), [(32, [0, 1, 2, 3]), (96, [1, 2, 3, 4, 5])])
def test_small_images_skip_the_first_two_halvings(name, size, levels):
    found = stages(MODELS.build(name, (size, size, 3), 2, width=0.25))
    assert {level: tensor.shape[1] for level, tensor in found.items()} == {k: size // 2**k for k in levels}


def test_v2_adds_only_between_equal_shapes():
    model = MODELS.build("mobilenet_v2", (96, 96, 3), 2, width=0.35)
    added = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Add)]
    assert added == [f"block{i}_add" for i in (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)]


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2"])
def test_an_image_that_is_too_small_is_refused(name):
    with pytest.raises(UserError, match=f"model {name} halves the image 5 times: .* give at least 64x32$"):
        MODELS.build(name, (64, 31, 3), 10, stem="imagenet")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "application", "width", "size"),
    [
        ("mobilenet_v1", keras.applications.MobileNet, 1.0, 224),
        ("mobilenet_v1", keras.applications.MobileNet, 0.25, 96),
        ("mobilenet_v2", keras.applications.MobileNetV2, 1.0, 224),
        ("mobilenet_v2", keras.applications.MobileNetV2, 0.35, 96),
    ],
)
def test_equal_weights_give_the_outputs_of_keras_applications(name, application, width, size):
    theirs = application((size, size, 3), alpha=width, weights=None, classes=20, classifier_activation=None)
    check_equal(MODELS.build(name, (size, size, 3), 20, width=width), theirs, tolerance=1e-3)
