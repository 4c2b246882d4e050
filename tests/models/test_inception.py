"""GoogLeNet and Inception v3: golden counts, maps, and equality with keras.applications, weight for weight."""

import functools

import keras
import pytest
from copied_weights import check_equal

from pipeline.errors import UserError
from pipeline.models import inspect
from pipeline.models.stages import stages
from pipeline.registry import MODELS

summary = functools.cache(inspect.summary)


def test_googlenet_has_the_parameters_and_multiplications_of_torchvisions_without_auxiliary_classifiers():
    assert summary("googlenet").trainable == 6_624_904
    assert round(summary("googlenet").macs / 1e9, 3) == 1.498


def test_inception_v3_has_the_parameters_of_keras_applications_and_the_multiplications_of_torchvisions():
    assert summary("inception_v3").parameters == 23_851_784
    assert round(summary("inception_v3").macs / 1e9, 3) == 5.713


# By our own count, to notice a change: nobody publishes them.
@pytest.mark.parametrize(("name", "expected"), [("googlenet_tiny", 134_304), ("inception_v3_tiny", 417_864)])
def test_tiny_rows_have_their_parameters(name, expected):
    assert summary(name).parameters == expected


def test_a_module_of_googlenet_has_the_channels_of_the_paper():
    model = MODELS.build("googlenet", (32, 32, 3), 2, width=0.25)
    assert model.get_layer("stage1_block1_concat").output.shape == (None, 16, 16, 256 / 4)
    assert model.get_layer("stage3_block2_concat").output.shape == (None, 4, 4, 1024 / 4)
    assert model.get_layer("stage1_block1_branch3_2_conv").kernel_size == (3, 3)


@pytest.mark.parametrize(
    ("name", "shape", "stem", "sizes"),
    [
        ("googlenet_tiny", (32, 32, 3), "auto", {0: (32, 32), 1: (16, 16), 2: (8, 8), 3: (4, 4)}),
        (
            "googlenet_tiny",
            (97, 130, 3),
            "auto",
            {1: (49, 65), 2: (25, 33), 3: (13, 17), 4: (7, 9), 5: (4, 5)},
        ),
        ("inception_v3_tiny", (33, 32, 1), "auto", {0: (33, 32), 1: (17, 16), 2: (9, 8), 3: (5, 4)}),
        (
            "inception_v3_tiny",
            (299, 299, 3),
            "auto",
            {1: (147, 147), 2: (71, 71), 3: (35, 35), 4: (17, 17), 5: (8, 8)},
        ),
        (
            "inception_v3_tiny",
            (75, 75, 3),
            "imagenet",
            {1: (35, 35), 2: (15, 15), 3: (7, 7), 4: (3, 3), 5: (1, 1)},
        ),
    ],
)
def test_maps_are_the_published_or_exact_halves_of_small_images(name, shape, stem, sizes):
    model = MODELS.build(name, shape, 2, stem=stem)
    assert {level: tensor.shape[1:3] for level, tensor in stages(model).items()} == sizes


@pytest.mark.parametrize(
    ("name", "size", "stem", "message"),
    [
        ("googlenet", 31, "imagenet", "model googlenet halves the image 5 times: .* at least 32x32$"),
        ("inception_v3", 74, "imagenet", "model inception_v3 ends in a map without pixels: .* at least 75x75$"),
        ("inception_v3", 7, "auto", "model inception_v3 halves the image 3 times: .* at least 8x8$"),
    ],
)
def test_an_image_that_is_too_small_is_refused(name, size, stem, message):
    with pytest.raises(UserError, match=message):
        MODELS.build(name, (size, size, 3), 10, stem=stem)


@pytest.mark.slow
def test_equal_weights_give_the_outputs_of_keras_applications():
    ours = MODELS.build("inception_v3", (75, 96, 3), 20, stem="imagenet")
    options = {"weights": None, "input_shape": (75, 96, 3), "classes": 20, "classifier_activation": None}
    check_equal(ours, keras.applications.InceptionV3(**options))
