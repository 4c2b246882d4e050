"""VGG: golden counts, its halvings, and equality with keras.applications, weight for weight."""

import keras
import pytest
from copied_weights import check_equal

from pipeline.errors import UserError
from pipeline.models.inspect import summary
from pipeline.models.stages import stages
from pipeline.models.valueless import without_values
from pipeline.registry import MODELS

# Trainable parameters at 1000 classes; torchvision's figures, with batch norm those less the biases of its
# convolutions, which a norm makes superfluous.
TRAINABLE = {
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840 - (64 + 128 + 2 * 256 + 4 * 512),
    "vgg13_bn": 133_053_736 - 2 * (64 + 128 + 256 + 2 * 512),
    "vgg16_bn": 138_365_992 - (2 * 64 + 2 * 128 + 3 * 256 + 6 * 512),
    "vgg19_bn": 143_678_248 - (2 * 64 + 2 * 128 + 4 * 256 + 8 * 512),
    # By hand: kernels and norms of 8, 16, 32, 64, 64 channels, then 7 x 7 x 64 features to 16 and 16 units.
    "vgg_tiny": 9 * (3 * 8 + 8 * 16 + 16 * 32 + 32 * 64 + 64 * 64) + 2 * 184 + 3137 * 16 + 17 * 16 + 17 * 1000,
}


@pytest.mark.parametrize(("name", "expected"), TRAINABLE.items())
def test_networks_have_their_parameters(name, expected):
    assert summary(name).trainable == expected


@pytest.mark.parametrize(("name", "expected"), [("vgg16", 15.470), ("vgg19", 19.632)])
def test_networks_have_torchvisions_multiplications(name, expected):
    assert round(summary(name).macs / 1e9, 3) == expected


@pytest.mark.parametrize(
    ("shape", "stem", "sizes"),
    [
        ((32, 32, 3), "small", {0: (32, 32, 32), 1: (16, 16, 64), 2: (8, 8, 64), 3: (4, 4, 64)}),
        (
            (97, 130, 3),
            "auto",
            {0: (97, 130, 8), 1: (49, 65, 16), 2: (25, 33, 32), 3: (13, 17, 64), 4: (7, 9, 64), 5: (4, 5, 64)},
        ),
    ],
)
def test_the_small_stem_skips_the_first_two_halvings(shape, stem, sizes):
    model = MODELS.build("vgg_tiny", shape, 2, stem=stem)
    assert {level: tensor.shape[1:] for level, tensor in stages(model).items()} == sizes


@pytest.mark.parametrize(("size", "units"), [(32, 512), (96, 4096)])
def test_the_dense_layers_are_smaller_for_small_images(size, units):
    with without_values():
        model = MODELS.build("vgg11", (size, size, 3), 2, width=0.125)
    assert [model.get_layer(name).units for name in ("dense1", "dense2")] == [units, units]


def test_an_image_that_is_too_small_is_refused():
    with pytest.raises(UserError, match=r"model vgg16_bn halves the image 5 times: .* give at least 32x32$"):
        MODELS.build("vgg16_bn", (31, 31, 3), 10, stem="imagenet")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "application"), [("vgg16", "VGG16"), ("vgg19", "VGG19")])
def test_equal_weights_give_the_outputs_of_keras_applications(name, application):
    ours = MODELS.build(name, (32, 64, 3), 20, units=4096)
    build = getattr(keras.applications, application)
    check_equal(ours, build(weights=None, input_shape=(32, 64, 3), classes=20, classifier_activation=None))
