"""Golden counts, strides and shortcuts of the residual networks."""

import pytest

from pipeline.errors import UserError
from pipeline.models.inspect import summary
from pipeline.models.stages import stages
from pipeline.registry import MODELS

# Trainable parameters as torchvision counts them, at 1000 classes.
TORCHVISION = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}
# By hand: 3x3 convolutions and norms of the paper's layout, with projections, at 10 classes.
SMALL = {8: 78_042, 14: 175_258, 20: 272_474, 32: 466_906, 56: 855_770}


@pytest.mark.parametrize(("depth", "expected"), SMALL.items())
def test_small_networks_have_their_parameters(depth, expected):
    assert summary(f"resnet{depth}").trainable == expected


def test_small_networks_follow_the_closed_form():
    blocks, width = 3, 16
    norm = {k: 2 * width * k for k in (1, 2, 4)}
    stem = 27 * width + norm[1]
    equal = sum(9 * (width * k) ** 2 + norm[k] for k in (1, 2, 4)) * (2 * blocks - 1)
    opening = 9 * width**2 * (1 + 2 + 8) + sum(norm.values())
    projections = width**2 * (2 + 8) + norm[2] + norm[4]
    assert stem + equal + opening + projections + 4 * width * 10 + 10 == SMALL[20]


@pytest.mark.parametrize(("depth", "expected"), TORCHVISION.items())
def test_imagenet_networks_have_torchvisions_parameters(depth, expected):
    assert summary(f"resnet{depth}").trainable == expected


@pytest.mark.parametrize(
    ("shape", "stem", "sizes"),
    [
        ((32, 32, 3), "auto", {0: (32, 32, 16), 1: (16, 16, 32), 2: (8, 8, 64), 3: (4, 4, 128)}),
        (
            (96, 130, 3),
            "auto",
            {1: (48, 65, 4), 2: (24, 33, 16), 3: (12, 17, 32), 4: (6, 9, 64), 5: (3, 5, 128)},
        ),
        (
            (32, 32, 1),
            "imagenet",
            {1: (16, 16, 4), 2: (8, 8, 16), 3: (4, 4, 32), 4: (2, 2, 64), 5: (1, 1, 128)},
        ),
    ],
)
def test_stages_of_bottleneck_networks(shape, stem, sizes):
    model = MODELS.build("resnet50", shape, 2, width=4, stem=stem)
    assert {level: tensor.shape[1:] for level, tensor in stages(model).items()} == sizes


def test_the_middle_convolution_of_a_bottleneck_strides():
    model = MODELS.build("resnet50", (32, 32, 3), 2, width=4)
    strides = [model.get_layer(f"stage2_block1_{i}_conv").strides for i in (1, 2, 3)]
    assert strides == [(1, 1), (2, 2), (1, 1)]
    assert model.get_layer("stage2_block1_shortcut_conv").strides == (2, 2)


@pytest.mark.parametrize(("name", "projections"), [("resnet20", 2), ("resnet18", 3), ("resnet50", 4)])
def test_a_shortcut_projects_only_where_the_shape_changes(name, projections):
    model = MODELS.build(name, (32, 32, 3), 2, width=4)
    assert sum(layer.name.endswith("shortcut_conv") for layer in model.layers) == projections


@pytest.mark.parametrize(
    ("name", "shape", "options", "message"),
    [
        ("resnet20", (2, 8, 1), {}, "model resnet20 halves the image 2 times: .* 2x8 is too small; .* least 4x8$"),
        ("resnet18", (7, 7, 3), {}, "model resnet18 halves the image 3 times: .* least 8x8$"),
        ("resnet152", (16, 16, 3), {"stem": "imagenet"}, "model resnet152 halves the image 5 times: .* least 32x32$"),
    ],
)
def test_an_image_that_is_too_small_is_refused(name, shape, options, message):
    with pytest.raises(UserError, match=message):
        MODELS.build(name, shape, 10, **options)
